// What the device suite stands on: a program with its buffers on a device, filled and read through doubles, and
// programs of one operation. Failing to set something up fails the test.
#ifndef LF_TEST_RIG_H
#define LF_TEST_RIG_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "abi.h"
#include "core/random.h"
#include "device/device.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

extern lf_device *device; // under test
extern lf_device *oracle; // cpu, which runs the programs that compute in float64

typedef struct test_rig {
    lf_device *dev;
    const lf_program *program; // borrowed
    lf_bindings regions;
    lf_exec *exec;
} test_rig;

void rig_init(test_rig *rig, lf_device *dev, const lf_program *program);
void rig_finish(test_rig *rig);

// Elements of a tensor, converted from or to its type.
void rig_put(test_rig *rig, lf_tensor_id tensor, const double *values);
void rig_get(const test_rig *rig, lf_tensor_id tensor, double *values);
// Normal numbers times `scale`, a pure function of (seed, tensor); the same values whatever the precision.
void rig_put_normal(test_rig *rig, lf_tensor_id tensor, uint32_t seed, double scale);
void rig_put_model(test_rig *rig,
                   const lf_model *model); // its weights, which their average begins with, and statistics
// Probabilities, some of them zero. They are multiples of 2^-16, so that the sum of a row is exactly 1.
void rig_put_teacher(test_rig *rig, lf_tensor_id tensor);

// The seed of every schedule.
#define RIG_SEED_LOW  0x243f6a88u
#define RIG_SEED_HIGH 0x85a308d3u

// Fills the schedule: the counter, the seed, and rows from the first on.
void rig_put_schedule(test_rig *rig, uint32_t counter, const struct lf_schedule_row *rows, uint32_t count);
uint32_t rig_counter(const test_rig *rig);

void rig_run(test_rig *rig, lf_phase first, lf_phase last, uint32_t steps);

size_t rig_elements(const lf_program *program, lf_tensor_id tensor);
lf_tensor_id find_tensor(const lf_program *program, const char *name); // fails the test if there is none

// Fails, with the operation, its shape, the element and the bound, where |got - want| > bound · max(floor, |want|), and
// where only one of them is NaN.
void assert_near(const char *what, const lf_program *program, lf_tensor_id tensor, const double *got,
                 const double *want, double bound, double floor);

// A row of the schedule for `rows` rows from position `first` and an update by them alone, with the optimizer's rates
// at training step `step`.
struct lf_schedule_row schedule_row(const lf_optimizer *optimizer, uint32_t first, uint32_t rows, uint32_t step);

// A program of one operation. Every tensor is followed by 256 bytes that nobody may write to.
enum { ONE_OP_STEPS = 3, ONE_OP_TENSORS = LF_OPERAND_MAX + 1 };
#define ONE_OP_POSITIONS(batch) ((batch) + 4) // entries of the order
typedef struct one_op {
    lf_program program;
    lf_tensor tensors[ONE_OP_TENSORS];
    lf_op op;
} one_op;

typedef struct operand {
    unsigned number; // LF_LINEAR_X …
    lf_region region;
    uint32_t rows, cols;
    lf_dtype type; // used where `typed` is set; otherwise the program's real
    bool typed;
} operand;

// A schedule in which one row is right: the counter points at it, the batch starts at position 2, and the training step
// is 4. `optimizer` may be NULL where the operation is none.
enum { ONE_OP_COUNTER = 1, ONE_OP_FIRST = 2, ONE_OP_TRAINING_STEP = 4 };
void one_op_put_schedule(test_rig *rig, const lf_optimizer *optimizer, uint32_t rows);
void one_op_put_row(test_rig *rig, const struct lf_schedule_row *row); // that is the right one

// A `fill` for what op_case has: normal numbers for all that the operation reads.
typedef struct op_scales {
    double scale[LF_OPERAND_MAX]; // by the operand's number
    uint32_t rows;                // of the batch; 0: all of them
} op_scales;
void fill_scaled(test_rig *rig, const void *scales);

// `op` gives the kind, the widths and the options. The schedule is there without being asked for.
void one_op_make(one_op *one, lf_op op, const operand *operands, size_t count, bool in_float64);

// Runs the operation on the device under test in f32 and on the oracle in f64, from equal inputs: `fill` fills them.
// Compares every operand that the operation writes, and checks that nothing else has changed. `floor` as above; metrics
// have 1.
typedef struct op_case {
    lf_op op;
    operand operands[LF_OPERAND_MAX];
    size_t operand_count;
    void (*fill)(test_rig *rig, const void *context);
    const void *context;
    const char *what; // for messages: the shape and options
    double bound, floor;
    bool idle; // nothing at all may change
} op_case;
void check_op(const op_case *op);

#endif
