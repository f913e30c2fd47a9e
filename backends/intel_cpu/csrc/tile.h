// What all matrix products share: weights lie in panels of PANEL outputs, and a tile of a few rows by
// one panel is computed in registers and then written with its bias.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>

#include "threads.h"
#include "vector.h"

namespace inarch {

constexpr int WIDE = 2;  // vectors of a panel
constexpr int PANEL = WIDE * WIDTH;

// Panels lie one after the other, but what the processor fetches by itself ends with a page.
inline void fetch_ahead(const void* p) {
    _mm_prefetch(static_cast<const char*>(p) + 4096, _MM_HINT_T0);
}

// Before the first byte is written: a walk through a large weight meets fewer pages.
inline void prefer_huge_pages(void* memory, int64_t bytes) {
    constexpr uintptr_t PAGE = 4096;
    const auto begin = (reinterpret_cast<uintptr_t>(memory) + PAGE - 1) / PAGE * PAGE;
    const auto end = (reinterpret_cast<uintptr_t>(memory) + bytes) / PAGE * PAGE;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

struct Output {
    void* data;  // [rows, outputs]
    Format type;
    int64_t outputs;
    const float* bias;  // [panels * PANEL], or null
};

// One row of a tile: sums [PANEL] for the outputs from `first` on.
inline void write_row(const Output& out, int64_t row, int64_t first, const Vector* sums) {
    alignas(64) float whole[PANEL];
    for (int v = 0; v < WIDE; v++) {
        Vector x = sums[v];
        if (out.bias) x = x + load(out.bias + first + v * WIDTH);
        store(whole + v * WIDTH, x);
    }
    const int64_t count = std::min<int64_t>(PANEL, out.outputs - first);
    const int64_t at = row * out.outputs + first;
    if (out.type == FLOAT32) narrow(whole, static_cast<float*>(out.data) + at, count);
    else if (out.type == BFLOAT16) narrow(whole, static_cast<bf16*>(out.data) + at, count);
    else narrow(whole, static_cast<f16*>(out.data) + at, count);
}

template <int R, class Run>
inline void run_height(const Run& run, int height, int64_t row, int64_t panel) {
    if constexpr (R > 0) {
        if (height == R) run.template tile<R>(row, panel);
        else run_height<R - 1>(run, height, row, panel);
    }
}

// Calls run.template tile<R>(row, panel) so that all rows meet all panels, R rows at a time (at most
// MOST), from several threads. A panel of weights is read once for `BAND` rows.
template <int MOST, class Run> void for_tiles(int64_t rows, int64_t panels, const Run& run) {
    const int64_t band = MOST * 16, bands = (rows + band - 1) / band;
    const int64_t grain = std::max<int64_t>(1, bands * panels / (threads() * 8));
    parallel(bands * panels, grain, [&](int64_t begin, int64_t end, int) {
        for (int64_t item = begin; item < end; item++) {
            const int64_t first = item / panels * band, last = std::min(rows, first + band);
            const int64_t tiles = (last - first + MOST - 1) / MOST;
            for (int64_t t = 0; t < tiles; t++) {  // even heights: 16 rows are 8 and 8, not 12 and 4
                const int64_t from = first + (last - first) * t / tiles;
                const int64_t to = first + (last - first) * (t + 1) / tiles;
                run_height<MOST>(run, static_cast<int>(to - from), from, item % panels);
            }
        }
    });
}

}  // namespace inarch
