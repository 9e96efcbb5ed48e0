// How a product is cut: a short measured trial decides among a few cuts, at a shape's first use on a device, and a file
// beside the kernel cache remembers what it found. Every cut sums an element over the depth in the same order, so the
// bits do not depend on what a trial finds. A trial that cannot be made, for want of memory or of a folder, is no
// error.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "core/clock.h"
#include "vulkan/internal.h"

#define LEAST_WORK 500000 // multiplications, below which a dispatch costs as much whatever the cut
#define BUDGET     50e-3  // seconds that a program's trials may take; the next program goes on with the rest
#define SUBMISSION 2e-3   // seconds of a measured submission, about
#define REPEATS    4
#define FIRST      1000 // the measure of the first cut
#define GAIN       30   // less than this is nothing, or noise

// The first one is for where nothing is known. A processor has its subgroup's lanes and one band, and rows are whole
// multiples of the lanes.
static const vk_cut gpu_cuts[] = {
    { 8, 8, 4, 1 }, { 16, 4, 4, 1 }, { 16, 8, 4, 1 }, { 32, 4, 4, 1 }, { 8, 8, 8, 1 }, { 16, 8, 8, 1 }, { 8, 8, 8, 2 },
};
static const vk_cut processor_cuts[] = {
    { 0, 1, 16, 1 }, { 0, 1, 8, 2 }, { 0, 1, 8, 1 }, { 0, 1, 24, 1 }, { 0, 1, 16, 2 },
};
#define COUNT(array) (sizeof(array) / sizeof *(array))
_Static_assert(COUNT(gpu_cuts) <= VK_CUTS_MAX && COUNT(processor_cuts) <= VK_CUTS_MAX, "a measure for each cut");

// What a file begins with; the trials follow.
typedef struct heading {
    char kernels[64]; // their digest
    uint32_t cuts;    // how many there are to choose from
    uint32_t trials;
} heading;

static uint32_t cut_count(const vk_device *dev)
{
    return vk_tiles_is_processor(&dev->tiles) ? COUNT(processor_cuts) : COUNT(gpu_cuts);
}

static vk_cut cut_at(const vk_device *dev, uint32_t i)
{
    if (!vk_tiles_is_processor(&dev->tiles))
        return gpu_cuts[i];
    vk_cut cut = processor_cuts[i];
    cut.lanes = dev->tiles.lanes;
    cut.rows = (cut.rows + cut.lanes - 1) / cut.lanes * cut.lanes;
    return cut;
}

// Shapes of one class are cut alike: wide ones no longer differ, but for whether they are read four deep.
static vk_trial class_of(const vk_device *dev, unsigned kernel, uint32_t rows, uint32_t columns, uint32_t depth)
{
    static const uint32_t processor[] = { 128, 256, 512 }, gpu[] = { 1024, 1024, 1024 };
    const uint32_t *wide = vk_tiles_is_processor(&dev->tiles) ? processor : gpu;
    uint32_t shape[] = { rows, columns, depth };
    for (unsigned i = 0; i < COUNT(shape); i++)
        if (shape[i] > wide[i])
            shape[i] = wide[i] + (shape[i] % 4 ? 1 : 0);
    return (vk_trial){ .kernel = kernel == LF_OP_LINEAR_UPDATE ? LF_OP_LINEAR_DW : kernel,
                       .shape = { shape[0], shape[1], shape[2] } };
}

static vk_trial *find(const vk_device *dev, const vk_trial *class)
{
    for (size_t i = 0; i < dev->trial_count; i++) {
        vk_trial *trial = &dev->trials[i];
        if (trial->kernel == class->kernel && !memcmp(trial->shape, class->shape, sizeof trial->shape))
            return trial;
    }
    return NULL;
}

static vk_trial *find_or_add(vk_device *dev, const vk_trial *class)
{
    vk_trial *found = find(dev, class);
    if (found)
        return found;
    vk_trial *grown = realloc(dev->trials, (dev->trial_count + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    dev->trials = grown;
    grown[dev->trial_count] = *class;
    return &grown[dev->trial_count++];
}

vk_cut vk_cut_of(const vk_device *dev, unsigned kernel, uint32_t rows, uint32_t columns, uint32_t depth)
{
    if (dev->cut >= 0)
        return cut_at(dev, (uint32_t)dev->cut);
    vk_trial class = class_of(dev, kernel, rows, columns, depth);
    const vk_trial *trial = find(dev, &class);
    uint32_t best = 0, least = FIRST - GAIN;
    for (uint32_t i = 1; trial && i < cut_count(dev); i++)
        if (trial->measure[i] && trial->measure[i] < least) {
            best = i;
            least = trial->measure[i];
        }
    return cut_at(dev, best);
}

// ---- the file

static void name_file(const vk_device *dev, char name[128])
{
    snprintf(name, 128, "%s-tiles", dev->cache_name);
}

static void load(vk_device *dev)
{
    char name[128], kernels[65];
    size_t size = 0;
    name_file(dev, name);
    vk_kernels_digest(kernels);
    char *bytes = vk_kernel_cache_load(name, &size);
    heading head = { .trials = 0 };
    bool fits = bytes && size >= sizeof head;
    if (fits)
        memcpy(&head, bytes, sizeof head);
    fits = fits && (size - sizeof head) / sizeof(vk_trial) == head.trials && head.cuts == cut_count(dev) &&
           !memcmp(head.kernels, kernels, sizeof head.kernels);
    for (uint32_t i = 0; fits && i < head.trials; i++) {
        vk_trial found;
        memcpy(&found, bytes + sizeof head + i * sizeof found, sizeof found);
        vk_trial *trial = find_or_add(dev, &found);
        for (uint32_t k = 0; trial && k < VK_CUTS_MAX; k++)
            if (!trial->measure[k])
                trial->measure[k] = found.measure[k];
    }
    free(bytes);
}

static void save(vk_device *dev)
{
    load(dev); // what another process has found meanwhile
    char name[128], kernels[65];
    heading head = { .cuts = cut_count(dev), .trials = (uint32_t)dev->trial_count };
    size_t size = sizeof head + dev->trial_count * sizeof *dev->trials;
    char *bytes = malloc(size);
    if (!bytes)
        return;
    name_file(dev, name);
    vk_kernels_digest(kernels);
    memcpy(head.kernels, kernels, sizeof head.kernels);
    memcpy(bytes, &head, sizeof head);
    memcpy(bytes + sizeof head, dev->trials, dev->trial_count * sizeof *dev->trials);
    vk_kernel_cache_save(name, bytes, size);
    free(bytes);
}

// ---- a trial

enum { SCHEDULE, LEFT, RIGHT, RESULT, VECTOR, TENSORS }; // VECTOR: as wide as the result

// A program of the product alone, over memory of its own.
typedef struct stage {
    lf_tensor tensors[TENSORS];
    lf_op op;
    lf_program program;
    lf_bindings regions;
} stage;

static void add(stage *s, unsigned tensor, uint32_t rows, uint32_t cols)
{
    size_t *size = &s->program.region_size[LF_REGION_ACTS];
    s->tensors[tensor] =
        (lf_tensor){ .region = LF_REGION_ACTS, .type = LF_F32, .rows = rows, .cols = cols, .offset = *size };
    *size += (lf_tensor_bytes(&s->tensors[tensor]) + 255) / 256 * 256;
}

static void set_stage(stage *s, const vk_trial *class)
{
    uint32_t rows = class->shape[0], columns = class->shape[1], depth = class->shape[2];
    *s = (stage){ .op = { .kind = class->kernel, .rows = rows, .inputs = depth, .outputs = columns } };
    s->program = (lf_program){ .real = LF_F32,
                               .tensors = s->tensors,
                               .tensor_count = TENSORS,
                               .ops = &s->op,
                               .op_count = 1,
                               .schedule = SCHEDULE };
    add(s, SCHEDULE, 1, LF_SCHEDULE_HEADER_WORDS);
    add(s, RESULT, rows, columns);
    add(s, VECTOR, 1, columns);
    for (unsigned i = 0; i < LF_OPERAND_MAX; i++)
        s->op.operands[i] = LF_NO_TENSOR;
    s->op.operands[0] = LEFT;
    s->op.operands[1] = RIGHT;
    switch (class->kernel) {
    case LF_OP_LINEAR:
        add(s, LEFT, rows, depth);
        add(s, RIGHT, depth, columns);
        s->op.operands[LF_LINEAR_BIAS] = VECTOR;
        s->op.operands[LF_LINEAR_Y] = RESULT;
        break;
    case LF_OP_LINEAR_DX:
        add(s, LEFT, rows, depth);
        add(s, RIGHT, columns, depth);
        s->op.inputs = columns;
        s->op.outputs = depth;
        s->op.operands[LF_LINEAR_DX_DX] = RESULT;
        break;
    default:
        add(s, LEFT, depth, rows);
        add(s, RIGHT, depth, columns);
        s->op.rows = depth;
        s->op.inputs = rows;
        s->op.operands[LF_LINEAR_DW_DKERNEL] = RESULT;
        s->op.operands[LF_LINEAR_DW_DBIAS] = VECTOR;
        break;
    }
}

// Seconds of a submission of so many products; 0 on failure.
static double time_steps(vk_device *dev, lf_exec *exec, uint32_t steps)
{
    double start = lf_clock();
    if (!vk_exec_run(&dev->base, exec, 0, LF_LAST_SEGMENT, steps, NULL) || !vk_wait(&dev->base, NULL))
        return 0;
    return lf_clock() - start;
}

// Thousandths of the first cut's time that another one takes, both measured by turns, so that what else goes on in the
// machine tells on both; a large number if it cannot be told.
static uint32_t measure(vk_device *dev, const stage *s, uint32_t cut)
{
    lf_exec *execs[2];
    double best[2] = { 1e9, 1e9 };
    bool known = true;
    for (unsigned k = 0; k < 2; k++) {
        dev->cut = k ? (int)cut : 0;
        execs[k] = vk_exec_create(&dev->base, &s->program, &s->regions, NULL);
        known = known && execs[k] && time_steps(dev, execs[k], 1) > 0; // it compiles
    }
    dev->cut = -1;
    double once = known ? time_steps(dev, execs[0], 1) : 1;
    uint32_t steps = once > 0 && once < SUBMISSION ? (uint32_t)(SUBMISSION / once) + 1 : 1;
    for (unsigned i = 0; known && i < REPEATS * 2; i++) {
        double time = time_steps(dev, execs[i % 2], steps);
        known = time > 0;
        best[i % 2] = time < best[i % 2] ? time : best[i % 2];
    }
    for (unsigned k = 0; k < 2; k++)
        vk_exec_destroy(&dev->base, execs[k]);
    return known && best[1] < 100 * best[0] ? (uint32_t)(FIRST * best[1] / best[0]) + 1 : 100 * FIRST;
}

// Tries the cuts of a class that have no time yet, until the budget is spent. Whether there is news.
static bool try_class(vk_device *dev, vk_trial *trial, double end)
{
    uint32_t cut = 1, cuts = cut_count(dev);
    while (cut < cuts && trial->measure[cut])
        cut++;
    if (cut == cuts || lf_clock() >= end)
        return false;
    stage s;
    set_stage(&s, trial);
    lf_buffer *scratch = vk_buffer_create(&dev->base, s.program.region_size[LF_REGION_ACTS], NULL);
    s.regions.region[LF_REGION_ACTS] = scratch;
    for (; scratch && cut < cuts && lf_clock() < end; cut++)
        trial->measure[cut] = measure(dev, &s, cut);
    vk_buffer_destroy(&dev->base, scratch);
    return scratch != NULL;
}

// The class of an operation that is a product worth a trial.
static bool product_of(const vk_device *dev, const lf_op *op, vk_trial *class)
{
    uint32_t rows = op->rows, columns = op->outputs, depth = op->inputs;
    switch (op->kind) {
    case LF_OP_LINEAR:
        break;
    case LF_OP_LINEAR_DX:
        columns = op->inputs;
        depth = op->outputs;
        break;
    case LF_OP_LINEAR_DW:
    case LF_OP_LINEAR_UPDATE:
        rows = op->inputs;
        depth = op->rows;
        break;
    default:
        return false;
    }
    *class = class_of(dev, op->kind, rows, columns, depth);
    return (double)rows * columns * depth >= LEAST_WORK;
}

void vk_trials_run(vk_device *dev, const lf_program *prog)
{
    if (dev->cut >= 0)
        return;
    if (!dev->trials)
        load(dev);
    double end = lf_clock() + BUDGET;
    const uint64_t submissions = dev->base.submissions, dispatches = dev->base.dispatches;
    bool news = false;
    for (size_t i = 0; i < prog->op_count; i++) {
        vk_trial class;
        vk_trial *trial = product_of(dev, &prog->ops[i], &class) ? find_or_add(dev, &class) : NULL;
        if (trial && try_class(dev, trial, end))
            news = true;
    }
    dev->base.submissions = submissions;
    dev->base.dispatches = dispatches;
    if (news)
        save(dev);
}

bool vk_trials_init(vk_device *dev, lf_error *err)
{
    const char *asked = getenv("LAVAFLOW_TILES"), *number = asked ? asked : "";
    uint32_t cuts = cut_count(dev);
    char *end = NULL;
    dev->cut = *number ? 0 : -1;
    if (!strncmp(number, "cpu", 3) || !strncmp(number, "gpu", 3))
        number += number[3] == ':' ? 4 : 3;
    if (!*number)
        return true;
    unsigned long cut = strtoul(number, &end, 10);
    if (*end || *number < '0' || *number > '9') {
        lf_error_set(err, LF_EARG, "LAVAFLOW_TILES=%s: expected a number, cpu, gpu, cpu:N or gpu:N", asked);
        return false;
    }
    if (cut >= cuts) {
        lf_error_set(err, LF_EARG, "LAVAFLOW_TILES=%s: products are cut in %u ways here, 0 to %u", asked, cuts,
                     cuts - 1);
        return false;
    }
    dev->cut = (int)cut;
    return true;
}
