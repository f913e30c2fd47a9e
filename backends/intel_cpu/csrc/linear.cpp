// Linear layers whose weights are float32, bfloat16 or float16 and whose sums are float32.
//
// A packed weight is [panels][inputs / STEP][PANEL][STEP]: float32 and float16 with STEP 1, bfloat16
// with STEP 2, so that a 32-bit lane holds two inputs of one output, which a shift and a mask widen, or
// which are multiplied as they are: see linear_pairs.h. Inputs of bfloat16 are padded with zeros.
#include "abi.h"
#include "scratch.h"
#include "tile.h"

#ifdef INARCH_BF16
#include "linear_pairs.h"
#endif

namespace inarch {
namespace {

#ifdef INARCH_AVX512
constexpr int ROWS = 12;  // accumulators: 24 of 32 registers
#else
constexpr int ROWS = 6;  // 12 of 16
#endif

#ifndef INARCH_BF16
constexpr int64_t BF16_INPUTS = 2;  // a multiple of which each output has
#endif

int64_t padded(int64_t inputs, int64_t format) {
    return format == BFLOAT16 ? (inputs + BF16_INPUTS - 1) / BF16_INPUTS * BF16_INPUTS : inputs;
}

// sums [R][WIDE] of x [R rows, `stride` apart] with one panel
template <int R> using Sums = Vector[R][WIDE];

template <int R>
inline void add(Sums<R>& sums, const float* x, int64_t stride, const Vector (&w)[WIDE]) {
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
        const Vector one = splat(x[r * stride]);
#pragma GCC unroll 4
        for (int v = 0; v < WIDE; v++) sums[r][v] = fma(one, w[v], sums[r][v]);
    }
}

template <Format T, int R>
inline void multiply(Sums<R>& sums, const float* x, int64_t stride, const void* panel, int64_t inputs) {
    if constexpr (T == BFLOAT16) {
        const auto* from = static_cast<const bf16*>(panel);
        Sums<R> odd = {};  // where there is one row only, its sums would wait for one another
        Sums<R>& second = R <= 2 ? odd : sums;
        for (int64_t k = 0; k < inputs; k += 2, from += 2 * PANEL) {
            Vector low[WIDE], high[WIDE];
            for (int v = 0; v < WIDE; v++) {
                const Ints pairs = load_ints(from + v * 2 * WIDTH);
                low[v] = first_of_pair(pairs), high[v] = second_of_pair(pairs);
            }
            add<R>(sums, x + k, stride, low);
            add<R>(second, x + k + 1, stride, high);
        }
        if (R <= 2)
            for (int r = 0; r < R; r++)
                for (int v = 0; v < WIDE; v++) sums[r][v] = sums[r][v] + odd[r][v];
    } else {
        for (int64_t k = 0; k < inputs; k++) {
            Vector w[WIDE];
            for (int v = 0; v < WIDE; v++) {
                const int64_t at = k * PANEL + v * WIDTH;
                if constexpr (T == FLOAT32) w[v] = load(static_cast<const float*>(panel) + at);
                else w[v] = load(static_cast<const f16*>(panel) + at);
            }
            add<R>(sums, x + k, stride, w);
        }
    }
}

template <Format T> struct Product {
    const float* x;  // [rows, inputs], padded as the weight is
    int64_t inputs;
    const char* weight;
    Output out;

    static constexpr int64_t SIZE = T == FLOAT32 ? 4 : 2;

    template <int R> void tile(int64_t row, int64_t panel) const {
        Sums<R> sums = {};
        multiply<T, R>(sums, x + row * inputs, inputs, weight + panel * inputs * PANEL * SIZE, inputs);
        for (int r = 0; r < R; r++) write_row(out, row + r, panel, sums[r]);
    }
};

// x [rows, inputs] as float32 [rows, size]
const float* widened(const void* x, Format type, int64_t rows, int64_t inputs, int64_t size) {
    if (type == FLOAT32 && size == inputs) return static_cast<const float*>(x);
    static thread_local Scratch scratch;
    float* wide = scratch.get<float>(rows * size);
    parallel(rows, 16, [&](int64_t begin, int64_t end, int) {
        for (int64_t r = begin; r < end; r++) {
            float* to = wide + r * size;
            if (type == FLOAT32) widen(static_cast<const float*>(x) + r * inputs, to, inputs);
            else if (type == BFLOAT16) widen(static_cast<const bf16*>(x) + r * inputs, to, inputs);
            else widen(static_cast<const f16*>(x) + r * inputs, to, inputs);
            std::fill(to + inputs, to + size, 0.0f);
        }
    });
    return wide;
}

void linear(const void* x, int64_t x_type, const void* weight, int64_t weight_type, const float* bias,
            void* out, int64_t rows, int64_t inputs, int64_t outputs) {
    const Weights by{0, weight_type, inputs, outputs, 0, 0, weight, nullptr, nullptr, bias};
    multiply_plain(x, x_type, {&rows, 1}, by, out, x_type);
}

// weight [outputs, inputs] -> the layout above, zeros where there is nothing
void pack_linear(const void* weight, int64_t type, void* packed, int64_t outputs, int64_t inputs) {
    const int64_t panels = (outputs + PANEL - 1) / PANEL, size = padded(inputs, type);
    const int64_t bytes = type == FLOAT32 ? 4 : 2, step = type == BFLOAT16 ? 2 : 1;
    prefer_huge_pages(packed, panels * PANEL * size * bytes);
    parallel(panels, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t panel = begin; panel < end; panel++) {
            char* to = static_cast<char*>(packed) + panel * size * PANEL * bytes;
            std::memset(to, 0, size * PANEL * bytes);
            for (int64_t n = 0; n < std::min<int64_t>(PANEL, outputs - panel * PANEL); n++) {
                const char* row = static_cast<const char*>(weight) + (panel * PANEL + n) * inputs * bytes;
                for (int64_t k = 0; k < inputs; k++) {
                    const int64_t at = (k / step * PANEL + n) * step + k % step;
                    std::memcpy(to + at * bytes, row + k * bytes, bytes);
                }
            }
        }
    });
}

}  // namespace

void multiply_plain(const void* x, int64_t x_type, const Groups& rows, const Weights& by, void* out,
                    int64_t out_type) {
    const int64_t size = padded(by.inputs, by.type);
    const Output to{out, static_cast<Format>(out_type), by.outputs, by.bias};
#ifdef INARCH_BF16
    if (x_type == BFLOAT16 && by.type == BFLOAT16) return multiply_pairs(x, rows, by, size, to);
#endif
    const float* wide = widened(x, static_cast<Format>(x_type), rows.rows(), by.inputs, size);
    const auto* packed = static_cast<const char*>(by.values);
    switch (by.type) {
        case FLOAT32: return for_tiles<ROWS>(rows, to.panels(), Product<FLOAT32>{wide, size, packed, to});
        case BFLOAT16: return for_tiles<ROWS>(rows, to.panels(), Product<BFLOAT16>{wide, size, packed, to});
        default: return for_tiles<ROWS>(rows, to.panels(), Product<FLOAT16>{wide, size, packed, to});
    }
}

}  // namespace inarch

INARCH_EXPORT(linear, inarch::linear)
INARCH_EXPORT(pack_linear, inarch::pack_linear)

INARCH_VISIBLE int inarch_panel_outputs() { return inarch::PANEL; }
INARCH_VISIBLE int inarch_bf16_inputs() { return inarch::BF16_INPUTS; }
