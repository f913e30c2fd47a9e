// A register of floats, as wide as the instruction set has it, and how numbers of other formats get in
// and out of one.
#pragma once
#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "numbers.h"

namespace inarch {

#ifdef INARCH_AVX512

constexpr int WIDTH = 16;
using Mask = __mmask16;
using Ints = __m512i;

struct Vector {
    __m512 v;
};

inline Vector zero() { return {_mm512_setzero_ps()}; }
inline Vector splat(float x) { return {_mm512_set1_ps(x)}; }
inline Vector operator+(Vector a, Vector b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vector operator-(Vector a, Vector b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vector operator*(Vector a, Vector b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vector operator/(Vector a, Vector b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vector fma(Vector a, Vector b, Vector c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vector fnma(Vector a, Vector b, Vector c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
inline Vector max(Vector a, Vector b) { return {_mm512_max_ps(a.v, b.v)}; }  // b where a is NaN
inline Vector min(Vector a, Vector b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vector absolute(Vector a) { return {_mm512_abs_ps(a.v)}; }
inline Vector nearest(Vector a) { return {_mm512_roundscale_ps(a.v, 8)}; }
inline float sum(Vector a) { return _mm512_reduce_add_ps(a.v); }
inline float largest(Vector a) { return _mm512_reduce_max_ps(a.v); }

// Of the first `count` lanes, 0 to WIDTH.
inline Mask first(int64_t count) { return static_cast<Mask>((1u << count) - 1); }
inline Mask less(Vector a, Vector b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ); }
inline uint32_t lanes(Mask mask) { return mask; }
inline Vector where(Mask mask, Vector a, Vector b) { return {_mm512_mask_blend_ps(mask, b.v, a.v)}; }

// a * 2^n for whole n, within the range of normal numbers
inline Vector scaled(Vector a, Vector n) { return {_mm512_scalef_ps(a.v, n.v)}; }

inline Vector load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Vector load(const float* p, Mask mask) { return {_mm512_maskz_loadu_ps(mask, p)}; }
inline void store(float* p, Vector a) { _mm512_storeu_ps(p, a.v); }
inline void store(float* p, Vector a, Mask mask) { _mm512_mask_storeu_ps(p, mask, a.v); }

inline Ints load_ints(const void* p) { return _mm512_loadu_si512(p); }
inline void store_ints(void* p, Ints x) { _mm512_storeu_si512(p, x); }
inline Ints splat_ints(int32_t x) { return _mm512_set1_epi32(x); }
inline Ints add_ints(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Vector to_floats(Ints x) { return {_mm512_cvtepi32_ps(x)}; }
inline Vector bytes_to_floats(const uint8_t* p) {  // WIDTH unsigned bytes
    return to_floats(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

inline Vector from_bits(__m512i bits) { return {_mm512_castsi512_ps(bits)}; }
inline Vector widened(__m256i bits, bf16) {
    return from_bits(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline Vector widened(__m256i bits, f16) { return {_mm512_cvtph_ps(bits)}; }

#ifdef __AVX512BF16__
inline __m256i narrowed(Vector a, bf16) {
    return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a.v));
}
#else
inline __m256i narrowed(Vector a, bf16) {
    const __m512i bits = _mm512_castps_si512(a.v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i even = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
    const __m512i kept = _mm512_mask_blend_epi32(nan, even, _mm512_set1_epi32(0x7fc00000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
}
#endif
inline __m256i narrowed(Vector a, f16) { return _mm512_cvtps_ph(a.v, 0); }

template <class Half> Vector load(const Half* p) {
    return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), Half{});
}
template <class Half> Vector load(const Half* p, Mask mask) {
    return widened(_mm256_maskz_loadu_epi16(mask, p), Half{});
}
template <class Half> void store(Half* p, Vector a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrowed(a, Half{}));
}
template <class Half> void store(Half* p, Vector a, Mask mask) {
    _mm256_mask_storeu_epi16(p, mask, narrowed(a, Half{}));
}

// Of bfloat16 in pairs, a pair to a 32-bit lane.
inline Vector first_of_pair(Ints pairs) { return from_bits(_mm512_slli_epi32(pairs, 16)); }
inline Vector second_of_pair(Ints pairs) {
    return from_bits(_mm512_and_si512(pairs, _mm512_set1_epi32(0xffff0000)));
}

inline Vector load(const e4m3* p) {
    const __m256i bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m256i size = _mm256_and_si256(bytes, _mm256_set1_epi16(0x7f));
    const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(bytes, _mm256_set1_epi16(0x80)), 8);
    const __m512 value = _mm512_cvtph_ps(_mm256_or_si256(_mm256_slli_epi16(size, 7), sign));
    const Mask nan = _mm256_cmpeq_epi16_mask(size, _mm256_set1_epi16(0x7f));
    const __m512 right = _mm512_mul_ps(value, _mm512_set1_ps(256.0f));  // its bias is 7, not 15
    return {_mm512_mask_blend_ps(nan, right, _mm512_set1_ps(NAN))};
}

#else

constexpr int WIDTH = 8;
using Mask = __m256i;
using Ints = __m256i;

struct Vector {
    __m256 v;
};

inline Vector zero() { return {_mm256_setzero_ps()}; }
inline Vector splat(float x) { return {_mm256_set1_ps(x)}; }
inline Vector operator+(Vector a, Vector b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vector operator-(Vector a, Vector b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vector operator*(Vector a, Vector b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vector operator/(Vector a, Vector b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vector fma(Vector a, Vector b, Vector c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vector fnma(Vector a, Vector b, Vector c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
inline Vector max(Vector a, Vector b) { return {_mm256_max_ps(a.v, b.v)}; }  // b where a is NaN
inline Vector min(Vector a, Vector b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Vector absolute(Vector a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline Vector nearest(Vector a) { return {_mm256_round_ps(a.v, 8)}; }

inline float sum(Vector a) {
    const __m128 half = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
}
inline float largest(Vector a) {
    const __m128 half = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    const __m128 pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)));
}

// Of the first `count` lanes, 0 to WIDTH.
inline Mask first(int64_t count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
}
inline Mask less(Vector a, Vector b) {
    return _mm256_castps_si256(_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ));
}
inline uint32_t lanes(Mask mask) { return _mm256_movemask_ps(_mm256_castsi256_ps(mask)); }
inline Vector where(Mask mask, Vector a, Vector b) {
    return {_mm256_blendv_ps(b.v, a.v, _mm256_castsi256_ps(mask))};
}

// a * 2^n for whole n; to 2^-126 at least, and in two steps, for the exponents at the ends
inline Vector scaled(Vector a, Vector n) {
    const __m256i whole = _mm256_cvtps_epi32(_mm256_max_ps(n.v, _mm256_set1_ps(-252.0f)));
    const __m256i half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
    const auto power = [&](__m256i exponent) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(exponent, bias), 23));
    };
    return {_mm256_mul_ps(_mm256_mul_ps(a.v, power(half)), power(_mm256_sub_epi32(whole, half)))};
}

inline Vector load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline Vector load(const float* p, Mask mask) { return {_mm256_maskload_ps(p, mask)}; }
inline void store(float* p, Vector a) { _mm256_storeu_ps(p, a.v); }
inline void store(float* p, Vector a, Mask mask) { _mm256_maskstore_ps(p, mask, a.v); }

inline Ints load_ints(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void store_ints(void* p, Ints x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
inline Ints splat_ints(int32_t x) { return _mm256_set1_epi32(x); }
inline Ints add_ints(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
inline Vector to_floats(Ints x) { return {_mm256_cvtepi32_ps(x)}; }
inline Vector bytes_to_floats(const uint8_t* p) {  // WIDTH unsigned bytes
    return to_floats(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

inline Vector from_bits(__m256i bits) { return {_mm256_castsi256_ps(bits)}; }
inline Vector widened(__m128i bits, bf16) {
    return from_bits(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Vector widened(__m128i bits, f16) { return {_mm256_cvtph_ps(bits)}; }

inline __m128i narrowed(Vector a, bf16) {
    const __m256i bits = _mm256_castps_si256(a.v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i even = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
    const __m256i kept = _mm256_blendv_epi8(even, _mm256_set1_epi32(0x7fc00000), nan);
    const __m256i high = _mm256_srli_epi32(kept, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}
inline __m128i narrowed(Vector a, f16) { return _mm256_cvtps_ph(a.v, 0); }

template <class Half> Vector load(const Half* p) {
    return widened(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), Half{});
}
template <class Half> Vector load(const Half* p, Mask mask) {
    Half part[WIDTH] = {};
    std::memcpy(part, p, sizeof(Half) * std::popcount(lanes(mask)));  // masks are of the first lanes
    return load(part);
}
template <class Half> void store(Half* p, Vector a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrowed(a, Half{}));
}
template <class Half> void store(Half* p, Vector a, Mask mask) {
    Half part[WIDTH];
    store(part, a);
    std::memcpy(p, part, sizeof(Half) * std::popcount(lanes(mask)));
}

inline Vector first_of_pair(Ints pairs) { return from_bits(_mm256_slli_epi32(pairs, 16)); }
inline Vector second_of_pair(Ints pairs) {
    return from_bits(_mm256_and_si256(pairs, _mm256_set1_epi32(0xffff0000)));
}

inline Vector load(const e4m3* p) {
    const __m128i bytes = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    const __m128i size = _mm_and_si128(bytes, _mm_set1_epi16(0x7f));
    const __m128i sign = _mm_slli_epi16(_mm_and_si128(bytes, _mm_set1_epi16(0x80)), 8);
    const __m256 value = _mm256_cvtph_ps(_mm_or_si128(_mm_slli_epi16(size, 7), sign));
    const __m256i nan = _mm256_cvtepi16_epi32(_mm_cmpeq_epi16(size, _mm_set1_epi16(0x7f)));
    const __m256 right = _mm256_mul_ps(value, _mm256_set1_ps(256.0f));  // its bias is 7, not 15
    return {_mm256_blendv_ps(right, _mm256_set1_ps(NAN), _mm256_castsi256_ps(nan))};
}

#endif

// ---- rows of any length ----

template <class T> void widen(const T* from, float* to, int64_t count) {
    int64_t n = 0;
    for (; n + WIDTH <= count; n += WIDTH) store(to + n, load(from + n));
    for (; n < count; n++) to[n] = number(from[n]);
}

template <class T> void narrow(const float* from, T* to, int64_t count) {
    int64_t n = 0;
    for (; n + WIDTH <= count; n += WIDTH) store(to + n, load(from + n));
    for (; n < count; n++) to[n] = rounded<T>(from[n]);
}

inline void scale(float* row, float by, int64_t count) {
    int64_t n = 0;
    for (; n + WIDTH <= count; n += WIDTH) store(row + n, load(row + n) * splat(by));
    for (; n < count; n++) row[n] *= by;
}

}  // namespace inarch
