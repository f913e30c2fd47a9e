// Linear layers whose weights are 8 or 4 bits with a scale (and a zero point) for each group of inputs.
//
// Packed values: [panels][inputs / 4][PANEL][4] bytes, so that a 32-bit lane holds four inputs of one
// output; with 4 bits [panels][inputs / 8][PANEL][4], where low halves are four inputs and high halves
// the next four. Scales and zero points: [panels][groups][PANEL].
#ifdef INARCH_AVX512
#include "quantized_avx512.h"
#else
#include "quantized_avx2.h"
#endif

#include "abi.h"
#include "activations.h"

namespace inarch {
namespace {

#ifdef INARCH_AVX512
constexpr int ROWS = 6;  // 12 accumulators of integers and 12 of floats
#else
constexpr int ROWS = 4;  // 8 of integers; the floats wait in memory
#endif

// GROUP: the group where the compiler is to know it, else 0
template <int BITS, bool ZEROS, int GROUP> struct QuantizedProduct {
    Activations x;
    int64_t any_group, scale_groups;  // scale_groups 1: one scale for all groups of an output
    const uint8_t* values;
    const void* scales;
    Format scale_type;
    const uint8_t* zero_points;  // with ZEROS; else all are half of the range
    Output out;

    static constexpr int ZERO = BITS == 8 ? STORED_ZERO8 : 8;  // how half of the range is stored

    template <int R> void tile(int64_t row, int64_t panel) const {
        Vector sums[R][WIDE] = {};
        const int64_t group = GROUP ? GROUP : any_group;
        const int64_t group_bytes = group * PANEL * BITS / 8, panel_bytes = x.groups * group_bytes;
        const uint8_t* w = values + panel * panel_bytes;
        for (int64_t g = 0; g < x.groups; g++, w += group_bytes) {
            Ints totals[R][WIDE];
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                const int32_t start = ZEROS ? 0 : -ZERO * x.sums[(row + r) * x.groups + g];
                for (int v = 0; v < WIDE; v++) totals[r][v] = splat_ints(start);
            }
            add_group<BITS, R>(totals, x.values + row * x.stride + g * group, x.stride, w, group);
            scale_group<R>(sums, totals, row, panel, g);
        }
        for (int r = 0; r < R; r++) write_row(out, row + r, panel * PANEL, sums[r]);
    }

    template <int R>
    void scale_group(Vector (&sums)[R][WIDE], const Ints (&totals)[R][WIDE], int64_t row, int64_t panel,
                     int64_t g) const {
        const int64_t at = (panel * scale_groups + (scale_groups == 1 ? 0 : g)) * PANEL;
        for (int v = 0; v < WIDE; v++) {
            const Vector scale = scale_type == FLOAT16
                                     ? load(static_cast<const f16*>(scales) + at + v * WIDTH)
                                     : load(static_cast<const float*>(scales) + at + v * WIDTH);
            Vector offset = zero();
            if constexpr (ZEROS) offset = bytes_to_floats(zero_points + at + v * WIDTH) + splat(ZERO - (1 << (BITS - 1)));
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                const int64_t own = (row + r) * x.groups + g;
                Vector total = to_floats(totals[r][v]);
                if constexpr (ZEROS) total = total - offset * splat(static_cast<float>(x.sums[own]));
                sums[r][v] = fma(total, scale * splat(x.scales[own]), sums[r][v]);
            }
        }
    }
};

template <int BITS, bool ZEROS, int GROUP>
void run(const Activations& x, int64_t rows, int64_t group, int64_t scale_groups, const void* values,
         const void* scales, int64_t scale_type, const void* zero_points, const Output& out) {
    const QuantizedProduct<BITS, ZEROS, GROUP> product{
        x, group, scale_groups, static_cast<const uint8_t*>(values), scales,
        static_cast<Format>(scale_type), static_cast<const uint8_t*>(zero_points), out};
    for_tiles<ROWS>(rows, (out.outputs + PANEL - 1) / PANEL, product);
}

template <int BITS> auto choose(int64_t group, const void* zero_points) {
    if (zero_points) return run<BITS, true, 0>;
    return group == 32 ? run<BITS, false, 32> : run<BITS, false, 0>;
}

// group: inputs of an activation's scale, and of a weight's unless scale_groups is 1
void quantized_linear(const void* x, int64_t x_type, int64_t bits, const void* values, const void* scales,
                      int64_t scale_type, int64_t scale_groups, const void* zero_points,
                      const float* bias, void* out, int64_t rows, int64_t inputs, int64_t outputs,
                      int64_t group) {
    const Activations ready = quantized(x, static_cast<Format>(x_type), rows, inputs, group);
    const Output to{out, static_cast<Format>(x_type), outputs, bias};
    const auto chosen = bits == 8 ? choose<8>(group, zero_points) : choose<4>(group, zero_points);
    chosen(ready, rows, group, scale_groups, values, scales, scale_type, zero_points, to);
}

// values [outputs, inputs], unsigned bytes of 8 or 4 bits -> the layout above. What lies beyond `inputs`
// meets activations of 0.
void pack_quantized(const uint8_t* values, uint8_t* packed, int64_t bits, int64_t outputs, int64_t inputs,
                    int64_t padded) {
    prefer_huge_pages(packed, (outputs + PANEL - 1) / PANEL * PANEL * padded * bits / 8);
    const int shift = bits == 8 ? STORED_ZERO8 - 128 : 0;
    const int64_t panels = (outputs + PANEL - 1) / PANEL;
    parallel(panels, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t panel = begin; panel < end; panel++) {
            uint8_t* to = packed + panel * padded * PANEL * bits / 8;
            std::memset(to, 0, padded * PANEL * bits / 8);
            for (int64_t n = 0; n < std::min<int64_t>(PANEL, outputs - panel * PANEL); n++) {
                const uint8_t* row = values + (panel * PANEL + n) * inputs;
                for (int64_t k = 0; k < inputs; k++) {
                    const auto value = static_cast<uint8_t>(row[k] + shift);
                    if (bits == 8) to[(k / 4 * PANEL + n) * 4 + k % 4] = value;
                    else to[(k / 8 * PANEL + n) * 4 + k % 4] |= k % 8 < 4 ? value : value << 4;
                }
            }
        }
    });
}

}  // namespace
}  // namespace inarch

INARCH_EXPORT(quantized_linear, inarch::quantized_linear)
INARCH_EXPORT(pack_quantized, inarch::pack_quantized)
