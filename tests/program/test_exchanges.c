// program/: what programs for other shards of a batch have in common.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "abi.h"
#include "program/program.h"

// Programs that differ in what they hold alone have the same exchanges, of the same sizes, and the parts of them all
// cover the shards; a total stands before what needs it, behind what gives to it.
static void programs_of_other_shards_exchange_the_same(void **state)
{
    (void)state;
    static const lf_layer layers[] = { { .kind = LF_LAYER_LINEAR, .inputs = 20, .outputs = 64 },
                                       { .kind = LF_LAYER_BATCH_NORM, .inputs = 64, .outputs = 64 },
                                       { .kind = LF_LAYER_ACTIVATION, .activation = LF_ACT_RELU },
                                       { .kind = LF_LAYER_LINEAR, .inputs = 64, .outputs = 32 },
                                       { .kind = LF_LAYER_LINEAR, .inputs = 32, .outputs = 4 } };
    static const uint32_t first[] = { 0, 1, 2, 5 }, second[] = { 3, 4, 6, 7 };
    lf_model *model = lf_model_create(layers, sizeof layers / sizeof *layers, NULL);
    assert_non_null(model);
    lf_compile_params params = { .model = model,
                                 .loss = LF_LOSS_CROSS_ENTROPY,
                                 .batch = 32,
                                 .stored = LF_U8,
                                 .rows = 1000,
                                 .positions = 1000,
                                 .steps = 32,
                                 .shards = 8,
                                 .held = first,
                                 .held_count = 4,
                                 .bucket = 4096,
                                 .optimizer = lf_optimizer_default(LF_OPTIMIZER_ADAM) };
    lf_program *one = lf_program_compile(&params, NULL);
    params.held = second;
    lf_program *two = lf_program_compile(&params, NULL);
    assert_non_null(one);
    assert_non_null(two);
    assert_true(one->exchange_count > 4); // batch norm's two and its two gradients, a bucket, the rest
    assert_int_equal(one->exchange_count, two->exchange_count);
    size_t floats = 0;
    for (size_t i = 0; i < one->exchange_count; i++) {
        const lf_exchange *a = &one->exchanges[i], *b = &two->exchanges[i];
        const lf_tensor *total = &one->tensors[a->total], *other = &two->tensors[b->total];
        assert_int_equal(lf_tensor_bytes(total), lf_tensor_bytes(other));
        assert_true(a->after < a->before && b->after < b->before);
        assert_true(!i || one->exchanges[i - 1].after <= a->after);
        uint32_t covered = 0;
        for (size_t p = 0; p < a->part_count; p++)
            covered += a->parts[p].count;
        for (size_t p = 0; p < b->part_count; p++)
            covered += b->parts[p].count;
        assert_int_equal(covered, 8);
        if (total->region == LF_REGION_GRADS)
            floats += lf_tensor_bytes(total) / sizeof(float);
    }
    assert_int_equal(floats, model->block_count); // every number of the gradient once
    lf_program_destroy(one);
    lf_program_destroy(two);
    lf_model_destroy(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(programs_of_other_shards_exchange_the_same) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
