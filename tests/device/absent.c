// What is missing is a row that says so, not a failure to start. The environment takes something away from every
// backend of GPUs; the arguments are one of them and what its row must speak of.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/device.h"

int main(int argc, char **argv)
{
    static lf_device_info infos[64];
    if (argc != 3) {
        fprintf(stderr, "usage: %s BACKEND TEXT\n", argv[0]);
        return 2;
    }
    const char *backend = argv[1], *expected = argv[2];
    char first[32];
    snprintf(first, sizeof first, "%s:0", backend);
    size_t count = lf_device_list(infos, 64), rows = 0;
    int failed = 0;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(infos[i].backend, backend) != 0)
            continue;
        rows++;
        if (!strstr(infos[i].unavailable, expected)) {
            printf("%s: \"%s\" does not speak of \"%s\"\n", infos[i].id, infos[i].unavailable, expected);
            failed = 1;
        }
    }
    if (rows != 1) {
        printf("%zu rows of %s, expected 1\n", rows, backend);
        failed = 1;
    }
    lf_error err = { 0 };
    lf_device *dev = lf_device_open(first, &err);
    if (dev || !strstr(err.text, expected)) {
        printf("%s: \"%s\" does not speak of \"%s\"\n", first, err.text, expected);
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
