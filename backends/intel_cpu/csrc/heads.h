// A norm of each head, and rotary positions, in float32.
#pragma once
#include "vector.h"

namespace inarch {

constexpr int64_t MOST_HEAD_DIM = 1024;

template <class T> void multiply(float* row, const T* by, int64_t count) {
    int64_t n = 0;
    for (; n + WIDTH <= count; n += WIDTH) store(row + n, load(row + n) * load(by + n));
    for (; n < count; n++) row[n] *= number(by[n]);
}

inline float squares(const float* row, int64_t count) {
    Vector total = zero();
    int64_t n = 0;
    for (; n + WIDTH <= count; n += WIDTH) total = fma(load(row + n), load(row + n), total);
    float found = sum(total);
    for (; n < count; n++) found += row[n] * row[n];
    return found;
}

// What is due to each head of q and of k: see the ops `rope` and `qk_norm_rope`.
struct Heads {
    int64_t dim;
    const int64_t* positions;  // null: no rotation
    const float* cos_sin;      // [positions, rotary]: cosines, then sines
    int64_t rotary;
    bool interleaved;
    const void *q_weight, *k_weight;  // null: no norm
    bool wide_weight;                 // they are float32, else as what is normed
    float eps;

    // from [dim] -> row [dim], for the token t
    template <class T> void turn(const T* from, const void* weight, int64_t t, float* row) const {
        widen(from, row, dim);
        if (weight) norm<T>(row, weight);
        if (positions) rotate(row, cos_sin + positions[t] * rotary);
    }

    template <class T> void norm(float* row, const void* weight) const {
        const float factor = 1 / std::sqrt(squares(row, dim) / static_cast<float>(dim) + eps);
        for (int64_t n = 0; n < dim; n++) row[n] *= factor;
        if (wide_weight) multiply(row, static_cast<const float*>(weight), dim);
        else multiply(row, static_cast<const T*>(weight), dim);
    }

    void rotate(float* row, const float* cos) const {
        const int64_t half = rotary / 2;
        const float* sin = cos + half;
        if (interleaved) {
            for (int64_t n = 0; n < half; n++) {
                const float a = row[2 * n], b = row[2 * n + 1];
                row[2 * n] = a * cos[n] - b * sin[n];
                row[2 * n + 1] = b * cos[n] + a * sin[n];
            }
            return;
        }
        int64_t n = 0;
        for (; n + WIDTH <= half; n += WIDTH) {
            const Vector a = load(row + n), b = load(row + half + n), c = load(cos + n), s = load(sin + n);
            store(row + n, a * c - b * s);
            store(row + half + n, b * c + a * s);
        }
        for (; n < half; n++) {
            const float a = row[n], b = row[half + n];
            row[n] = a * cos[n] - b * sin[n];
            row[half + n] = b * cos[n] + a * sin[n];
        }
    }
};

}  // namespace inarch
