// Sums of products of 8-bit activations and 8- or 4-bit weights by VNNI: four inputs of each output at
// a time, the weights unsigned.
#pragma once
#include "tile.h"

namespace inarch {

constexpr int STORED_ZERO8 = 128;  // what is stored for 128 of 0..255

inline Ints four_of(const void* x) {  // the same four activations for every output
    int32_t both;
    std::memcpy(&both, x, 4);
    return splat_ints(both);
}

// totals [R][WIDE] += x [R rows, `stride` apart] times a group of a panel
template <int BITS, int R>
inline void add_group(Ints (&totals)[R][WIDE], const int8_t* x, int64_t stride, const uint8_t* w,
                      int64_t group) {
    for (int64_t k = 0; k < group; k += BITS == 8 ? 4 : 8, w += 4 * PANEL) {
        Ints low[WIDE], high[WIDE];
        for (int v = 0; v < WIDE; v++) {
            fetch_ahead(w + v * 4 * WIDTH);
            const Ints stored = load_ints(w + v * 4 * WIDTH), fours = _mm512_set1_epi8(15);
            low[v] = BITS == 8 ? stored : _mm512_and_si512(stored, fours);
            high[v] = _mm512_and_si512(_mm512_srli_epi16(stored, 4), fours);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const Ints first = four_of(x + r * stride + k);
            for (int v = 0; v < WIDE; v++)
                totals[r][v] = _mm512_dpbusd_epi32(totals[r][v], low[v], first);
            if (BITS == 8) continue;
            const Ints second = four_of(x + r * stride + k + 4);
            for (int v = 0; v < WIDE; v++)
                totals[r][v] = _mm512_dpbusd_epi32(totals[r][v], high[v], second);
        }
    }
}

}  // namespace inarch
