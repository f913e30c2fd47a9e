// Activations of feed-forwards, with and without a gate: every number by itself.
#include <type_traits>

#include "abi.h"
#include "functions.h"
#include "threads.h"

namespace inarch {
namespace {

constexpr int64_t GRAIN = 8192;  // numbers that are worth another thread

Vector silu(Vector x) { return x * sigmoid(x); }

Vector gelu_tanh(Vector x) {
    const Vector inner = splat(0.7978845608f) * fma(splat(0.044715f) * x * x, x, x);
    return splat(0.5f) * x * (splat(1.0f) + tanh(inner));
}

// By a rational approximation of the error function, within 1.5e-7 (Abramowitz and Stegun, 7.1.26).
Vector gelu(Vector x) {
    const Vector z = max(x, zero() - x) * splat(0.7071067812f);
    const Vector t = splat(1.0f) / fma(splat(0.3275911f), z, splat(1.0f));
    Vector p = splat(1.061405429f);
    for (const float c : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) p = fma(p, t, splat(c));
    const Vector beyond = splat(0.5f) * p * t * exp(zero() - z * z);  // of the distribution, above |x|
    return x * where(less(x, zero()), beyond, splat(1.0f) - beyond);
}

Vector relu(Vector x) { return max(zero() - zero(), x); }

Vector relu_squared(Vector x) { return relu(x) * relu(x); }

enum Kind : int64_t { SILU = 0, GELU = 1, GELU_TANH = 2, RELU = 3, RELU_SQUARED = 4, CLAMPED_SWIGLU = 5 };

struct Parameters {
    float alpha, limit;
};

template <Kind kind> Vector apply(Vector x) {
    if constexpr (kind == SILU) return silu(x);
    else if constexpr (kind == GELU) return gelu(x);
    else if constexpr (kind == GELU_TANH) return gelu_tanh(x);
    else if constexpr (kind == RELU) return relu(x);
    else return relu_squared(x);
}

template <Kind kind> Vector gated(Vector gate, Vector up, const Parameters& with) {
    if constexpr (kind != CLAMPED_SWIGLU) return apply<kind>(gate) * up;
    const Vector limit = splat(with.limit);
    gate = min(limit, gate);
    up = max(zero() - limit, min(limit, up));
    return gate * sigmoid(gate * splat(with.alpha)) * (up + splat(1.0f));
}

template <class T, class F> void each(const T* x, const T* up, T* out, int64_t count, const F& f) {
    int64_t n = 0;
    for (; n + WIDTH <= count; n += WIDTH) store(out + n, f(load(x + n), load(up + n)));
    const Mask rest = first(count - n);
    if (n < count) store(out + n, f(load(x + n, rest), load(up + n, rest)), rest);
}

// x [rows, size], or [rows, 2 size] with gates before ups; out [rows, size]
template <Kind kind, class T>
void activate_rows(const T* x, T* out, int64_t rows, int64_t size, bool gate, const Parameters& with) {
    parallel(rows, std::max<int64_t>(1, GRAIN / size), [&](int64_t begin, int64_t end, int) {
        for (int64_t r = begin; r < end; r++) {
            const T* row = x + r * size * (gate ? 2 : 1);
            if (gate) each(row, row + size, out + r * size, size, [&](Vector g, Vector u) { return gated<kind>(g, u, with); });
            else if constexpr (kind != CLAMPED_SWIGLU) each(row, row, out + r * size, size, [](Vector v, Vector) { return apply<kind>(v); });
        }
    });
}

template <class T> void by_kind(int64_t kind, const T* x, T* out, int64_t rows, int64_t size, bool gate, const Parameters& with) {
    switch (kind) {
        case SILU: return activate_rows<SILU>(x, out, rows, size, gate, with);
        case GELU: return activate_rows<GELU>(x, out, rows, size, gate, with);
        case GELU_TANH: return activate_rows<GELU_TANH>(x, out, rows, size, gate, with);
        case RELU: return activate_rows<RELU>(x, out, rows, size, gate, with);
        case RELU_SQUARED: return activate_rows<RELU_SQUARED>(x, out, rows, size, gate, with);
        default: return activate_rows<CLAMPED_SWIGLU>(x, out, rows, size, gate, with);
    }
}

// See the op `xielu`: above and below are its two factors. Of expm1(x) - x only its first term is lost in
// rounding near zero, and that is left out there.
Vector xielu(Vector x, float above, float below, float slope, float eps) {
    const Vector low = min(x, splat(eps)), square = low * low;
    Vector series = splat(1.984126984e-4f);
    for (const float c : {1.388888889e-3f, 8.333333333e-3f, 4.166666667e-2f, 1.666666667e-1f, 0.5f}) series = fma(series, low, splat(c));
    const Vector near = series * square, far = exp(low) - splat(1.0f) - low;
    const Vector curve = where(less(low, splat(-0.35f)), far, near) + (low - x);
    return fma(splat(slope), x, where(less(zero(), x), splat(above) * x * x, splat(below) * curve));
}

void run_xielu(const void* x, void* out, int64_t count, int64_t format, double above, double below,
               double slope, double eps) {
    const auto run = [&]<class T>(T) {
        parallel(count, GRAIN, [&](int64_t begin, int64_t end, int) {
            const T* from = static_cast<const T*>(x) + begin;
            each(from, from, static_cast<T*>(out) + begin, end - begin, [&](Vector v, Vector) {
                return xielu(v, static_cast<float>(above), static_cast<float>(below), static_cast<float>(slope), static_cast<float>(eps));
            });
        });
    };
    if (format == FLOAT32) run(float{});
    else if (format == BFLOAT16) run(bf16{});
    else run(f16{});
}

}  // namespace

void activate(const void* x, void* out, int64_t rows, int64_t size, int64_t format, int64_t kind,
              int64_t gate, double alpha, double limit) {
    const Parameters with{static_cast<float>(alpha), static_cast<float>(limit)};
    const auto run = [&]<class T>(T) {
        by_kind(kind, static_cast<const T*>(x), static_cast<T*>(out), rows, size, gate != 0, with);
    };
    if (format == FLOAT32) run(float{});
    else if (format == BFLOAT16) run(bf16{});
    else run(f16{});
}

}  // namespace inarch

INARCH_EXPORT(activate, inarch::activate)
INARCH_EXPORT(xielu, inarch::run_xielu)
