// The vectors of float32 of the instruction set that is compiled for: LANES floats, and conversions.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace inarch {

enum Type : int64_t { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };  // as in native.py

inline float from_bf16(uint16_t x) {
    const uint32_t bits = static_cast<uint32_t>(x) << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}

inline uint16_t to_bf16(float f) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
    return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

#ifdef INARCH_AVX512

constexpr int LANES = 16;
using Floats = __m512;
using Ints = __m512i;

inline Floats zeros() { return _mm512_setzero_ps(); }
inline Floats all(float x) { return _mm512_set1_ps(x); }
inline Floats load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Floats x) { _mm512_storeu_ps(p, x); }
inline Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats load_f16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Floats load_bf16(const uint16_t* p) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
inline void store_f16(uint16_t* p, Floats x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x, 0));
}
inline Ints load_ints(const void* p) { return _mm512_loadu_si512(p); }
inline Ints all_ints(int32_t x) { return _mm512_set1_epi32(x); }
inline Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
inline Floats low_bf16(Ints x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
inline Floats high_bf16(Ints x) {
    return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(0xffff0000)));
}
inline Floats absolute(Floats x) { return _mm512_abs_ps(x); }
inline Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline float largest(Floats x) { return _mm512_reduce_max_ps(x); }

#else

constexpr int LANES = 8;
using Floats = __m256;
using Ints = __m256i;

inline Floats zeros() { return _mm256_setzero_ps(); }
inline Floats all(float x) { return _mm256_set1_ps(x); }
inline Floats load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Floats x) { _mm256_storeu_ps(p, x); }
inline Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats load_f16(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Floats load_bf16(const uint16_t* p) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
inline void store_f16(uint16_t* p, Floats x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, 0));
}
inline Ints load_ints(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline Ints all_ints(int32_t x) { return _mm256_set1_epi32(x); }
inline Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }
inline Floats low_bf16(Ints x) { return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)); }
inline Floats high_bf16(Ints x) {
    return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(0xffff0000)));
}
inline Floats absolute(Floats x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
inline Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }
inline float largest(Floats x) {
    float each[LANES], found = 0;
    store(each, x);
    for (float f : each) found = f > found ? f : found;
    return found;
}

#endif

inline float from_f16(uint16_t x) { return _cvtsh_ss(x); }
inline uint16_t to_f16(float x) { return _cvtss_sh(x, 0); }

// Element `at` of an array of a type, and back.
inline float get(const void* p, int64_t at, Type type) {
    if (type == FLOAT32) return static_cast<const float*>(p)[at];
    const uint16_t bits = static_cast<const uint16_t*>(p)[at];
    return type == BFLOAT16 ? from_bf16(bits) : from_f16(bits);
}

inline void put(void* p, int64_t at, Type type, float x) {
    if (type == FLOAT32) static_cast<float*>(p)[at] = x;
    else static_cast<uint16_t*>(p)[at] = type == BFLOAT16 ? to_bf16(x) : to_f16(x);
}

}  // namespace inarch
