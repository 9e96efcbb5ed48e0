// One operation at a time, against the formulas written out in double. The device suite compares them with the oracle;
// this does not lean on another backend. Run like test_vulkan.
#include "op_run.h"

int main(int argc, char **argv)
{
    lf_error err;
    device = lf_device_open(argc > 1 ? argv[1] : "vulkan:0", &err);
    if (!device) {
        printf("skipped: %s\n", err.text);
        return 77;
    }
    int failures = run_layer_formulas() + run_loss_formulas() + run_update_formulas();
    if (!failures)
        lf_device_close(device);
    return failures != 0;
}
