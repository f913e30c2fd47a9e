// The experts of a layer as a whole: tokens sorted by expert, two grouped products with the activation
// between them, and the weighted sum of what each token's experts gave.
#include <type_traits>
#include <utility>

#include "abi.h"
#include "multiply.h"
#include "scratch.h"
#include "threads.h"
#include "vector.h"

namespace inarch {

void activate(const void* x, void* out, int64_t rows, int64_t size, int64_t format, int64_t kind,
              int64_t gate, double alpha, double limit);  // activation.cpp

namespace {

constexpr int64_t MOST_ROWS = 4096;  // tokens times the experts of each that are worked on at a time
constexpr int64_t GRAIN = 8192;      // numbers that are worth another thread

struct Layer {  // filled by Python (experts.py)
    int64_t experts, chosen, hidden, intermediate;
    int64_t activation;  // see activation.cpp
    int64_t scale_input;
};

struct Tokens {
    int64_t count;
    const void* x;           // [count, hidden]
    const int64_t* experts;  // [count, chosen]
    const float* weights;    // likewise
    void* out;               // [count, hidden] in the format of x
};

template <class T> T* room(int which, int64_t count) {
    static thread_local Scratch kept[6];
    return kept[which].get<T>(count);
}

// Where each entry of `experts` [entries] goes when they are sorted by expert; ends: [count]
const int64_t* sort_by_expert(const int64_t* experts, int64_t entries, int64_t count, int64_t* ends) {
    auto* places = room<int64_t>(0, entries);
    std::fill(ends, ends + count, 0);
    for (int64_t n = 0; n < entries; n++) ends[experts[n]]++;
    for (int64_t e = 0, before = 0; e < count; e++) before += std::exchange(ends[e], before);
    for (int64_t n = 0; n < entries; n++) places[n] = ends[experts[n]]++;
    return places;
}

template <class F> void over_tokens(int64_t count, int64_t numbers, const F& f) {
    parallel(count, std::max<int64_t>(1, GRAIN / numbers), [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; t++) f(t);
    });
}

template <class T, class Row>
void gather(const Layer& layer, const Tokens& tokens, const int64_t* places, Row* rows) {
    const int64_t k = layer.chosen, hidden = layer.hidden;
    over_tokens(tokens.count, k * hidden, [&](int64_t t) {
        static thread_local Scratch memory;
        float* wide = memory.get<float>(2 * hidden);
        widen(static_cast<const T*>(tokens.x) + t * hidden, wide, hidden);
        for (int64_t n = t * k; n < (t + 1) * k; n++) {
            float* scaled = wide;
            if (layer.scale_input) {
                scaled = std::copy_n(wide, hidden, wide + hidden) - hidden;
                scale(scaled, tokens.weights[n], hidden);
            }
            narrow(scaled, rows + places[n] * hidden, hidden);
        }
    });
}

template <class T>
void combine(const Layer& layer, const Tokens& tokens, const int64_t* places, const float* rows) {
    const int64_t k = layer.chosen, hidden = layer.hidden;
    over_tokens(tokens.count, k * hidden, [&](int64_t t) {
        T* out = static_cast<T*>(tokens.out) + t * hidden;
        const auto share = [&](int64_t n) { return layer.scale_input ? 1.0f : tokens.weights[t * k + n]; };
        const auto row = [&](int64_t n) { return rows + places[t * k + n] * hidden; };
        int64_t at = 0;
        for (; at + WIDTH <= hidden; at += WIDTH) {
            Vector sum = zero();
            for (int64_t n = 0; n < k; n++) sum = fma(splat(share(n)), load(row(n) + at), sum);
            store(out + at, sum);
        }
        for (; at < hidden; at++) {
            float sum = 0;
            for (int64_t n = 0; n < k; n++) sum += share(n) * row(n)[at];
            out[at] = rounded<T>(sum);
        }
    });
}

// Row: what is multiplied, bfloat16 where instructions may take it as it is.
template <class T, class Row>
void run(const Layer& layer, const Tokens& tokens, const Weights& gate_up, const Weights& down,
         double alpha, double limit) {
    const int64_t entries = tokens.count * layer.chosen;
    auto* ends = room<int64_t>(1, layer.experts);
    const int64_t* places = sort_by_expert(tokens.experts, entries, layer.experts, ends);
    const Groups groups{ends, layer.experts};
    constexpr Format ROW = std::is_same_v<Row, bf16> ? BFLOAT16 : FLOAT32;
    auto* rows = room<Row>(2, entries * layer.hidden);
    auto* both = room<Row>(3, entries * 2 * layer.intermediate);
    auto* inner = room<Row>(4, entries * layer.intermediate);
    auto* given = room<float>(5, entries * layer.hidden);
    gather<T>(layer, tokens, places, rows);
    multiply(rows, ROW, groups, gate_up, both, ROW);
    activate(both, inner, entries, layer.intermediate, ROW, layer.activation, 1, alpha, limit);
    multiply(inner, ROW, groups, down, given, FLOAT32);
    combine<T>(layer, tokens, places, given);
}

void experts(const Layer* layer, const Weights* gate_up, const Weights* down, const void* x,
             int64_t format, int64_t count, const int64_t* chosen, const float* weights, void* out,
             double alpha, double limit) {
    const auto all = [&]<class T>(T) {
        const int64_t most = std::max<int64_t>(1, MOST_ROWS / layer->chosen);
        for (int64_t t = 0; t < count; t += most) {
            const int64_t at = t * layer->hidden, entry = t * layer->chosen;
            const Tokens part{std::min(most, count - t), static_cast<const T*>(x) + at, chosen + entry,
                              weights + entry, static_cast<T*>(out) + at};
            const bool pairs = std::is_same_v<T, bf16> && gate_up->bits == 0;
            (pairs ? run<T, bf16> : run<T, float>)(*layer, part, *gate_up, *down, alpha, limit);
        }
    };
    if (format == FLOAT32) all(float{});
    else if (format == BFLOAT16) all(bf16{});
    else all(f16{});
}

// x [ends[count - 1], inputs], sorted by expert -> out [., outputs]
void grouped_linear(const void* x, int64_t type, const Weights* by, const int32_t* ends, int64_t count,
                    void* out) {
    auto* wide = room<int64_t>(1, count);
    std::copy(ends, ends + count, wide);
    multiply(x, type, {wide, count}, *by, out, type);
}

}  // namespace
}  // namespace inarch

INARCH_EXPORT(experts, inarch::experts)
INARCH_EXPORT(grouped_linear, inarch::grouped_linear)
