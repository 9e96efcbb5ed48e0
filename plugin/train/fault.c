#include "train/fault.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char VARIABLE[] = "LAVAFLOW_FAULT";

struct lf_fault {
    char device[40];
    unsigned before;
    uint64_t step;
    uint32_t sum;
    lf_fault *next;
};

static bool parse(const char *text, size_t length, lf_fault *fault)
{
    char entry[96], *at, *number, end;
    unsigned opening = 1;
    snprintf(entry, sizeof entry, "%.*s", (int)(length < sizeof entry ? length : sizeof entry - 1), text);
    at = strchr(entry, '@');
    if (!at || strncmp(at, "@step=", 6) || !isdigit((unsigned char)at[6]))
        return false;
    bool plain = sscanf(at, "@step=%" SCNu64 "%c", &fault->step, &end) == 1;
    if (!plain && (sscanf(at, "@step=%" SCNu64 ".%" SCNu32 "%c", &fault->step, &fault->sum, &end) != 2))
        return false;
    *at = 0;
    number = strchr(entry, '#');
    if (number && sscanf(number, "#%u%c", &opening, &end) != 1)
        return false;
    if (number)
        *number = 0;
    fault->before = opening - 1;
    snprintf(fault->device, sizeof fault->device, "%.39s", entry);
    return *entry && opening && fault->step;
}

bool lf_faults_read(lf_fault **faults, lf_error *err)
{
    const char *text = getenv(VARIABLE);
    *faults = NULL;
    while (text && *text) {
        size_t length = strcspn(text, ",");
        lf_fault *fault = calloc(1, sizeof *fault);
        if (!fault || !parse(text, length, fault)) {
            lf_error_set(err, LF_EARG, "%s: expects DEVICE@step=N, got \"%.*s\"", VARIABLE, (int)length, text);
            free(fault);
            lf_faults_free(*faults);
            *faults = NULL;
            return false;
        }
        fault->next = *faults;
        *faults = fault;
        text += length + (text[length] == ',');
    }
    return true;
}

void lf_faults_free(lf_fault *faults)
{
    while (faults) {
        lf_fault *next = faults->next;
        free(faults);
        faults = next;
    }
}

bool lf_fault_is_due(const lf_fault *faults, const lf_device *device, uint64_t step, uint32_t sum, lf_error *err)
{
    const char *id = device->info.id;
    for (; faults; faults = faults->next)
        if (faults->step == step && faults->sum == sum && faults->before == device->opened &&
            !strcmp(faults->device, id)) {
            lf_error_set(err, LF_EDEVICE, "%s is lost, as %s asks for", id, VARIABLE);
            return true;
        }
    return false;
}
