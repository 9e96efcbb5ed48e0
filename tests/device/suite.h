// The parts of the device suite, each a group of cmocka tests.
#ifndef LF_TEST_SUITE_H
#define LF_TEST_SUITE_H

int run_product_tests(void); // linear, linear_dx, linear_dw, activations
int run_update_tests(void);  // linear_update; programs fused and not
int run_gather_tests(void);  // gather, gather_rows
int run_loss_tests(void);    // losses, softened teachers
int run_sweep_tests(void);   // optimizers, sums, clipping, averages
int run_layer_tests(void);   // dropout, add, norms
int run_shard_tests(void);   // operations on some of a batch's rows
int run_total_tests(void);   // sum, column_sums, batch_totals
int run_model_tests(void);   // whole programs against the oracle
int run_law_tests(void);     // what holds for every device, to the bit

int run_formula_tests(void); // of the oracle alone: its losses and optimizers against the textbook's formulas

void schedules_give_pytorchs_rates(void **state); // a test of its own, in test_parity

#endif
