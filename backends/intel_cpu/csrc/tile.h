// What all matrix products share: weights lie in panels of PANEL outputs, and a tile of a few rows by
// one panel is computed in registers and then written with its bias.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "multiply.h"
#include "threads.h"
#include "vector.h"

namespace inarch {

#ifdef INARCH_AMX
constexpr int PANEL = 32;  // two tiles
#else
constexpr int PANEL = 2 * WIDTH;
#endif
constexpr int WIDE = PANEL / WIDTH;  // vectors of a panel

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
    const float* bias;  // [all panels * PANEL], or null

    int64_t panels() const { return (outputs + PANEL - 1) / PANEL; }  // of one group of rows
};

// One row of a tile: its sums [PANEL] with a panel, counted through all groups.
inline void write_row(const Output& out, int64_t row, int64_t panel, const Vector* sums) {
    const int64_t first = panel % out.panels() * PANEL;
    alignas(64) float whole[PANEL];
    for (int v = 0; v < WIDE; v++) {
        Vector x = sums[v];
        if (out.bias) x = x + load(out.bias + panel * PANEL + v * WIDTH);
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

struct Band {
    int64_t first, last;  // rows
    int64_t panel;        // the first of its group
};

// Calls run.template tile<R>(row, panel) so that all rows meet the panels of their group, R rows at a
// time (at most MOST), from several threads. A panel of weights is read once for MOST * 16 rows.
template <int MOST, class Run> void for_tiles(const Groups& groups, int64_t panels, const Run& run) {
    static thread_local std::vector<Band> bands;
    bands.clear();
    for (int64_t g = 0, first = 0; g < groups.count; first = groups.ends[g++]) {
        for (int64_t row = first; row < groups.ends[g]; row += MOST * 16)
            bands.push_back({row, std::min<int64_t>(groups.ends[g], row + MOST * 16), g * panels});
    }
    const Band* all = bands.data();
    const auto items = static_cast<int64_t>(bands.size()) * panels;
    parallel(items, std::max<int64_t>(1, items / (threads() * 8)), [&](int64_t begin, int64_t end, int) {
        for (int64_t item = begin; item < end; item++) {
            const auto [first, last, panel] = all[item / panels];
            const int64_t tiles = (last - first + MOST - 1) / MOST;
            for (int64_t t = 0; t < tiles; t++) {  // even heights: 16 rows are 8 and 8, not 12 and 4
                const int64_t from = first + (last - first) * t / tiles;
                const int64_t to = first + (last - first) * (t + 1) / tiles;
                run_height<MOST>(run, static_cast<int>(to - from), from, panel + item % panels);
            }
        }
    });
}

}  // namespace inarch
