// Linear layers whose weights are 8 or 4 bits with a scale (and a zero point) for each group of inputs.
//
// Packed values: [panels][inputs / 4][PANEL][4] bytes, so that a 32-bit lane holds four inputs of one
// output; with 4 bits [panels][inputs / 8][PANEL][4], where low halves are four inputs and high halves
// the next four. Scales and zero points: [panels][groups][PANEL].
#ifdef INARCH_VNNI
#include "quantized_vnni.h"
#else
#include "quantized_avx2.h"
#endif

#include "abi.h"
#include "activations.h"

#ifdef INARCH_AMX
#include "amx.h"
#endif

namespace inarch {
namespace {

#if defined INARCH_AMX
constexpr int ROWS = 2 * amx::ROWS;
constexpr int MANY_ROWS = 12, LARGE_GROUP = 128;  // measured: see README.md
#elif defined INARCH_AVX512
constexpr int ROWS = 6;  // 12 accumulators of integers and 12 of floats
#else
constexpr int ROWS = 4;  // 8 of integers; the floats wait in memory
#endif

// GROUP: the group where the compiler is to know it, else 0
template <int BITS, bool ZEROS, int GROUP> struct QuantizedProduct {
    Activations x;
    int64_t group, scale_groups;  // scale_groups 1: one scale for all groups of an output
    const uint8_t* values;
    const void* scales;
    Format scale_type;
    const uint8_t* zero_points;  // with ZEROS; else all are half of the range
    Output out;

    static constexpr int ZERO = BITS == 8 ? STORED_ZERO8 : 8;  // how half of the range is stored

    template <int R> void tile(int64_t row, int64_t panel) const {
#ifdef INARCH_AMX
        // With small groups what follows each product takes longer than it: tiles pay if rows are many.
        if constexpr (R >= MANY_ROWS) by_tiles(R, row, panel);
        else if (R >= amx::FEWEST_ROWS && group >= LARGE_GROUP) by_tiles(R, row, panel);
        else if constexpr (R <= MANY_ROWS / 2) by_vectors<R>(row, panel);
        else by_vectors<R / 2>(row, panel), by_vectors<R - R / 2>(row + R / 2, panel);
#else
        by_vectors<R>(row, panel);
#endif
    }

    int32_t start(int64_t row, int64_t g) const { return ZEROS ? 0 : -ZERO * x.sums[row * x.groups + g]; }

    template <int R> void by_vectors(int64_t row, int64_t panel) const {
        Vector sums[R][WIDE] = {};
        const int64_t length = GROUP ? GROUP : group, group_bytes = length * PANEL * BITS / 8;
        const uint8_t* w = values + panel * x.groups * group_bytes;
        for (int64_t g = 0; g < x.groups; g++, w += group_bytes) {
            Ints totals[R][WIDE];
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                for (int v = 0; v < WIDE; v++) totals[r][v] = splat_ints(start(row + r, g));
            }
            add_group<BITS, R>(totals, x.values + row * x.stride + g * length, x.stride, w, length);
            scale_group<R>(sums, totals, row, panel, g);
        }
        for (int r = 0; r < R; r++) write_row(out, row + r, panel, sums[r]);
    }

#ifdef INARCH_AMX
    // Sums of a group are integers, and exact: what comes out is what vectors find, bit by bit.
    void by_tiles(int rows, int64_t row, int64_t panel) const {
        const int depth = group % amx::BYTES ? amx::BYTES / 2 : amx::BYTES;  // groups are multiples of 32
        const amx::Configured tiles(amx::shapes_of(rows, depth));
        Vector sums[ROWS][WIDE] = {};
        alignas(64) int32_t totals[ROWS][PANEL];
        alignas(64) uint8_t bytes[LARGEST_GROUP * PANEL];
        const int64_t group_bytes = group * PANEL * BITS / 8;
        const uint8_t* w = values + panel * x.groups * group_bytes;
        for (int64_t g = 0; g < x.groups; g++, w += group_bytes) {
            if (BITS == 4) halves_to_bytes(w, group_bytes, bytes);
            multiply_group(rows, x.values + row * x.stride + g * group, BITS == 4 ? bytes : w, depth, totals);
            for (int r = 0; r < rows; r++) {
                Ints own[1][WIDE];
                for (int v = 0; v < WIDE; v++)
                    own[0][v] = add_ints(load_ints(totals[r] + v * WIDTH), splat_ints(start(row + r, g)));
                scale_group<1>(reinterpret_cast<Vector(&)[1][WIDE]>(sums[r]), own, row + r, panel, g);
            }
        }
        for (int r = 0; r < rows; r++) write_row(out, row + r, panel, sums[r]);
    }

    // totals [rows][PANEL] of signed activations and a group of unsigned weights
    void multiply_group(int rows, const int8_t* from, const uint8_t* w, int depth,
                        int32_t (&totals)[ROWS][PANEL]) const {
        const bool two = rows > amx::ROWS;
        amx::zero<0>(), amx::zero<1>();
        if (two) amx::zero<2>(), amx::zero<3>();
        for (int64_t k = 0; k < group; k += depth, w += depth * PANEL, from += depth) {
            amx::load<6>(w, PANEL * 4);
            amx::load<7>(w + amx::BYTES, PANEL * 4);
            amx::load<4>(from, x.stride);
            amx::multiply_bytes<0, 4, 6>();
            amx::multiply_bytes<1, 4, 7>();
            if (!two) continue;
            amx::load<5>(from + amx::ROWS * x.stride, x.stride);
            amx::multiply_bytes<2, 5, 6>();
            amx::multiply_bytes<3, 5, 7>();
        }
        amx::store<0>(totals[0], sizeof *totals);
        amx::store<1>(totals[0] + amx::LANES, sizeof *totals);
        if (two) amx::store<2>(totals[amx::ROWS], sizeof *totals);
        if (two) amx::store<3>(totals[amx::ROWS] + amx::LANES, sizeof *totals);
    }

    static void halves_to_bytes(const uint8_t* w, int64_t count, uint8_t* to) {
        for (int64_t k = 0; k < count; k += 4 * PANEL, to += 8 * PANEL) {
            for (int v = 0; v < WIDE; v++) {
                const Ints stored = load_ints(w + k + v * 4 * WIDTH);
                store_ints(to + v * 4 * WIDTH, low_halves(stored));
                store_ints(to + 4 * PANEL + v * 4 * WIDTH, high_halves(stored));
            }
        }
    }
#endif

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
void run(const Activations& x, const Groups& rows, const Weights& by, const Output& out) {
    const QuantizedProduct<BITS, ZEROS, GROUP> product{
        x, by.group, by.scale_groups, static_cast<const uint8_t*>(by.values), by.scales,
        static_cast<Format>(by.type), static_cast<const uint8_t*>(by.zero_points), out};
    for_tiles<ROWS>(rows, out.panels(), product);
}

template <int BITS> auto chosen(const Weights& by) {
    if (by.zero_points) return run<BITS, true, 0>;
    return by.group == 32 ? run<BITS, false, 32> : run<BITS, false, 0>;
}

// group: inputs of an activation's scale, and of a weight's unless scale_groups is 1
void quantized_linear(const void* x, int64_t x_type, int64_t bits, const void* values, const void* scales,
                      int64_t scale_type, int64_t scale_groups, const void* zero_points,
                      const float* bias, void* out, int64_t rows, int64_t inputs, int64_t outputs,
                      int64_t group) {
    const Weights by{bits, scale_type, inputs, outputs, group, scale_groups, values, scales, zero_points, bias};
    multiply_quantized(x, x_type, {&rows, 1}, by, out, x_type);
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

void multiply_quantized(const void* x, int64_t x_type, const Groups& rows, const Weights& by, void* out,
                        int64_t out_type) {
    const Activations ready = quantized(x, static_cast<Format>(x_type), rows.rows(), by.inputs, by.group);
    const auto run = by.bits == 8 ? chosen<8>(by) : chosen<4>(by);
    run(ready, rows, by, {out, static_cast<Format>(out_type), by.outputs, by.bias});
}

}  // namespace inarch

INARCH_EXPORT(quantized_linear, inarch::quantized_linear)
INARCH_EXPORT(pack_quantized, inarch::pack_quantized)
