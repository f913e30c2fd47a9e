// Norms over rows: with or without the sum of the residual stream before, by root mean square or by mean
// and variance. A row stays in the nearest cache between what is summed up and what is written.
#include "abi.h"
#include "functions.h"
#include "heads.h"
#include "scratch.h"
#include "threads.h"

namespace inarch {
namespace {

constexpr int64_t GRAIN = 8192;  // numbers that are worth another thread

struct Norm {
    const void *weight, *bias;  // bias null: none
    bool wide_weight, wide_bias;  // float32, else as x
    float eps;
    bool centred;  // layer norm
};

template <class T> void by_weight(float* row, const Norm& norm, int64_t size) {
    if (norm.wide_weight) multiply(row, static_cast<const float*>(norm.weight), size);
    else multiply(row, static_cast<const T*>(norm.weight), size);
}

template <class T> void shift(float* row, const T* by, int64_t size) {
    int64_t n = 0;
    for (; n + WIDTH <= size; n += WIDTH) store(row + n, load(row + n) + load(by + n));
    for (; n < size; n++) row[n] += number(by[n]);
}

template <class T> void add_row(float* row, const T* other, T* sum, int64_t size) {
    shift(row, other, size);
    narrow(row, sum, size);
    widen(sum, row, size);  // what is normed is what the next layer will add to
}

inline void affine(float* row, float factor, float offset, int64_t size) {
    int64_t n = 0;
    for (; n + WIDTH <= size; n += WIDTH) store(row + n, (load(row + n) - splat(offset)) * splat(factor));
    for (; n < size; n++) row[n] = (row[n] - offset) * factor;
}

inline float mean_of(const float* row, int64_t size) {
    Vector total = zero();
    int64_t n = 0;
    for (; n + WIDTH <= size; n += WIDTH) total = total + load(row + n);
    float found = sum(total);
    for (; n < size; n++) found += row[n];
    return found / static_cast<float>(size);
}

template <class T>
void norm_rows(const T* x, T* residual, T* out, int64_t rows, int64_t size, const Norm& norm) {
    parallel(rows, std::max<int64_t>(1, GRAIN / size), [&](int64_t begin, int64_t end, int) {
        thread_local Scratch memory;
        auto* row = memory.get<float>(size);
        for (int64_t r = begin; r < end; r++) {
            widen(x + r * size, row, size);
            if (residual) add_row(row, residual + r * size, residual + r * size, size);
            if (norm.centred) affine(row, 1, mean_of(row, size), size);
            const float mean = squares(row, size) / static_cast<float>(size);
            affine(row, 1 / std::sqrt(mean + norm.eps), 0, size);
            by_weight<T>(row, norm, size);
            if (norm.bias && norm.wide_bias) shift(row, static_cast<const float*>(norm.bias), size);
            else if (norm.bias) shift(row, static_cast<const T*>(norm.bias), size);
            narrow(row, out + r * size, size);
        }
    });
}

// residual null: x alone is normed; else it becomes the sum. out may be x.
void norm(const void* x, void* residual, const void* weight, const void* bias, void* out, int64_t rows,
          int64_t size, int64_t format, int64_t wide_weight, int64_t wide_bias, double eps,
          int64_t centred) {
    const Norm norm{weight, bias, wide_weight != 0, wide_bias != 0, static_cast<float>(eps), centred != 0};
    const auto run = [&]<class T>(T) {
        norm_rows(static_cast<const T*>(x), static_cast<T*>(residual), static_cast<T*>(out), rows, size, norm);
    };
    if (format == FLOAT32) run(float{});
    else if (format == BFLOAT16) run(bf16{});
    else run(f16{});
}

// ---- beside a gate: see the op `gated_rms_norm` ----

struct Gated {
    const float* weight;  // [size]
    int64_t size, group;
    float eps;
    bool gate_first, sigmoid;

    void open(float* row, const float* gate) const {
        int64_t n = 0;
        for (; n < size; n += WIDTH) {  // rows are as long as whole vectors
            const Vector x = load(gate + n), opened = inarch::sigmoid(x);
            store(row + n, load(row + n) * (sigmoid ? opened : x * opened));
        }
    }

    void run(float* row, const float* gate) const {
        if (gate_first) open(row, gate);
        for (float* part = row; part < row + size; part += group) {
            scale(part, 1 / std::sqrt(squares(part, group) / static_cast<float>(group) + eps), group);
        }
        multiply(row, weight, size);
        if (!gate_first) open(row, gate);
    }
};

void gated_rms_norm(const void* x, const void* gate, const float* weight, void* out, int64_t rows,
                    int64_t size, int64_t group, int64_t format, double eps, int64_t gate_first,
                    int64_t sigmoid) {
    const Gated norm{weight, size, group, static_cast<float>(eps), gate_first != 0, sigmoid != 0};
    const auto all = [&]<class T>(T) {
        parallel(rows, std::max<int64_t>(1, GRAIN / size), [&](int64_t begin, int64_t end, int) {
            thread_local Scratch memory;
            const int64_t stride = (size + WIDTH - 1) / WIDTH * WIDTH;
            auto* row = memory.get<float>(2 * stride);
            std::fill(row, row + 2 * stride, 0.0f);
            for (int64_t r = begin; r < end; r++) {
                widen(static_cast<const T*>(x) + r * size, row, size);
                widen(static_cast<const T*>(gate) + r * size, row + stride, size);
                norm.run(row, row + stride);
                narrow(row, static_cast<T*>(out) + r * size, size);
            }
        });
    };
    if (format == FLOAT32) all(float{});
    else if (format == BFLOAT16) all(bf16{});
    else all(f16{});
}

}  // namespace
}  // namespace inarch

INARCH_EXPORT(gated_rms_norm, inarch::gated_rms_norm)
INARCH_EXPORT(norm, inarch::norm)
