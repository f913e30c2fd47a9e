// Products of bfloat16 by bfloat16, in pairs: a few rows by vectors, more by tiles where there are any.
// Each product is exact, and sums are float32: see pairs.h and amx.h.
#pragma once
#include "pairs.h"
#include "scratch.h"
#include "tile.h"

#ifdef INARCH_AMX
#include "amx.h"
#endif

namespace inarch {
namespace {

#ifdef INARCH_AMX
constexpr int64_t BF16_INPUTS = 32;  // a tile's row
constexpr int MOST_PAIR_ROWS = 2 * amx::ROWS;
#else
constexpr int64_t BF16_INPUTS = 8;
constexpr int MOST_PAIR_ROWS = 12;  // accumulators: 24 of 32 registers
#endif

struct PairProduct {
    const bf16* x;  // [rows, inputs], padded as the weight is
    int64_t inputs;
    const bf16* weight;
    Output out;

    template <int R> void tile(int64_t row, int64_t panel) const {
#ifdef INARCH_AMX
        if constexpr (R >= amx::FEWEST_ROWS) by_tiles(R, row, panel);
        else by_vectors<R>(row, panel);
#else
        by_vectors<R>(row, panel);
#endif
    }

    // Of few rows several sums of each: they would wait for one another.
    template <int R> void by_vectors(int64_t row, int64_t panel) const {
        constexpr int CHAINS = R == 1 ? 4 : R <= 3 ? 2 : 1;
        static_assert(BF16_INPUTS % (2 * CHAINS) == 0);
        Vector sums[CHAINS][R][WIDE] = {};
        const bf16 *w = weight + panel * inputs * PANEL, *from = x + row * inputs;
        for (int64_t k = 0; k < inputs; k += 2 * CHAINS) {
#pragma GCC unroll 4
            for (int c = 0; c < CHAINS; c++, w += 2 * PANEL) {
                Ints pairs[WIDE];
                for (int v = 0; v < WIDE; v++) pairs[v] = load_ints(w + v * 2 * WIDTH);
#pragma GCC unroll 16
                for (int r = 0; r < R; r++) {
                    const Ints one = splat_pair(from + r * inputs + k + 2 * c);
                    for (int v = 0; v < WIDE; v++) sums[c][r][v] = dot_pairs(sums[c][r][v], one, pairs[v]);
                }
            }
        }
        for (int c = 1; c < CHAINS; c++)
            for (int r = 0; r < R; r++)
                for (int v = 0; v < WIDE; v++) sums[0][r][v] = sums[0][r][v] + sums[c][r][v];
        for (int r = 0; r < R; r++) write_row(out, row + r, panel, sums[0][r]);
    }

#ifdef INARCH_AMX
    void by_tiles(int rows, int64_t row, int64_t panel) const {
        const amx::Configured tiles(amx::shapes_of(rows, amx::BYTES));
        const int64_t stride = inputs * 2;
        const bf16 *w = weight + panel * inputs * PANEL, *from = x + row * inputs;
        alignas(64) float sums[2 * amx::ROWS][PANEL];
        const bool two = rows > amx::ROWS;
        amx::zero<0>(), amx::zero<1>();
        if (two) amx::zero<2>(), amx::zero<3>();
        for (int64_t k = 0; k < inputs; k += BF16_INPUTS, w += BF16_INPUTS * PANEL, from += BF16_INPUTS) {
            amx::load<6>(w, PANEL * 4);
            amx::load<7>(w + 2 * amx::LANES, PANEL * 4);
            amx::load<4>(from, stride);
            amx::multiply_bf16<0, 4, 6>();
            amx::multiply_bf16<1, 4, 7>();
            if (!two) continue;
            amx::load<5>(from + amx::ROWS * inputs, stride);
            amx::multiply_bf16<2, 5, 6>();
            amx::multiply_bf16<3, 5, 7>();
        }
        amx::store<0>(sums[0], sizeof *sums);
        amx::store<1>(sums[0] + amx::LANES, sizeof *sums);
        if (two) amx::store<2>(sums[amx::ROWS], sizeof *sums);
        if (two) amx::store<3>(sums[amx::ROWS] + amx::LANES, sizeof *sums);
        for (int r = 0; r < rows; r++) {
            Vector whole[WIDE];
            for (int v = 0; v < WIDE; v++) whole[v] = load(sums[r] + v * WIDTH);
            write_row(out, row + r, panel, whole);
        }
    }
#endif
};

// x [rows, by.inputs] in bfloat16, as the weights are, of which each output has `inputs`
void multiply_pairs(const void* x, const Groups& rows, const Weights& by, int64_t inputs, const Output& out) {
    const auto* from = static_cast<const bf16*>(x);
    if (inputs != by.inputs) {
        static thread_local Scratch scratch;
        auto* padded = scratch.get<bf16>(rows.rows() * inputs);
        for (int64_t r = 0; r < rows.rows(); r++) {
            bf16* to = padded + r * inputs;
            std::copy(from + r * by.inputs, from + (r + 1) * by.inputs, to);
            std::fill(to + by.inputs, to + inputs, bf16{});
        }
        from = padded;
    }
    const PairProduct product{from, inputs, static_cast<const bf16*>(by.values), out};
    for_tiles<MOST_PAIR_ROWS>(rows, out.panels(), product);
}

}  // namespace
}  // namespace inarch
