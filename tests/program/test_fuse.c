// Which programs have their optimizer moved into their products, and what is left of them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "abi.h"
#include "program/program.h"

#define LINEAR(in, out)                                                                                                \
    {                                                                                                                  \
        .kind = LF_LAYER_LINEAR, .inputs = in, .outputs = out                                                          \
    }
#define RELU                                                                                                           \
    {                                                                                                                  \
        .kind = LF_LAYER_ACTIVATION, .activation = LF_ACT_RELU                                                         \
    }
#define COUNT(array) (sizeof(array) / sizeof *(array))

static const lf_layer classifier[] = { LINEAR(784, 128), RELU, LINEAR(128, 10) };
static const lf_layer normed[] = { LINEAR(20, 16),
                                   { .kind = LF_LAYER_LAYER_NORM, .inputs = 16, .outputs = 16 },
                                   LINEAR(16, 4) };

typedef struct fused {
    lf_model *model;
    lf_program *program, *fused;
} fused;

static fused fuse_last(const lf_layer *layers, size_t count, lf_compile_params params, uint32_t classes)
{
    lf_error err;
    fused f = { .model = lf_model_create(layers, count, &err) };
    assert_non_null(f.model);
    params.model = f.model;
    params.loss = LF_LOSS_CROSS_ENTROPY;
    params.batch = 32;
    params.stored = LF_U8;
    params.rows = params.positions = 64;
    params.steps = 2;
    f.program = lf_program_compile(&params, &err);
    assert_non_null(f.program);
    f.fused = lf_program_fuse(f.program, classes, &err);
    assert_non_null(f.fused);
    return f;
}

static fused fuse(const lf_layer *layers, size_t count, lf_compile_params params)
{
    return fuse_last(layers, count, params, 0);
}

static void finish(fused *f)
{
    lf_program_destroy(f->fused);
    lf_program_destroy(f->program);
    lf_model_destroy(f->model);
}

static lf_compile_params whole(lf_optimizer_kind kind)
{
    return (lf_compile_params){ .fuses = true, .optimizer = lf_optimizer_default(kind) };
}

static void is_a_copy(const fused *f)
{
    assert_int_equal(f->fused->op_count, f->program->op_count);
    for (size_t i = 0; i < f->fused->op_count; i++)
        assert_memory_equal(&f->fused->ops[i], &f->program->ops[i], sizeof(lf_op));
}

static const lf_op *find(const lf_program *program, lf_op_kind kind, size_t skipped)
{
    for (size_t i = 0; i < program->op_count; i++)
        if (program->ops[i].kind == kind && !skipped--)
            return &program->ops[i];
    fail_msg("no %s", lf_op_info_of(kind)->name);
    return NULL;
}

static void a_classifier_needs_neither_gradients_nor_a_sweep(void **state)
{
    (void)state;
    static const lf_op_kind kinds[] = { LF_OP_GATHER,    LF_OP_LINEAR,        LF_OP_LINEAR,       LF_OP_CROSS_ENTROPY,
                                        LF_OP_LINEAR_DX, LF_OP_LINEAR_UPDATE, LF_OP_LINEAR_UPDATE };
    fused f = fuse(classifier, COUNT(classifier), whole(LF_OPTIMIZER_ADAM));
    assert_int_equal(f.fused->op_count, COUNT(kinds));
    for (size_t i = 0; i < COUNT(kinds); i++)
        assert_int_equal(f.fused->ops[i].kind, kinds[i]);
    // The kernel that linear_dx reads is written behind a barrier; the two updates need none between them.
    assert_true(f.fused->ops[5].barrier);
    assert_false(f.fused->ops[6].barrier);
    finish(&f);
}

static void an_update_has_the_places_of_its_layer(void **state)
{
    (void)state;
    fused f = fuse(classifier, COUNT(classifier), whole(LF_OPTIMIZER_ADAM));
    const lf_op *update = find(f.fused, LF_OP_LINEAR_UPDATE, 1), *forward = find(f.fused, LF_OP_LINEAR, 0);
    const lf_tensor *kernel = lf_op_tensor(f.fused, update, LF_LINEAR_UPDATE_KERNEL),
                    *m = lf_op_tensor(f.fused, update, LF_LINEAR_UPDATE_KERNEL_M),
                    *v = lf_op_tensor(f.fused, update, LF_LINEAR_UPDATE_KERNEL_V),
                    *bias = lf_op_tensor(f.fused, update, LF_LINEAR_UPDATE_BIAS);
    assert_int_equal(update->inputs, 784);
    assert_int_equal(update->outputs, 128);
    assert_int_equal(update->optimizer, LF_OP_ADAM);
    assert_int_equal(kernel->offset, lf_op_tensor(f.fused, forward, LF_LINEAR_KERNEL)->offset);
    assert_int_equal(bias->offset, lf_op_tensor(f.fused, forward, LF_LINEAR_BIAS)->offset);
    assert_int_equal(kernel->rows, 784);
    assert_int_equal(kernel->cols, 128);
    assert_int_equal(m->offset, f.fused->tensors[f.fused->moment[LF_MOMENT_M]].offset + kernel->offset);
    assert_int_equal(v->offset, f.fused->tensors[f.fused->moment[LF_MOMENT_V]].offset + kernel->offset);
    assert_string_equal(kernel->name, "linear_1/kernel");
    assert_string_equal(v->name, "v/linear_1/kernel");
    finish(&f);
}

static void norms_keep_their_part_of_the_sweep(void **state)
{
    (void)state;
    fused f = fuse(normed, COUNT(normed), whole(LF_OPTIMIZER_ADAM));
    const lf_op *rest = find(f.fused, LF_OP_ADAM, 0);
    assert_int_equal(rest->outputs, 128); // gamma and beta, each in its 64
    for (unsigned k = LF_UPDATE_GRADS; k <= LF_UPDATE_V; k++)
        assert_int_equal(lf_op_tensor(f.fused, rest, k)->cols, 128);
    find(f.fused, LF_OP_LINEAR_UPDATE, 1);
    finish(&f);
}

static void decays_of_kernel_and_bias_differ_where_those_of_the_sweeps_do(void **state)
{
    (void)state;
    fused f = fuse(classifier, COUNT(classifier), whole(LF_OPTIMIZER_ADAMW));
    const lf_op *update = find(f.fused, LF_OP_LINEAR_UPDATE, 0);
    assert_true(update->decoupled);
    assert_true(update->weight_decay > 0 && update->bias_decay == 0);
    finish(&f);
}

static void what_comes_between_gradients_and_optimizer_keeps_them_apart(void **state)
{
    (void)state;
    lf_compile_params all[] = { whole(LF_OPTIMIZER_ADAM), whole(LF_OPTIMIZER_ADAM), whole(LF_OPTIMIZER_ADAM),
                                whole(LF_OPTIMIZER_LAMB), whole(LF_OPTIMIZER_ADAM) };
    all[0].optimizer.clip_norm = 1;
    all[1].accumulates = true;
    all[2].shards = 4;
    all[4].fuses = false;
    for (size_t i = 0; i < COUNT(all); i++) {
        fused f = fuse(classifier, COUNT(classifier), all[i]);
        is_a_copy(&f);
        finish(&f);
    }
}

static void segments_keep_their_numbers(void **state)
{
    (void)state;
    static const lf_layer one[] = { LINEAR(20, 4) }; // whose backward pass becomes empty
    fused f = fuse(one, COUNT(one), whole(LF_OPTIMIZER_SGD));
    assert_int_equal(f.fused->ops[f.fused->op_count - 1].segment, f.program->ops[f.program->op_count - 1].segment);
    finish(&f);
}

static void a_last_layer_comes_with_its_loss_and_the_gradient_to_its_inputs(void **state)
{
    (void)state;
    static const lf_op_kind kinds[] = { LF_OP_GATHER, LF_OP_LINEAR, LF_OP_LINEAR_LOSS, LF_OP_LINEAR_UPDATE,
                                        LF_OP_LINEAR_UPDATE };
    fused f = fuse_last(classifier, COUNT(classifier), whole(LF_OPTIMIZER_ADAM), 10);
    assert_int_equal(f.fused->op_count, COUNT(kinds));
    for (size_t i = 0; i < COUNT(kinds); i++)
        assert_int_equal(f.fused->ops[i].kind, kinds[i]);
    const lf_op *op = &f.fused->ops[2], *dx = find(f.program, LF_OP_LINEAR_DX, 0);
    assert_int_equal(op->inputs, 128);
    assert_int_equal(op->outputs, 10);
    assert_int_equal(op->activation, LF_ACT_RELU);
    assert_int_equal(op->operands[LF_LINEAR_LOSS_X], find(f.program, LF_OP_LINEAR, 1)->operands[LF_LINEAR_X]);
    assert_int_equal(op->operands[LF_LINEAR_LOSS_SAVED], dx->operands[LF_LINEAR_DX_SAVED]);
    assert_int_equal(op->operands[LF_LINEAR_LOSS_DX], dx->operands[LF_LINEAR_DX_DX]);
    assert_true(op->barrier); // x
    finish(&f);
}

static void a_last_layer_alone_has_no_gradient_to_its_inputs(void **state)
{
    (void)state;
    static const lf_layer one[] = { LINEAR(20, 4) };
    fused f = fuse_last(one, COUNT(one), whole(LF_OPTIMIZER_ADAM), 4);
    const lf_op *op = find(f.fused, LF_OP_LINEAR_LOSS, 0);
    assert_int_equal(op->operands[LF_LINEAR_LOSS_DX], LF_NO_TENSOR);
    assert_int_equal(op->operands[LF_LINEAR_LOSS_SAVED], LF_NO_TENSOR);
    assert_int_equal(op->activation, LF_ACT_NONE);
    finish(&f);
}

static void wide_weighted_and_active_last_layers_stay_apart_from_their_loss(void **state)
{
    (void)state;
    static const lf_layer active[] = { LINEAR(20, 4), RELU };
    lf_compile_params weighted = whole(LF_OPTIMIZER_ADAM), apart = whole(LF_OPTIMIZER_ADAM);
    weighted.weighted = true;
    apart.fuses = false;
    fused all[] = { fuse_last(classifier, COUNT(classifier), whole(LF_OPTIMIZER_ADAM), 9),
                    fuse_last(classifier, COUNT(classifier), weighted, 10),
                    fuse_last(classifier, COUNT(classifier), apart, 10),
                    fuse_last(active, COUNT(active), whole(LF_OPTIMIZER_ADAM), 10) };
    for (size_t i = 0; i < COUNT(all); i++) {
        find(all[i].fused, LF_OP_CROSS_ENTROPY, 0);
        finish(&all[i]);
    }
}

static void clipped_gradients_are_no_hindrance_to_a_last_layer(void **state)
{
    (void)state;
    lf_compile_params clipped = whole(LF_OPTIMIZER_ADAM);
    clipped.optimizer.clip_norm = 1;
    fused f = fuse_last(classifier, COUNT(classifier), clipped, 10);
    assert_int_not_equal(find(f.fused, LF_OP_LINEAR_LOSS, 0)->operands[LF_LINEAR_LOSS_DX], LF_NO_TENSOR);
    find(f.fused, LF_OP_LINEAR_DW, 1);
    finish(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_classifier_needs_neither_gradients_nor_a_sweep),
        cmocka_unit_test(an_update_has_the_places_of_its_layer),
        cmocka_unit_test(norms_keep_their_part_of_the_sweep),
        cmocka_unit_test(decays_of_kernel_and_bias_differ_where_those_of_the_sweeps_do),
        cmocka_unit_test(what_comes_between_gradients_and_optimizer_keeps_them_apart),
        cmocka_unit_test(segments_keep_their_numbers),
        cmocka_unit_test(a_last_layer_comes_with_its_loss_and_the_gradient_to_its_inputs),
        cmocka_unit_test(a_last_layer_alone_has_no_gradient_to_its_inputs),
        cmocka_unit_test(wide_weighted_and_active_last_layers_stay_apart_from_their_loss),
        cmocka_unit_test(clipped_gradients_are_no_hindrance_to_a_last_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
