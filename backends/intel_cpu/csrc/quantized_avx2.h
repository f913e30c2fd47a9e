// Sums of products of 8-bit activations and 8- or 4-bit weights without VNNI, exactly.
//
// AVX2 adds pairs of products of bytes in 16 bits, where 127 * 127 * 2 just fits, which is why it is
// given the sizes of 8-bit weights, and activations with the weights' signs. Products of 4-bit weights
// are small: eight pairs of them are added up in 16 bits before they are widened.
#pragma once
#include "tile.h"

namespace inarch {

constexpr int STORED_ZERO8 = 0;  // what is stored for 128 of 0..255: signed bytes

inline Ints four_of(const void* x) {  // the same four bytes for every output
    int32_t both;
    std::memcpy(&both, x, 4);
    return splat_ints(both);
}

// Holds a sum in its register at this point. g++ would otherwise make all products of a group first, put
// them into memory, and add them up in an order of its own: two thirds of the speed.
inline void in_turn(Ints& sum) { asm("" : "+x"(sum)); }

inline void add_pairs(Ints (&sums)[WIDE], const Ints (&w)[WIDE], Ints four, bool add) {
    for (int v = 0; v < WIDE; v++) {
        const Ints pairs = _mm256_maddubs_epi16(w[v], four);
        sums[v] = add ? _mm256_add_epi16(sums[v], pairs) : pairs;
        in_turn(sums[v]);
    }
}

// totals [R][WIDE] += x [R rows, `stride` apart] times a group of a panel
template <int BITS, int R>
inline void add_group(Ints (&totals)[R][WIDE], const int8_t* x, int64_t stride, const uint8_t* w,
                      int64_t group) {
    const Ints ones = _mm256_set1_epi16(1);
    if constexpr (BITS == 8) {
        for (int64_t k = 0; k < group; k += 4, w += 4 * PANEL) {
            Ints signs[WIDE], sizes[WIDE];
            for (int v = 0; v < WIDE; v++) {
                fetch_ahead(w + v * 4 * WIDTH);
                signs[v] = load_ints(w + v * 4 * WIDTH);
                sizes[v] = _mm256_abs_epi8(signs[v]);
            }
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                const Ints four = four_of(x + r * stride + k);
                for (int v = 0; v < WIDE; v++) {
                    const Ints pairs = _mm256_maddubs_epi16(sizes[v], _mm256_sign_epi8(four, signs[v]));
                    totals[r][v] = _mm256_add_epi32(totals[r][v], _mm256_madd_epi16(pairs, ones));
                    in_turn(totals[r][v]);
                }
            }
        }
    } else {
        const Ints fours = _mm256_set1_epi8(15);
        for (int64_t first = 0; first < group; first += 32) {
            Ints pairs[R][WIDE];  // at most 8 * 2 * 15 * 127, which 16 bits hold
#pragma GCC unroll 4
            for (int k = 0; k < 32; k += 8, w += 4 * PANEL) {
                Ints low[WIDE], high[WIDE];
                for (int v = 0; v < WIDE; v++) {
                    fetch_ahead(w + v * 4 * WIDTH);
                    const Ints stored = load_ints(w + v * 4 * WIDTH);
                    low[v] = _mm256_and_si256(stored, fours);
                    high[v] = _mm256_and_si256(_mm256_srli_epi16(stored, 4), fours);
                }
#pragma GCC unroll 8
                for (int r = 0; r < R; r++) {
                    const int8_t* at = x + r * stride + first + k;
                    add_pairs(pairs[r], low, four_of(at), k > 0);
                    add_pairs(pairs[r], high, four_of(at + 4), true);
                }
            }
            for (int r = 0; r < R; r++)
                for (int v = 0; v < WIDE; v++)
                    totals[r][v] = _mm256_add_epi32(totals[r][v], _mm256_madd_epi16(pairs[r][v], ones));
        }
    }
}

}  // namespace inarch
