// Products of 8-bit activations and 8- or 4-bit weights, four inputs of each output at a time.
//
// A weight is stored as an unsigned number, of which the stored zero point is the zero: `start` gives
// the sum from which a group's sum of products begins, so that the usual zero points cost nothing.
#pragma once
#include "vector.h"

namespace inarch {

inline Ints four_of(const int8_t* x) {  // the same four activations for every output
    int32_t both;
    std::memcpy(&both, x, 4);
    return all_ints(both);
}

#ifdef INARCH_AVX512

// Weights as the instruction wants them, made once for all rows.
using Weights = __m512i;
inline Weights prepared8(Ints stored) { return stored; }
inline Ints low_nibbles(Ints x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
inline Ints high_nibbles(Ints x) { return low_nibbles(_mm512_srli_epi16(x, 4)); }
inline Ints add_products8(Ints sum, Weights w, Ints x) { return _mm512_dpbusd_epi32(sum, w, x); }
inline Ints add_products4(Ints sum, Ints w, Ints x) { return _mm512_dpbusd_epi32(sum, w, x); }
constexpr int STORED_ZERO8 = 128;  // what is stored for 128 of 0..255

#else

// Without VNNI pairs of products are summed in 16 bits. 127 * 127 * 2 just fits, which is why the
// instruction is given the weights' sizes, and the activations with the weights' signs.
struct Weights {
    Ints sizes, signs;
};
inline Weights prepared8(Ints stored) { return {_mm256_abs_epi8(stored), stored}; }
inline Ints low_nibbles(Ints x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
inline Ints high_nibbles(Ints x) { return low_nibbles(_mm256_srli_epi16(x, 4)); }
inline Ints add_pairs(Ints sum, Ints pairs) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
inline Ints add_products8(Ints sum, const Weights& w, Ints x) {
    return add_pairs(sum, _mm256_maddubs_epi16(w.sizes, _mm256_sign_epi8(x, w.signs)));
}
inline Ints add_products4(Ints sum, Ints w, Ints x) {
    return add_pairs(sum, _mm256_maddubs_epi16(w, x));  // 15 * 127 * 2 fits by far
}
constexpr int STORED_ZERO8 = 0;

#endif

}  // namespace inarch
