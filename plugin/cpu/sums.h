// Sums in an order that is fixed and still a vector loop, so that every instruction set gives the same bits.
#ifndef LF_CPU_SUMS_H
#define LF_CPU_SUMS_H

#include "cpu/real.h"

enum { CPU_SUM_LANES = 16, CPU_SUM_ROWS = 64, CPU_SUM_COLS = 64 };

static inline real cpu_sum_lanes(real lanes[CPU_SUM_LANES])
{
    for (uint32_t half = CPU_SUM_LANES / 2; half; half /= 2)
        for (uint32_t k = 0; k < half; k++)
            lanes[k] += lanes[k + half];
    return lanes[0];
}

// sum = Σ term(j) over j = 0 … count - 1: sixteen running sums of every sixteenth term, then these pairwise.
#define CPU_SUM_ROW(sum, count, j, term)                                                                               \
    do {                                                                                                               \
        real lanes_[CPU_SUM_LANES] = { 0 };                                                                            \
        uint32_t whole_ = (count) / CPU_SUM_LANES * CPU_SUM_LANES;                                                     \
        for (uint32_t at_ = 0; at_ < whole_; at_ += CPU_SUM_LANES)                                                     \
            for (uint32_t lane_ = 0; lane_ < CPU_SUM_LANES; lane_++) {                                                 \
                size_t j = (size_t)at_ + lane_;                                                                        \
                lanes_[lane_] += (term);                                                                               \
            }                                                                                                          \
        for (size_t j = whole_; j < (count); j++)                                                                      \
            lanes_[j - whole_] += (term);                                                                              \
        (sum) = cpu_sum_lanes(lanes_);                                                                                 \
    } while (0)

// sums[j] = Σ term(i, j) over i = 0 … row_count - 1, for j = 0 … col_count - 1. Partial sums of 64 rows keep the
// rounding error of a long batch small.
#define CPU_SUM_COLUMNS(sums, row_count, col_count, i, j, term)                                                        \
    for (uint32_t col_ = 0; col_ < (col_count); col_ += CPU_SUM_COLS) {                                                \
        uint32_t width_ = (col_count)-col_ < CPU_SUM_COLS ? (col_count)-col_ : CPU_SUM_COLS;                           \
        real total_[CPU_SUM_COLS] = { 0 };                                                                             \
        for (uint32_t row_ = 0; row_ < (row_count); row_ += CPU_SUM_ROWS) {                                            \
            uint32_t end_ = (row_count)-row_ < CPU_SUM_ROWS ? (row_count) : row_ + CPU_SUM_ROWS;                       \
            real part_[CPU_SUM_COLS] = { 0 };                                                                          \
            for (size_t i = row_; i < end_; i++)                                                                       \
                for (uint32_t k_ = 0; k_ < width_; k_++) {                                                             \
                    size_t j = (size_t)col_ + k_;                                                                      \
                    part_[k_] += (term);                                                                               \
                }                                                                                                      \
            for (uint32_t k_ = 0; k_ < width_; k_++)                                                                   \
                total_[k_] += part_[k_];                                                                               \
        }                                                                                                              \
        for (uint32_t k_ = 0; k_ < width_; k_++)                                                                       \
            (sums)[col_ + k_] = total_[k_];                                                                            \
    }

#endif
