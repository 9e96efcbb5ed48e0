// The device suite: test_device DEVICE, where DEVICE is what lf_device_open takes. One list of tests for every device.
#include "rig.h"
#include "suite.h"

enum { SKIPPED = 77 };

int main(int argc, char **argv)
{
    lf_error err;
    if (argc != 2) {
        fprintf(stderr, "usage: %s DEVICE\n", argv[0]);
        return 2;
    }
    device = lf_device_open(argv[1], &err);
    if (!device) {
        bool absent = err.code == LF_ENOTFOUND || err.code == LF_EUNSUPPORTED;
        printf("%s: %s\n", absent ? "skipped" : "failed", err.text);
        return absent ? SKIPPED : 1;
    }
    oracle = lf_device_open("cpu", &err);
    if (!oracle) {
        printf("failed: %s\n", err.text);
        return 1;
    }
    printf("%s: %s, %s %s\n", device->info.id, device->info.name, device->info.driver_name,
           device->info.driver_version);
    int failures = run_product_tests() + run_update_tests() + run_gather_tests() + run_loss_tests() +
                   run_sweep_tests() + run_layer_tests() + run_shard_tests() + run_total_tests() + run_model_tests() +
                   run_law_tests();
    // A failed test leaves its objects behind; without a failure there is none.
    if (!failures && (device->live_buffers || device->live_execs || oracle->live_buffers || oracle->live_execs)) {
        printf("failed: %zu buffers and %zu execs are still alive on %s\n", device->live_buffers, device->live_execs,
               device->info.id);
        return 1;
    }
    if (failures)
        return 1;
    lf_device_close(oracle);
    lf_device_close(device);
    return 0;
}
