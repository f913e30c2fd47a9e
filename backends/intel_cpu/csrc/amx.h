// Operations on AMX tiles: eight registers of up to 16 rows of 64 bytes, whose product is one instruction.
// By the processor; and, where AMX is not compiled for, emulated in plain C++ as Intel's Software
// Developer's Manual describes them (volume 2): slow, for tests. A use that the processor would fault at
// ends the process there.
//
// Rows of B hold groups of inputs of one output: bfloat16 in pairs, bytes in fours, each 32 bits.
#pragma once
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "numbers.h"

namespace inarch::amx {

constexpr int ROWS = 16, BYTES = 64;  // of a tile, at most
constexpr int LANES = BYTES / 4;
constexpr int FEWEST_ROWS = 4;  // that are worth a tile; fewer wait for their weights anyway

struct alignas(64) Shapes {  // what LDTILECFG reads
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};  // of a row
    uint8_t rows[16] = {};

    void set(int tile, int of_rows, int of_bytes) {
        rows[tile] = static_cast<uint8_t>(of_rows);
        bytes[tile] = static_cast<uint16_t>(of_bytes);
    }
};
static_assert(sizeof(Shapes) == 64);

#ifdef __AMX_TILE__
inline namespace by_processor {

// By hand, since GCC's own intrinsics (12) do not say that they read memory: what was just written there
// might come later.
inline void configure(const Shapes& shapes) { asm volatile("ldtilecfg %0" : : "m"(shapes)); }
inline void release() { asm volatile("tilerelease"); }

template <int T> void zero() { asm volatile("tilezero %%tmm%c0" : : "n"(T)); }

// Rows lie `stride` bytes apart.
template <int T> void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "n"(T) : "memory");
}
template <int T> void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "n"(T) : "memory");
}

// C += A B: of bfloat16, in float32
template <int C, int A, int B> void multiply_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "n"(C), "n"(A), "n"(B));
}
// of signed bytes in A and unsigned ones in B, in 32-bit integers
template <int C, int A, int B> void multiply_bytes() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "n"(C), "n"(A), "n"(B));
}

}  // namespace by_processor
#endif

#ifndef __AMX_TILE__
inline  // what kernels use; else only a test, beside the processor's
#endif
namespace emulated {

struct Tile {
    int rows = 0, bytes = 0;  // as configured
    alignas(64) uint8_t data[ROWS][BYTES];

    template <class T> T* row(int r) { return reinterpret_cast<T*>(data[r]); }
};

inline thread_local Tile tiles[8];

inline void must(bool fine, const char* rule) {
    if (fine) return;
    std::fprintf(stderr, "a processor with AMX would fault: %s\n", rule);
    std::abort();
}

inline void configure(const Shapes& shapes) {
    must(shapes.palette == 1 && shapes.start_row == 0, "palette 1, from the first row");
    for (int t = 0; t < 8; t++) {
        must(shapes.rows[t] <= ROWS && shapes.bytes[t] <= BYTES, "tiles have 16 rows of 64 bytes at most");
        must(!shapes.rows[t] == !shapes.bytes[t], "a tile has rows and bytes, or neither");
        tiles[t].rows = shapes.rows[t], tiles[t].bytes = shapes.bytes[t];
        std::memset(tiles[t].data, 0, sizeof tiles[t].data);
    }
}

inline void release() { configure({}); }

inline Tile& configured(int tile) {
    must(tiles[tile].rows > 0, "a tile is configured before it is used");
    return tiles[tile];
}

template <int T> void zero() { std::memset(configured(T).data, 0, sizeof tiles[T].data); }

template <int T> void load(const void* from, int64_t stride) {
    Tile& tile = configured(T);
    zero<T>();  // what lies beyond its shape
    for (int r = 0; r < tile.rows; r++) {
        std::memcpy(tile.data[r], static_cast<const char*>(from) + r * stride, tile.bytes);
    }
}
template <int T> void store(void* to, int64_t stride) {
    Tile& tile = configured(T);
    for (int r = 0; r < tile.rows; r++) {
        std::memcpy(static_cast<char*>(to) + r * stride, tile.data[r], tile.bytes);
    }
}

inline void must_fit(const Tile& c, const Tile& a, const Tile& b) {
    must(&c != &a && &c != &b && &a != &b, "three different tiles");
    must(c.rows == a.rows, "as many rows of C as of A");
    must(c.bytes == b.bytes, "rows of C as long as those of B");
    must(a.bytes == b.rows * 4, "as many groups of inputs in A as rows of B");
}

inline float without_denormal(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

// Inputs with even numbers and those with odd ones are summed up apart, both from zero, by fused
// multiplications; their sum is then added to C. Denormals count as zero, and become it.
template <int C, int A, int B> void multiply_bf16() {
    Tile &c = configured(C), &a = configured(A), &b = configured(B);
    must_fit(c, a, b);
    const auto part = without_denormal;
    for (int m = 0; m < c.rows; m++) {
        float sums[LANES][2] = {};
        for (int k = 0; k < a.bytes / 4; k++) {
            for (int n = 0; n < c.bytes / 4; n++) {
                for (int i = 0; i < 2; i++) {
                    const float x = number(a.row<bf16>(m)[2 * k + i]), y = number(b.row<bf16>(k)[2 * n + i]);
                    sums[n][i] = part(std::fma(part(x), part(y), sums[n][i]));
                }
            }
        }
        for (int n = 0; n < c.bytes / 4; n++) {
            float& to = c.row<float>(m)[n];
            to = part(part(to) + part(sums[n][0] + sums[n][1]));
        }
    }
}

template <int C, int A, int B> void multiply_bytes() {
    Tile &c = configured(C), &a = configured(A), &b = configured(B);
    must_fit(c, a, b);
    for (int m = 0; m < c.rows; m++) {
        for (int k = 0; k < a.bytes; k++) {
            for (int n = 0; n < c.bytes / 4; n++) {
                const int32_t y = b.row<uint8_t>(k / 4)[4 * n + k % 4];
                c.row<int32_t>(m)[n] += a.row<int8_t>(m)[k] * y;
            }
        }
    }
}

}  // namespace emulated

// Tiles of certain shapes, as long as this lives: kernels of others may use the same registers.
class Configured {
  public:
    explicit Configured(const Shapes& shapes) { configure(shapes); }
    ~Configured() { release(); }
    Configured(const Configured&) = delete;
};

// The tiles of a product of up to 32 rows with 32 outputs: C is 0 and 1 of the first 16 rows, 2 and 3 of
// the rest; A 4 and 5; B 6 and 7. inputs: bytes of them in a row of A.
inline Shapes shapes_of(int rows, int inputs) {
    Shapes shapes;
    const int first = rows < ROWS ? rows : ROWS, rest = rows - first;
    for (const int c : {0, 1}) shapes.set(c, first, BYTES);
    shapes.set(4, first, inputs);
    for (const int b : {6, 7}) shapes.set(b, inputs / 4, BYTES);
    if (rest == 0) return shapes;
    for (const int c : {2, 3}) shapes.set(c, rest, BYTES);
    shapes.set(5, rest, inputs);
    return shapes;
}

}  // namespace inarch::amx
