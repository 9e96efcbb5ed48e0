// What is missing is a row that says so, not a failure to start. The environment takes something away; the argument is
// what the row must speak of.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/device.h"

int main(int argc, char **argv)
{
    static lf_device_info infos[64];
    const char *expected = argc > 1 ? argv[1] : "";
    size_t count = lf_device_list(infos, 64), rows = 0;
    int failed = 0;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(infos[i].backend, "vulkan") != 0)
            continue;
        rows++;
        if (!strstr(infos[i].unavailable, expected)) {
            printf("%s: \"%s\" does not speak of \"%s\"\n", infos[i].id, infos[i].unavailable, expected);
            failed = 1;
        }
    }
    if (rows != 1) {
        printf("%zu rows of vulkan, expected 1\n", rows);
        failed = 1;
    }
    lf_error err = { 0 };
    lf_device *dev = lf_device_open("vulkan:0", &err);
    if (dev || !strstr(err.text, expected)) {
        printf("vulkan:0: \"%s\" does not speak of \"%s\"\n", err.text, expected);
        failed = 1;
    }
    lf_device_close(dev);
    dev = lf_device_open("auto", &err);
    if (!dev) {
        printf("auto: %s\n", err.text);
        failed = 1;
    }
    lf_device_close(dev);
    setenv("LAVAFLOW_THREADS", "none", 1); // takes the cpu away too: auto names every reason
    dev = lf_device_open("auto", &err);
    if (dev || !strstr(err.text, expected) || !strstr(err.text, "LAVAFLOW_THREADS") ||
        !strstr(err.text, "none at all")) {
        printf("auto: \"%s\" does not speak of \"%s\" and of LAVAFLOW_THREADS\n", err.text, expected);
        failed = 1;
    }
    lf_device_close(dev);
    return failed;
}
