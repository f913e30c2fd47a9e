// Rows times packed weights: of one linear layer, or of as many as there are groups of rows, each of
// which is multiplied by its own. Weights of which no row asks are not read.
#pragma once
#include <cstdint>

namespace inarch {

// Rows that are multiplied by the same weight lie together: group g ends before row ends[g].
struct Groups {
    const int64_t* ends;
    int64_t count;

    int64_t rows() const { return ends[count - 1]; }
};

// Filled by Python (experts.py). The packed panels of all groups lie one after the other; see linear.cpp
// for the layout of plain weights, quantized.cpp for those of few bits.
struct Weights {
    int64_t bits;  // 0: plain
    int64_t type;  // of plain ones, or of scales
    int64_t inputs, outputs;
    int64_t group;         // inputs that share a scale of activations, and of weights unless
    int64_t scale_groups;  // is 1
    const void *values, *scales, *zero_points;  // the last null: all are half of the range
    const float* bias;                          // [groups][panels * PANEL], or null
};

// x [rows, inputs] -> out [rows, outputs], each of its own type.
void multiply_plain(const void* x, int64_t x_type, const Groups& rows, const Weights& by, void* out,
                    int64_t out_type);
void multiply_quantized(const void* x, int64_t x_type, const Groups& rows, const Weights& by, void* out,
                        int64_t out_type);

inline void multiply(const void* x, int64_t x_type, const Groups& rows, const Weights& by, void* out,
                     int64_t out_type) {
    (by.bits ? multiply_quantized : multiply_plain)(x, x_type, rows, by, out, out_type);
}

}  // namespace inarch
