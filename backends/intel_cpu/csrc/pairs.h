// Products of bfloat16 pairs: c + a[1] * b[1] + a[0] * b[0] in each 32-bit lane, as VDPBF16PS does it and,
// where the processor that is compiled for lacks that, as its manual says (Intel's Software Developer's
// Manual, volume 2): two fused multiplications, each rounded to nearest; denormals count as zero, and
// become it.
#pragma once
#include "vector.h"

namespace inarch {

// The same pair in every lane. p may lie at any even address.
inline Ints splat_pair(const bf16* p) {
    int32_t both;
    std::memcpy(&both, p, sizeof both);
    return splat_ints(both);
}

namespace emulated {

inline Vector without_denormals(Vector x) {
    return where(less(absolute(x), splat(0x1p-126f)), x * zero(), x);  // its sign stays
}

inline Vector dot_pairs(Vector c, Ints a, Ints b) {
    const auto part = [](Vector x) { return without_denormals(x); };
    c = part(fma(part(second_of_pair(a)), part(second_of_pair(b)), part(c)));
    return part(fma(part(first_of_pair(a)), part(first_of_pair(b)), c));
}

}  // namespace emulated

#ifdef __AVX512BF16__
inline Vector dot_pairs(Vector c, Ints a, Ints b) {
    return {_mm512_dpbf16_ps(c.v, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b))};
}
#else
using emulated::dot_pairs;
#endif

}  // namespace inarch
