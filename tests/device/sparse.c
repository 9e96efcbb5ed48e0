// When the cpu backend lists a batch's elements, by itself. That lists give equal bits is shown in updates.c.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/sparse.h"

enum { ROWS = 5, COLS = 130, COUNT_EVERY = 16 };

// Chooses, and gathers a batch whose rows have so many elements.
static void gather(cpu_sparse *s, uint32_t elements)
{
    cpu_sparse_choose(s);
    assert_false(s->on && s->counts);
    for (uint32_t row = 0; row < ROWS; row++)
        if (s->counts || s->on) // what the kernels write of a listed row's end is the same number
            cpu_sparse_count(s, row, elements);
}

static void the_first_batch_is_counted_and_the_next_ones_are_listed_if_it_has_few_elements(void **state)
{
    (void)state;
    cpu_sparse *s = cpu_sparse_create(ROWS, COLS);
    assert_non_null(s);
    gather(s, COLS / 2);
    assert_true(s->counts && !s->on);
    for (int i = 0; i < 100; i++) {
        gather(s, COLS / 2);
        assert_true(s->on);
    }
    cpu_sparse_destroy(s);
}

static void one_batch_in_sixteen_is_counted_while_they_have_many(void **state)
{
    (void)state;
    cpu_sparse *s = cpu_sparse_create(ROWS, COLS);
    assert_non_null(s);
    for (int i = 0; i < 100; i++) {
        gather(s, COLS / 2 + 1);
        assert_false(s->on);
        assert_true(s->counts == (i % COUNT_EVERY == 0));
    }
    cpu_sparse_destroy(s);
}

static void lists_end_with_the_first_batch_that_has_many(void **state)
{
    (void)state;
    cpu_sparse *s = cpu_sparse_create(ROWS, COLS);
    assert_non_null(s);
    gather(s, 0);
    gather(s, 0);
    assert_true(s->on);
    gather(s, COLS);
    assert_true(s->on);
    for (int i = 1; i <= COUNT_EVERY; i++) {
        gather(s, 0);
        assert_false(s->on);
        assert_true(s->counts == (i == COUNT_EVERY));
    }
    gather(s, 0);
    assert_true(s->on);
    cpu_sparse_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_batch_is_counted_and_the_next_ones_are_listed_if_it_has_few_elements),
        cmocka_unit_test(one_batch_in_sixteen_is_counted_while_they_have_many),
        cmocka_unit_test(lists_end_with_the_first_batch_that_has_many),
    };
    return cmocka_run_group_tests_name("cpu: lists of a batch", tests, NULL, NULL);
}
