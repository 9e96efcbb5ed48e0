// One operation on the device under test, to be compared with its formula written out in double: the programs of
// test_formulas, and what they share.
#ifndef LF_TEST_OP_RUN_H
#define LF_TEST_OP_RUN_H

#include "../device/rig.h"

enum { COUNTER = ONE_OP_COUNTER, FIRST = ONE_OP_FIRST, STEP = 70001, RESIDENT = 50, SHAPES = 9 };

extern const uint32_t run_shapes[SHAPES][2];
extern const uint32_t run_seed[2]; // of the schedule

// Arrays of numbers belong to it.
typedef struct op_run {
    one_op one;
    test_rig rig;
    uint32_t rows; // of the batch that count
    double *kept[4 * LF_OPERAND_MAX];
    size_t kept_count;
    char what[160];
} op_run;

lf_op run_op(lf_op_kind kind, uint32_t rows, uint32_t width);
operand run_acts(unsigned number, uint32_t rows, uint32_t cols);
operand run_words(unsigned number, uint32_t count);

// Everything that is only written starts as NaN. `short_batch`: some rows of the batch count nothing.
void run_start(op_run *run, lf_op op, bool short_batch, const operand *operands, size_t count);
void run_finish(op_run *run);
// More about the run, for messages.
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void run_note(op_run *run, const char *format, ...);

double *run_numbers(op_run *run, size_t count);
void run_put(op_run *run, unsigned number, const double *values);
// Fills an operand with normal numbers about `middle`.
double *run_put_normal(op_run *run, unsigned number, double middle, double scale);
double *run_get(op_run *run, unsigned number);
void run_once(op_run *run);
void run_expect(op_run *run, unsigned number, const double *want, double bound, double floor);

int run_layer_formulas(void);
int run_loss_formulas(void);
int run_update_formulas(void);

#endif
