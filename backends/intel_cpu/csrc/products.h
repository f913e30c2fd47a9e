// Small products C [rows, columns] (+)= A [rows, depth] B [depth, columns], where B is a page of keys
// or values as it is kept. Both products of attention are of this form: for the scores a page of
// keys has a row for each feature, for the outputs a page of values has a row for each token.
//
// What is kept decides how B is read: see the types of pages below. A register tile holds ROWS rows by
// two vectors of columns; its number of rows is a template's, so that decodes of any group size read a
// page once.
#pragma once
#include <algorithm>

#include "pairs.h"
#include "vector.h"

namespace inarch {

#ifdef INARCH_AVX512
constexpr int ROWS = 12;  // of 32 registers
#else
constexpr int ROWS = 6;  // of 16
#endif

// Pages of T, of which a row after the other is read and widened.
template <class T> struct Plain {
    using Stored = T;
    using Given = float;               // what A is of
    static constexpr int TOGETHER = 1;  // rows of B that lie interleaved

    // c += a's column d times row d of B
    template <int R, int N>
    static void step(Vector (&c)[R][N], const float* a, int64_t stride, const T* b, int64_t, int64_t d) {
        Vector columns[N];
        for (int n = 0; n < N; n++) columns[n] = load(b + n * WIDTH);
        for (int r = 0; r < R; r++) {
            const Vector each = splat(a[r * stride + d]);
            for (int n = 0; n < N; n++) c[r][n] = fma(each, columns[n], c[r][n]);
        }
    }
};

// Pages of bfloat16, two rows interleaved: a number and the one below it are one 32-bit word, which
// becomes float32 by a shift, or by a mask.
struct Pairs {
    using Stored = bf16;
    using Given = float;
    static constexpr int TOGETHER = 2;

    template <int R, int N>
    static void step(Vector (&c)[R][N], const float* a, int64_t stride, const bf16* b, int64_t left,
                     int64_t d) {
        Vector columns[N];
        for (int n = 0; n < N; n++) columns[n] = first_of_pair(load_ints(b + n * WIDTH * 2));
        for (int r = 0; r < R; r++) {
            const Vector each = splat(a[r * stride + d]);
            for (int n = 0; n < N; n++) c[r][n] = fma(each, columns[n], c[r][n]);
        }
        if (left < 2) return;  // what lies beside the last row may be anything
        for (int n = 0; n < N; n++) columns[n] = second_of_pair(load_ints(b + n * WIDTH * 2));
        for (int r = 0; r < R; r++) {
            const Vector each = splat(a[r * stride + d + 1]);
            for (int n = 0; n < N; n++) c[r][n] = fma(each, columns[n], c[r][n]);
        }
    }
};

#ifdef INARCH_BF16
// The same pages where A is bfloat16 too: two products and their sum are one instruction.
struct Dots {
    using Stored = bf16;
    using Given = bf16;
    static constexpr int TOGETHER = 2;

    template <int R, int N>
    static void step(Vector (&c)[R][N], const bf16* a, int64_t stride, const bf16* b, int64_t left,
                     int64_t d) {
        Ints columns[N];
        const Ints kept = splat_ints(left < 2 ? 0xffff : -1);
        for (int n = 0; n < N; n++) columns[n] = load_ints(b + n * WIDTH * 2) & kept;
        for (int r = 0; r < R; r++) {
            const Ints each = splat_pair(a + r * stride + d);
            for (int n = 0; n < N; n++) c[r][n] = dot_pairs(c[r][n], each, columns[n]);
        }
    }
};
#endif

template <class Page> struct Operands {
    const typename Page::Given* a;
    int64_t a_stride;
    const typename Page::Stored* b;
    int64_t b_stride;  // of a row, or of as many as lie interleaved
    float* c;
    int64_t c_stride;
    int64_t depth;
    bool add;
    int64_t ahead;  // from b to what will be read next in its place, in bytes; 0: nothing
};

template <class Page, int R, int N> void tile(const Operands<Page>& it) {
    Vector c[R][N];
    for (int r = 0; r < R; r++) {
        for (int n = 0; n < N; n++) {
            c[r][n] = it.add ? load(it.c + r * it.c_stride + n * WIDTH) : zero();
        }
    }
    const auto* b = it.b;
    for (int64_t d = 0; d < it.depth; d += Page::TOGETHER, b += it.b_stride) {
        if (it.ahead) {
            const auto* next = reinterpret_cast<const char*>(b) + it.ahead;
            for (size_t at = 0; at < N * WIDTH * Page::TOGETHER * sizeof *b; at += 64) {
                _mm_prefetch(next + at, _MM_HINT_T1);
            }
        }
        Page::step(c, it.a, it.a_stride, b, it.depth - d, d);
    }
    for (int r = 0; r < R; r++) {
        for (int n = 0; n < N; n++) store(it.c + r * it.c_stride + n * WIDTH, c[r][n]);
    }
}

template <class Page, int N, int R = ROWS> void tile_of_rows(int64_t rows, const Operands<Page>& it) {
    if (rows >= R) return tile<Page, R, N>(it);
    if constexpr (R > 1) tile_of_rows<Page, N, R - 1>(rows, it);
}

// columns: a multiple of 16. A may be read beyond `depth`, up to a multiple of TOGETHER.
template <class Page> void product(int64_t rows, int64_t columns, Operands<Page> it) {
    const Operands<Page> all = it;
    for (int64_t n = 0; n < columns; n += 2 * WIDTH) {
        const bool two = columns - n >= 2 * WIDTH;
        for (int64_t r = 0; r < rows; r += ROWS) {
            it.a = all.a + r * all.a_stride;
            it.b = all.b + n * Page::TOGETHER;
            it.c = all.c + r * all.c_stride + n;
            it.ahead = r == 0 ? all.ahead : 0;
            if (two) tile_of_rows<Page, 2>(rows - r, it);
            else tile_of_rows<Page, 1>(rows - r, it);
        }
    }
}

}  // namespace inarch
