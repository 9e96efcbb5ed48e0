// The parts of the device suite, each a group of cmocka tests.
#ifndef LF_TEST_SUITE_H
#define LF_TEST_SUITE_H

int run_product_tests(void); // linear, linear_dx, linear_dw, activations
int run_sweep_tests(void);   // gathers, losses, optimizers
int run_layer_tests(void);   // dropout, add, norms
int run_model_tests(void);   // whole programs against the oracle
int run_law_tests(void);     // what holds for every device, to the bit

#endif
