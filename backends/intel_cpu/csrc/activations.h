// Activations as 8-bit numbers with a scale for each group of inputs.
#pragma once
#include <algorithm>
#include <cmath>

#include "scratch.h"
#include "threads.h"
#include "vector.h"

namespace inarch {

struct Activations {
    const int8_t* values;  // -127..127, rows `stride` apart
    const float* scales;   // [rows, groups]
    const int32_t* sums;   // [rows, groups]: of the values of a group
    int64_t stride, groups;
};

inline void quantize_group(const float* x, int64_t count, int8_t* values, float* scale, int32_t* sum) {
    Vector most = zero();
    for (int64_t k = 0; k < count; k += WIDTH) most = max(most, absolute(load(x + k)));
    const float highest = largest(most);
    const float inverse = highest > 0 ? 127.0f / highest : 0;
    *scale = highest / 127.0f;
    int32_t total = 0;
    for (int64_t k = 0; k < count; k++) {  // the compiler makes vectors of it
        const int32_t v = static_cast<int32_t>(__builtin_nearbyintf(x[k] * inverse));
        values[k] = static_cast<int8_t>(v);
        total += v;
    }
    *sum = total;
}

inline void widen_any(const void* x, Format type, int64_t at, float* to, int64_t count) {
    if (type == FLOAT32) std::copy_n(static_cast<const float*>(x) + at, count, to);
    else if (type == BFLOAT16) widen(static_cast<const bf16*>(x) + at, to, count);
    else widen(static_cast<const f16*>(x) + at, to, count);
}

constexpr int64_t LARGEST_GROUP = 512;

inline void quantize_row(const void* x, Format type, int64_t row, int64_t inputs, int64_t group,
                         const Activations& to) {
    alignas(64) float whole[LARGEST_GROUP];
    for (int64_t g = 0; g < to.groups; g++) {
        const int64_t first = g * group, count = std::min(group, inputs - first);
        const float* from = static_cast<const float*>(x) + row * inputs + first;
        if (type != FLOAT32 || count < group) {
            widen_any(x, type, row * inputs + first, whole, count);
            std::fill(whole + count, whole + group, 0.0f);
            from = whole;
        }
        const int64_t at = row * to.groups + g;
        quantize_group(from, group, const_cast<int8_t*>(to.values) + row * to.stride + first,
                       const_cast<float*>(to.scales) + at, const_cast<int32_t*>(to.sums) + at);
    }
}

// x [rows, inputs] in groups of `group` inputs (a multiple of 32, at most LARGEST_GROUP)
inline Activations quantized(const void* x, Format type, int64_t rows, int64_t inputs, int64_t group) {
    static thread_local Scratch values, scales, sums;
    const int64_t groups = (inputs + group - 1) / group, stride = groups * group;
    const Activations to{values.get<int8_t>(rows * stride), scales.get<float>(rows * groups),
                         sums.get<int32_t>(rows * groups), stride, groups};
    // So little work is done before another thread has heard of it.
    const int64_t grain = std::max<int64_t>(1, 16384 / stride);
    parallel(rows, grain, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; row++) quantize_row(x, type, row, inputs, group, to);
    });
    return to;
}

}  // namespace inarch
