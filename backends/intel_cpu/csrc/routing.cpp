// Routers: the experts of each token and their weights. See the ops `route` and `sparse_mixer`.
#include <algorithm>
#include <cmath>

#include "abi.h"
#include "functions.h"
#include "scratch.h"
#include "threads.h"

namespace inarch {
namespace {

constexpr int64_t TOKENS = 8;  // that a thread takes at a time

struct Rules {  // filled by Python (routing.py): the arguments of `route`
    int64_t experts, top_k;
    int64_t sigmoid, over_chosen, renormalise;
    int64_t groups, top_groups, group_experts;
};

// Where the highest of those that are not `taken` is; some place, if none is above NaN or -inf.
int64_t best_of(const float* values, const bool* taken, int64_t count) {
    int64_t best = -1;
    for (int64_t n = 0; n < count; n++) {
        if (!taken[n] && (best < 0 || values[n] > values[best] || values[best] != values[best])) best = n;
    }
    return best;
}

void highest(const float* values, int64_t count, int64_t k, bool* taken, int64_t* found) {
    std::fill(taken, taken + count, false);
    for (int64_t n = 0; n < k; n++) taken[found[n] = best_of(values, taken, count)] = true;
}

template <class F> void each(float* values, int64_t count, const F& f) {
    int64_t n = 0;
    for (; n + WIDTH <= count; n += WIDTH) store(values + n, f(load(values + n)));
    const Mask rest = first(count - n);
    if (n < count) store(values + n, f(load(values + n, rest)), rest);
}

void softmax(float* values, int64_t count) {
    const float most = *std::max_element(values, values + count);
    each(values, count, [&](Vector x) { return exp(x - splat(most)); });
    float sum = 0;
    for (int64_t n = 0; n < count; n++) sum += values[n];
    each(values, count, [&](Vector x) { return x / splat(sum); });
}

void score(float* values, int64_t count, bool by_sigmoid) {
    if (by_sigmoid) each(values, count, [](Vector x) { return sigmoid(x); });
    else softmax(values, count);
}

// -inf for the experts outside the best groups
void keep_groups(float* ranked, const Rules& rules, bool* taken, int64_t* best, float* ranks) {
    const int64_t size = rules.experts / rules.groups;
    for (int64_t g = 0; g < rules.groups; g++) {
        highest(ranked + g * size, size, rules.group_experts, taken, best);
        ranks[g] = 0;
        for (int64_t n = 0; n < rules.group_experts; n++) ranks[g] += ranked[g * size + best[n]];
    }
    highest(ranks, rules.groups, rules.top_groups, taken, best);
    for (int64_t g = 0; g < rules.groups; g++)
        if (!taken[g]) std::fill(ranked + g * size, ranked + (g + 1) * size, -INFINITE);
}

struct Router {
    const Rules& rules;
    const float* correction;
    float least_sum, scale;

    // scores [E] hold the logits; the rest is memory for as many
    void choose(float* scores, float* ranked, float* ranks, bool* taken, int64_t* experts, float* weights) const {
        const int64_t count = rules.experts, k = rules.top_k;
        if (rules.over_chosen) {
            highest(scores, count, k, taken, experts);
            for (int64_t n = 0; n < k; n++) weights[n] = scores[experts[n]];
            score(weights, k, rules.sigmoid);
        } else {
            score(scores, count, rules.sigmoid);
            for (int64_t n = 0; n < count; n++) ranked[n] = scores[n] + (correction ? correction[n] : 0);
            auto* best = reinterpret_cast<int64_t*>(ranks + (count + 1) / 2 * 2);
            if (rules.groups > 1) keep_groups(ranked, rules, taken, best, ranks);
            highest(ranked, count, k, taken, experts);
            for (int64_t n = 0; n < k; n++) weights[n] = scores[experts[n]];
        }
        float factor = scale, sum = 0;
        for (int64_t n = 0; n < k; n++) sum += weights[n];
        if (rules.renormalise) factor = scale / std::max(sum, least_sum);
        for (int64_t n = 0; n < k; n++) weights[n] *= factor;
    }
};

// f(t, the logits of token t in float32)
template <class F> void over_tokens(const void* given, int64_t format, int64_t tokens, int64_t experts, const F& f) {
    parallel(tokens, TOKENS, [&](int64_t begin, int64_t end, int) {
        static thread_local Scratch memory;
        auto* logits = memory.get<float>(experts);
        for (int64_t t = begin; t < end; t++) {
            const int64_t at = t * experts;
            if (format == FLOAT32) widen(static_cast<const float*>(given) + at, logits, experts);
            else if (format == BFLOAT16) widen(static_cast<const bf16*>(given) + at, logits, experts);
            else widen(static_cast<const f16*>(given) + at, logits, experts);
            f(t, logits);
        }
    });
}

void route(const Rules* rules, const void* logits, int64_t format, int64_t tokens,
           const float* correction, double least_sum, double scale, int64_t* experts, float* weights) {
    const Router router{*rules, correction, static_cast<float>(least_sum), static_cast<float>(scale)};
    const int64_t count = rules->experts, k = rules->top_k;
    over_tokens(logits, format, tokens, count, [&](int64_t t, float* own) {
        static thread_local Scratch memory[3];
        router.choose(own, memory[0].get<float>(count), memory[1].get<float>(3 * count + 4), memory[2].get<bool>(count),
                      experts + t * k, weights + t * k);
    });
}

// The weight of the best of `candidates` in a softmax over those that are near it.
float near_the_best(const float* candidates, const float* logits, int64_t count, int64_t best, float jitter) {
    const float top = candidates[best];
    float sum = 0;
    for (int64_t n = 0; n < count; n++) {
        const bool far = (top - candidates[n]) / std::max(std::fabs(logits[n]), top) > 2 * jitter;
        if (!far) sum += std::exp(candidates[n] - top);
    }
    return 1 / sum;
}

void sparse_mixer(const void* logits, int64_t format, int64_t tokens, int64_t count, double jitter,
                  int64_t* experts, float* weights) {
    over_tokens(logits, format, tokens, count, [&](int64_t t, float* own) {
        static thread_local Scratch memory[2];
        auto* rest = memory[0].get<float>(count);
        auto* taken = memory[1].get<bool>(count);
        std::copy(own, own + count, rest);
        highest(own, count, 1, taken, experts + 2 * t);
        weights[2 * t] = near_the_best(own, own, count, experts[2 * t], static_cast<float>(jitter));
        rest[experts[2 * t]] = -INFINITE;
        experts[2 * t + 1] = best_of(rest, taken, count);
        weights[2 * t + 1] = near_the_best(rest, own, count, experts[2 * t + 1], static_cast<float>(jitter));
    });
}

}  // namespace
}  // namespace inarch

INARCH_EXPORT(route, inarch::route)
INARCH_EXPORT(sparse_mixer, inarch::sparse_mixer)
