// Single numbers of the formats that tensors are kept in. Everything is computed in float32; what is stored
// may be narrower.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace inarch {

// The numbers of a tensor, as Python names them to the kernels: see dtypes.py, and kv.py for pages.
enum Format : int64_t { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2, FLOAT8 = 3 };

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};
struct e4m3 {  // float8_e4m3fn: no infinity; 0x7f is NaN
    uint8_t bits;
};

constexpr float INFINITE = std::numeric_limits<float>::infinity();

inline float number(float x) { return x; }
inline float number(bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
inline float number(f16 x) { return _cvtsh_ss(x.bits); }
inline float number(e4m3 x) {
    const auto size = static_cast<uint16_t>((x.bits & 0x7f) << 7), sign = static_cast<uint16_t>((x.bits & 0x80) << 8);
    if ((x.bits & 0x7f) == 0x7f) return std::numeric_limits<float>::quiet_NaN();
    return _cvtsh_ss(size | sign) * 256.0f;  // its bias is 7, not 15
}

template <class T> T rounded(float x);
template <> inline float rounded<float>(float x) { return x; }
template <> inline bf16 rounded<bf16>(float x) {
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    if (x != x) return {0x7fc0};
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <> inline f16 rounded<f16>(float x) { return {static_cast<uint16_t>(_cvtss_sh(x, 0))}; }
template <> inline e4m3 rounded<e4m3>(float x) {  // saturates; NaN stays
    const uint32_t bits = std::bit_cast<uint32_t>(x), sign = bits >> 24 & 0x80;
    if (x != x) return {static_cast<uint8_t>(sign | 0x7f)};
    const float size = std::min(std::fabs(x), 448.0f);
    if (size < 0x1p-6f) {  // multiples of 2^-9
        return {static_cast<uint8_t>(sign | static_cast<uint32_t>(std::nearbyint(size * 512.0f)))};
    }
    const uint32_t wide = std::bit_cast<uint32_t>(size);
    const uint32_t kept = (wide + 0x7ffff + (wide >> 20 & 1)) >> 20;  // 8 bits of exponent, 3 more
    return {static_cast<uint8_t>(sign | (kept - ((127 - 7) << 3)))};
}

// The number `at` of an array, but for FLOAT8.
inline float get(const void* p, int64_t at, Format format) {
    if (format == FLOAT32) return static_cast<const float*>(p)[at];
    return format == BFLOAT16 ? number(static_cast<const bf16*>(p)[at]) : number(static_cast<const f16*>(p)[at]);
}

}  // namespace inarch
