#include "train/bandwidth.h"

#include <pthread.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/tree.h"
#include "device/device.h"

enum { DEVICE_MAX = 64, REPEATS = 7 };

typedef struct member {
    struct exchange *exchange;
    lf_device *device;
    lf_buffer *buffer;
    float *values; // what was read
    pthread_t thread;
    lf_error error; // code LF_OK: all went well
} member;

typedef struct exchange {
    member members[DEVICE_MAX];
    size_t count, bytes;
    lf_tree_part parts[DEVICE_MAX];
    pthread_mutex_t gate; // closed until it is known whether all threads are there
    bool all_there;
    pthread_barrier_t barrier;
    lf_bandwidth seconds[REPEATS]; // by the first member
} exchange;

// Waits for all members; the clock of the first one tells how long it took since `*start`.
static double pass_barrier(member *m, double *start)
{
    pthread_barrier_wait(&m->exchange->barrier);
    double now = lf_clock(), taken = now - *start;
    *start = now;
    return taken;
}

// A failure does not keep the others waiting: the member goes on without its device.
static void *member_main(void *user)
{
    member *m = user;
    exchange *x = m->exchange;
    const bool first = m == x->members;
    double start = 0;
    pthread_mutex_lock(&x->gate);
    pthread_mutex_unlock(&x->gate);
    for (int i = 0; x->all_there && i < REPEATS; i++) {
        lf_bandwidth s = { 0 };
        pass_barrier(m, &start);
        if (!m->error.code)
            lf_device_buffer_read(m->device, m->values, m->buffer, 0, x->bytes, &m->error);
        s.read = pass_barrier(m, &start);
        if (first && x->count > 1)
            lf_tree_sum(x->parts, x->count, x->bytes / sizeof(float));
        s.sum = pass_barrier(m, &start);
        if (!m->error.code)
            lf_device_buffer_write(m->device, m->buffer, 0, x->members[0].values, x->bytes, &m->error);
        s.write = pass_barrier(m, &start);
        if (first)
            x->seconds[i] = s;
    }
    return NULL;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double values[REPEATS])
{
    qsort(values, REPEATS, sizeof *values, compare);
    return values[REPEATS / 2];
}

static lf_bandwidth medians(const exchange *x)
{
    double read[REPEATS], sum[REPEATS], write[REPEATS];
    for (int i = 0; i < REPEATS; i++) {
        read[i] = x->seconds[i].read;
        sum[i] = x->seconds[i].sum;
        write[i] = x->seconds[i].write;
    }
    return (lf_bandwidth){ .read = median(read), .sum = median(sum), .write = median(write) };
}

// The members' parts cover the least power of two of shards that is enough for all: the first ones hold two each.
static void divide(exchange *x)
{
    uint32_t shards = 1, first = 0;
    while (shards < x->count)
        shards *= 2;
    for (size_t i = 0; i < x->count; i++) {
        uint32_t held = i < shards - x->count ? 2 : 1;
        x->parts[i] = (lf_tree_part){ first, held, x->members[i].values };
        first += held;
    }
}

static bool run_members(exchange *x, lf_error *err)
{
    size_t started = 0;
    if (pthread_barrier_init(&x->barrier, NULL, (unsigned)x->count) != 0) {
        lf_error_set(err, LF_ENOMEM, "bandwidth: cannot make a barrier for %zu threads", x->count);
        return false;
    }
    pthread_mutex_init(&x->gate, NULL);
    pthread_mutex_lock(&x->gate);
    while (started < x->count &&
           pthread_create(&x->members[started].thread, NULL, member_main, &x->members[started]) == 0)
        started++;
    x->all_there = started == x->count;
    pthread_mutex_unlock(&x->gate);
    for (size_t i = 0; i < started; i++)
        pthread_join(x->members[i].thread, NULL);
    pthread_mutex_destroy(&x->gate);
    pthread_barrier_destroy(&x->barrier);
    if (!x->all_there)
        lf_error_set(err, LF_ENOMEM, "bandwidth: cannot start %zu threads", x->count);
    for (size_t i = 0; i < x->count && x->all_there; i++)
        if (x->members[i].error.code) {
            *err = x->members[i].error;
            return false;
        }
    return x->all_there;
}

// A first sum finds out how the devices reach each other.
static bool measure_link(const exchange *x, lf_link *link, double *seconds, lf_error *err)
{
    lf_link_part parts[DEVICE_MAX];
    double taken[REPEATS];
    bool ok = true;
    for (unsigned i = 0; i < x->count; i++)
        parts[i] = (lf_link_part){
            .device = i, .first = x->parts[i].first, .count = x->parts[i].count, .buffer = x->members[i].buffer
        };
    for (int i = -1; ok && i < REPEATS; i++) {
        double start = lf_clock();
        ok = lf_link_sum(link, parts, x->count, x->bytes / sizeof(float), false, err);
        if (i >= 0)
            taken[i] = lf_clock() - start;
    }
    if (ok)
        *seconds = median(taken);
    return ok;
}

static bool measure(exchange *x, size_t bytes, lf_link *link, lf_bandwidth *seconds, lf_error *err)
{
    bool ok = true;
    x->bytes = bytes;
    for (size_t i = 0; i < x->count && ok; i++) {
        member *m = &x->members[i];
        m->exchange = x;
        m->error.code = LF_OK;
        m->values = calloc(bytes, 1);
        m->buffer = lf_device_buffer_create(m->device, bytes, err);
        ok = m->buffer && m->values;
        if (m->buffer && !m->values)
            lf_error_set(err, LF_ENOMEM, "bandwidth: out of memory for %zu bytes", bytes);
    }
    if (ok) {
        divide(x);
        ok = run_members(x, err);
    }
    if (ok)
        *seconds = medians(x);
    ok = ok && (!link || measure_link(x, link, &seconds->linked, err));
    for (size_t i = 0; i < x->count; i++) {
        lf_device_buffer_destroy(x->members[i].device, x->members[i].buffer);
        free(x->members[i].values);
        x->members[i].buffer = NULL;
        x->members[i].values = NULL;
    }
    return ok;
}

bool lf_bandwidth_measure(const char *const *specs, size_t spec_count, const size_t *bytes, size_t count,
                          lf_bandwidth *seconds, lf_error *err)
{
    lf_device *devices[DEVICE_MAX];
    exchange *x = calloc(1, sizeof *x);
    if (!x) {
        lf_error_set(err, LF_ENOMEM, "bandwidth: out of memory");
        return false;
    }
    x->count = lf_device_open_list(specs, spec_count, devices, DEVICE_MAX, err);
    for (size_t i = 0; i < x->count; i++)
        x->members[i].device = devices[i];
    bool ok = x->count > 0;
    lf_link *link = x->count > 1 ? lf_link_create(devices, (unsigned)x->count, NULL, NULL) : NULL;
    for (size_t i = 0; ok && i < count; i++)
        ok = measure(x, bytes[i], link, &seconds[i], err);
    lf_link_destroy(link);
    for (size_t i = 0; i < x->count; i++)
        lf_device_close(x->members[i].device);
    free(x);
    return ok;
}
