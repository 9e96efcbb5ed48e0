// Microseconds of an Adam training step of an MLP, and of each of its operations alone, on one device. LAVAFLOW_FUSE=0
// keeps the optimizer apart from the products, and the step in several dispatches where it could be one.
//   bench_ops [DEVICE [BATCH WIDTH WIDTH…]]   by default vulkan:0 64 784 128 10
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "abi.h"
#include "device/device.h"

enum { STEPS = 50, REPEATS = 5, ROWS = 1000, WIDTH_MAX = 16, CLASSES_MAX = 32 };

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void give_up(const lf_error *err)
{
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

// Best of REPEATS runs of STEPS steps, in microseconds a step.
static double time_program(lf_device *dev, const lf_program *program, const lf_bindings *regions)
{
    lf_error err;
    lf_exec *exec = lf_device_exec_create(dev, program, regions, &err);
    if (!exec)
        give_up(&err);
    double best = 1e9;
    const uint32_t none = 0;
    for (unsigned i = 0; i <= REPEATS; i++) { // the first one compiles
        lf_device_buffer_write(dev, regions->region[LF_REGION_SCHEDULE], 0, &none, sizeof none, &err);
        double start = seconds();
        if (!lf_device_exec_run(dev, exec, 0, LF_LAST_SEGMENT, STEPS, &err) || !lf_device_wait(dev, &err))
            give_up(&err);
        double time = (seconds() - start) / STEPS;
        if (i && time < best)
            best = time;
    }
    lf_device_exec_destroy(dev, exec);
    return best * 1e6;
}

static void fill(lf_device *dev, const lf_program *program, const lf_model *model, const lf_bindings *regions)
{
    lf_error err;
    size_t bytes = lf_tensor_bytes(&program->tensors[program->schedule]);
    char *schedule = calloc(1, bytes);
    struct lf_schedule_row *rows = (struct lf_schedule_row *)(schedule + LF_SCHEDULE_HEADER_WORDS * sizeof(LF_UINT));
    uint32_t batch = program->params.batch;
    for (uint32_t i = 0; i < STEPS; i++)
        rows[i] = (struct lf_schedule_row){ .rows = batch,
                                            .inv_rows = 1.f / (float)batch,
                                            .inv_weight = 1.f / (float)batch,
                                            .lr = 1e-3f,
                                            .step_size = 1e-3f,
                                            .inv_sqrt_correct2 = 1,
                                            .begins = 1,
                                            .updates = 1 };
    unsigned char *data = malloc((size_t)ROWS * model->inputs);
    for (size_t i = 0; i < (size_t)ROWS * model->inputs; i++)
        data[i] = (unsigned char)(i * 7919 % 256);
    float *scaling = calloc(2 * model->inputs, sizeof *scaling);
    for (uint32_t i = 0; i < model->inputs; i++)
        scaling[i] = 1.f / 255;
    if (!lf_device_buffer_write(dev, regions->region[LF_REGION_SCHEDULE], 0, schedule, bytes, &err) ||
        !lf_device_buffer_write(dev, regions->region[LF_REGION_DATA], 0, data, (size_t)ROWS * model->inputs, &err) ||
        !lf_device_buffer_write(dev, regions->region[LF_REGION_SCALING], 0, scaling, 8 * (size_t)model->inputs, &err) ||
        !lf_device_buffer_write(dev, regions->region[LF_REGION_PARAMS], 0, model->params, 4 * model->block_count, &err))
        give_up(&err);
    free(schedule);
    free(data);
    free(scaling);
}

int main(int argc, char **argv)
{
    lf_error err;
    uint32_t batch = argc > 2 ? (uint32_t)atoi(argv[2]) : 64, widths[WIDTH_MAX] = { 784, 128, 10 };
    size_t width_count = 3;
    if (argc > 4) {
        width_count = (size_t)argc - 3 < WIDTH_MAX ? (size_t)argc - 3 : WIDTH_MAX;
        for (size_t i = 0; i < width_count; i++)
            widths[i] = (uint32_t)atoi(argv[3 + i]);
    }
    lf_layer layers[2 * WIDTH_MAX] = { 0 };
    size_t count = 0;
    for (size_t i = 0; i + 1 < width_count; i++) {
        if (i)
            layers[count++] = (lf_layer){ .kind = LF_LAYER_ACTIVATION, .activation = LF_ACT_RELU };
        layers[count++] = (lf_layer){ .kind = LF_LAYER_LINEAR, .inputs = widths[i], .outputs = widths[i + 1] };
    }
    lf_device *dev = lf_device_open(argc > 1 ? argv[1] : "vulkan:0", &err);
    lf_model *model = dev ? lf_model_create(layers, count, &err) : NULL;
    if (!model)
        give_up(&err);
    lf_model_init(model, 1);
    const char *fuse = getenv("LAVAFLOW_FUSE");
    lf_program *compiled =
        lf_program_compile(&(lf_compile_params){ .model = model,
                                                 .loss = LF_LOSS_CROSS_ENTROPY,
                                                 .optimizer = lf_optimizer_default(LF_OPTIMIZER_ADAM),
                                                 .fuses = !fuse || strcmp(fuse, "0") != 0,
                                                 .batch = batch,
                                                 .stored = LF_U8,
                                                 .rows = ROWS,
                                                 .positions = ROWS,
                                                 .steps = STEPS },
                           &err);
    lf_program *program =
        compiled ? lf_program_fuse(compiled, CLASSES_MAX, &err) : NULL; // what a device runs in several dispatches
    if (!program)
        give_up(&err);
    program->params.fuses = false;
    lf_bindings regions = { 0 };
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        if (program->region_size[i] &&
            !(regions.region[i] = lf_device_buffer_create(dev, program->region_size[i], &err)))
            give_up(&err);
    fill(dev, program, model, &regions);

    printf("%s: a step of batch %u\n%10.1f us  whole step\n", dev->info.name, batch,
           time_program(dev, compiled, &regions));
    for (size_t i = 0; i < program->op_count; i++) {
        lf_program one = *program; // a program of this operation alone
        lf_op op = program->ops[i];
        op.barrier = true;
        one.ops = &op;
        one.op_count = 1;
        double time = time_program(dev, &one, &regions);
        bool product = op.kind == LF_OP_LINEAR || op.kind == LF_OP_LINEAR_DX || op.kind == LF_OP_LINEAR_DW ||
                       op.kind == LF_OP_LINEAR_UPDATE;
        printf("%10.1f us  %s (%u, %u, %u)", time, lf_op_info_of(op.kind)->name, op.rows, op.inputs, op.outputs);
        if (product)
            printf("  %.1f GFLOP/s", 2e-3 * op.rows * op.inputs * op.outputs / time);
        printf("\n");
    }
    for (unsigned i = 0; i < LF_REGION_COUNT; i++)
        lf_device_buffer_destroy(dev, regions.region[i]);
    lf_program_destroy(program);
    lf_program_destroy(compiled);
    lf_model_destroy(model);
    lf_device_close(dev);
    return 0;
}
