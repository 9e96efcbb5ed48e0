// Sums over shards on the host, along the tree that program.h describes. train/ and ranks/ call this.
#ifndef LF_CORE_TREE_H
#define LF_CORE_TREE_H

#include <stddef.h>
#include <stdint.h>

typedef struct lf_tree_part {
    uint32_t first, count; // shards; count a power of two, first a multiple of it
    float *values;         // [n]
} lf_tree_part;

// Adds up parts [part_count] that together cover shards 0 … shards - 1, ascending by `first`, pair by pair of
// neighbours of equal size, into the first one's values; overwrites the others. Numbers below the smallest normal one
// count as 0, before and after each addition, as in the operation `sum`.
void lf_tree_sum(const lf_tree_part *parts, size_t part_count, size_t n);

// The same order of additions for values that are elsewhere: `add` is called for each, with the places of two parts in
// the list; what they come to is the first one's.
void lf_tree_walk(const lf_tree_part *parts, size_t part_count, void (*add)(void *user, size_t into, size_t from),
                  void *user);

// y += x by the same rule.
void lf_tree_add(float *y, const float *x, size_t n);

#endif
