#include "core/tree.h"

#include <assert.h>
#include <string.h>

// By the bits, so that no mode of the thread and no option of the compiler has a say in it.
static inline float flushed(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = bits & 0x7f800000u ? bits : 0; // no exponent: zero, of either sign, or below the smallest normal number
    memcpy(&value, &bits, sizeof bits);
    return value;
}

void lf_tree_add(float *restrict y, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = flushed(flushed(y[i]) + flushed(x[i]));
}

// Sums that wait for their neighbours cover fewer shards each than the one before: 32 at most, and the one that comes.
void lf_tree_walk(const lf_tree_part *parts, size_t part_count, void (*add)(void *user, size_t into, size_t from),
                  void *user)
{
    struct {
        uint32_t count;
        size_t part;
    } waiting[33];
    size_t depth = 0;
    for (size_t i = 0; i < part_count; i++) {
        waiting[depth].count = parts[i].count;
        waiting[depth++].part = i;
        while (depth > 1 && waiting[depth - 2].count == waiting[depth - 1].count) {
            add(user, waiting[depth - 2].part, waiting[depth - 1].part);
            waiting[depth - 2].count *= 2;
            depth--;
        }
    }
    assert(depth <= 1); // else the parts do not cover a power of two of shards
}

typedef struct host_sum {
    const lf_tree_part *parts;
    size_t n;
} host_sum;

static void add_on_host(void *user, size_t into, size_t from)
{
    const host_sum *sum = user;
    lf_tree_add(sum->parts[into].values, sum->parts[from].values, sum->n);
}

void lf_tree_sum(const lf_tree_part *parts, size_t part_count, size_t n)
{
    lf_tree_walk(parts, part_count, add_on_host, &(host_sum){ parts, n });
}
