// Sums of products of 8-bit activations and 8- or 4-bit weights by VNNI: four inputs of each output at
// a time, the weights unsigned. Emulated where what is compiled for has no VNNI.
#pragma once
#include "tile.h"

namespace inarch {

constexpr int STORED_ZERO8 = 128;  // what is stored for 128 of 0..255

inline Ints four_of(const void* x) {  // the same four activations for every output
    int32_t both;
    std::memcpy(&both, x, 4);
    return splat_ints(both);
}

inline Ints low_halves(Ints bytes) { return bytes & splat_ints(0x0f0f0f0f); }
inline Ints high_halves(Ints bytes) { return low_halves(bytes >> 4); }

// In each 32-bit lane total + the sum of four products, a of unsigned bytes and b of signed ones.
#ifdef __AVX512VNNI__
inline Ints dot_bytes(Ints total, Ints a, Ints b) { return _mm512_dpbusd_epi32(total, a, b); }
#else
inline Ints dot_bytes(Ints total, Ints a, Ints b) {
    const Ints low = _mm256_set1_epi16(255);
    const Ints even = _mm256_madd_epi16(a & low, _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8));
    const Ints odd = _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(b, 8));
    return _mm256_add_epi32(total, _mm256_add_epi32(even, odd));
}
#endif

// totals [R][WIDE] += x [R rows, `stride` apart] times a group of a panel
template <int BITS, int R>
inline void add_group(Ints (&totals)[R][WIDE], const int8_t* x, int64_t stride, const uint8_t* w,
                      int64_t group) {
    for (int64_t k = 0; k < group; k += BITS == 8 ? 4 : 8, w += 4 * PANEL) {
        Ints low[WIDE], high[WIDE];
        for (int v = 0; v < WIDE; v++) {
            fetch_ahead(w + v * 4 * WIDTH);
            const Ints stored = load_ints(w + v * 4 * WIDTH);
            low[v] = BITS == 8 ? stored : low_halves(stored);
            high[v] = high_halves(stored);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const Ints first = four_of(x + r * stride + k);
            for (int v = 0; v < WIDE; v++)
                totals[r][v] = dot_bytes(totals[r][v], low[v], first);
            if (BITS == 8) continue;
            const Ints second = four_of(x + r * stride + k + 4);
            for (int v = 0; v < WIDE; v++)
                totals[r][v] = dot_bytes(totals[r][v], high[v], second);
        }
    }
}

}  // namespace inarch
