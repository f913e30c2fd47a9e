// From logits to tokens, a row of the vocabulary at a time, without sorting it.
//
// A filtered draw keeps the tokens before some place in the order of falling logits. The place is found
// by counting tokens, and what they weigh, in buckets of equal width below the highest logit; only the
// bucket that it is in is sorted. What is kept is then drawn from by rising id, as without filters.
#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "abi.h"
#include "functions.h"
#include "threads.h"

namespace inarch {
namespace {

constexpr int64_t CHUNK = 1024;  // tokens whose weights are summed up together
constexpr int BUCKETS = 2048;
constexpr float FINENESS = 64;   // buckets for a factor of e

struct Row {
    const float* logits;
    int64_t size;

    // NaN has no place in an order: it goes last.
    float rank(int64_t token) const {
        return std::isnan(logits[token]) ? -INFINITE : logits[token];
    }

    // f(first token, logits, lanes that are there)
    template <class F> void walk(int64_t begin, int64_t end, const F& f) const {
        int64_t n = begin;
        for (; n + WIDTH <= end; n += WIDTH) f(n, load(logits + n), WIDTH);
        if (n < end) f(n, where(first(end - n), load(logits + n, first(end - n)), splat(-INFINITE)), end - n);
    }
};

int64_t most_likely(const Row& row) {
    Vector highest = splat(-INFINITE);
    row.walk(0, row.size, [&](int64_t, Vector x, int64_t) { highest = max(x, highest); });
    const float best = largest(highest);
    const int64_t token = std::find(row.logits, row.logits + row.size, best) - row.logits;
    return token == row.size ? 0 : token;  // of a row of NaN, any token of the vocabulary
}

struct Filters {
    int64_t top_k;
    float top_p, min_p;

    bool any(int64_t size) const { return top_k < size || top_p < 1 || min_p > 0; }
};

struct Cut {  // the last token that is kept
    float logit = -INFINITE;
    int64_t token = std::numeric_limits<int64_t>::max();
};

// A row at its temperature: tokens weigh exp((logit - best) * sharpness).
struct Draw {
    const Row row;
    const float best, sharpness;

    Vector below(Vector x) const { return (splat(best) - x) * splat(sharpness); }
    Vector weight(Vector x) const { return exp(zero() - below(x)); }
    float weight(float x) const {
        float all[WIDTH];
        store(all, weight(splat(x)));
        return all[0];
    }

    // ---- what filters keep ----

    struct Histogram {
        std::vector<int32_t> counts = std::vector<int32_t>(BUCKETS);
        std::vector<double> weights = std::vector<double>(BUCKETS);
        double total = 0;
    };

    int bucket(float down) const {
        return down < (BUCKETS - 1) / FINENESS ? static_cast<int>(down * FINENESS) : BUCKETS - 1;
    }

    Histogram count() const {
        Histogram found;
        row.walk(0, row.size, [&](int64_t, Vector x, int64_t there) {
            float down[WIDTH], weights[WIDTH];
            store(down, below(x));
            store(weights, weight(x));
            for (int64_t n = 0; n < there; n++) {
                const int at = bucket(down[n]);
                found.counts[at]++;
                found.weights[at] += weights[n];
            }
        });
        for (const double each : found.weights) found.total += each;
        return found;
    }

    std::vector<std::pair<float, int64_t>> in_bucket(int wanted) const {
        std::vector<std::pair<float, int64_t>> found;
        row.walk(0, row.size, [&](int64_t token, Vector x, int64_t there) {
            float down[WIDTH];
            store(down, below(x));
            for (int64_t n = 0; n < there; n++) {
                if (bucket(down[n]) == wanted) found.emplace_back(row.rank(token + n), token + n);
            }
        });
        std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
            return a.first > b.first || (a.first == b.first && a.second < b.second);
        });
        return found;
    }

    Cut cut(const Filters& filters) const {
        const Histogram histogram = count();
        const double most = filters.top_p < 1 ? filters.top_p * histogram.total : INFINITY;
        int64_t kept = 0;
        double before = 0;
        Cut last;
        for (int at = 0; at < BUCKETS; at++) {
            if (histogram.counts[at] == 0) continue;
            const bool all = kept + histogram.counts[at] <= filters.top_k &&
                             before + histogram.weights[at] < most &&
                             filters.min_p < weight_at_least(at);
            if (all) {
                kept += histogram.counts[at];
                before += histogram.weights[at];
                last = {};  // unknown, and not asked for: a later bucket is cut, or none
                continue;
            }
            bool cut_here = false;
            if (kept > 0) last = {lowest_above(at), std::numeric_limits<int64_t>::max()};
            for (const auto& [logit, token] : in_bucket(at)) {
                const float own = weight(logit);
                if (kept > 0 && (kept >= filters.top_k || before >= most || own < filters.min_p)) {
                    cut_here = true;
                    break;
                }
                last = {logit, token};
                kept++;
                before += own;
            }
            if (cut_here) return last;
        }
        return {};
    }

    // A bound below every weight of the bucket, with room for rounding; 0 of the last.
    float weight_at_least(int at) const {
        return at == BUCKETS - 1 ? 0 : std::exp(-(static_cast<float>(at) + 1.01f) / FINENESS);
    }

    // The lowest logit of the buckets before `at`.
    float lowest_above(int at) const {
        float found = INFINITE;
        for (int64_t n = 0; n < row.size; n++) {
            const float down = (best - row.logits[n]) * sharpness;
            if (bucket(down) < at) found = std::min(found, row.logits[n]);
        }
        return found;
    }

    // ---- the draw ----

    Vector kept_weight(int64_t token, Vector x, const Cut& cut) const {
        // Of those equal to the cut only the first are kept.
        const Mask out = token > cut.token ? less(splat(cut.logit), x) : less(x, splat(cut.logit));
        return token > cut.token ? where(out, weight(x), zero()) : where(out, zero(), weight(x));
    }

    double weigh(int64_t begin, int64_t end, const Cut& cut) const {
        double total = 0;
        const int64_t border = std::clamp(cut.token == std::numeric_limits<int64_t>::max() ? end : cut.token + 1, begin, end);
        for (const auto& [from, to] : {std::pair{begin, border}, std::pair{border, end}}) {
            Vector sums = zero();
            row.walk(from, to, [&](int64_t token, Vector x, int64_t) { sums = sums + kept_weight(token, x, cut); });
            total += sum(sums);
        }
        return total;
    }

    int64_t draw(float uniform, const Cut& cut) const {
        std::vector<double> sums;
        double total = 0;
        for (int64_t begin = 0; begin < row.size; begin += CHUNK) {
            sums.push_back(weigh(begin, std::min(begin + CHUNK, row.size), cut));
            total += sums.back();
        }
        const double wanted = uniform * total;
        double before = 0;
        int64_t last = -1;  // rounding may carry the draw past the end
        for (size_t chunk = 0; chunk < sums.size(); chunk++) {
            if (before + sums[chunk] <= wanted && chunk + 1 < sums.size()) {
                before += sums[chunk];
                continue;
            }
            const int64_t begin = static_cast<int64_t>(chunk) * CHUNK;
            for (int64_t token = begin; token < std::min(begin + CHUNK, row.size); token++) {
                const float x = row.logits[token];
                if (x < cut.logit || (x == cut.logit && token > cut.token)) continue;
                const float own = weight(x);
                if (own > 0) last = token;
                before += own;
                if (before > wanted && own > 0) return token;
            }
            if (last >= begin) return last;
        }
        return last < 0 ? most_likely(row) : last;
    }
};

// top_k, top_p, min_p: null where no row has one
void sample(const float* logits, int64_t rows, int64_t vocabulary, int64_t stride, const float* temperature,
            const float* uniform, const int32_t* top_k, const float* top_p, const float* min_p,
            int64_t* tokens) {
    parallel(rows, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t r = begin; r < end; r++) {
            const Row row{logits + r * stride, vocabulary};
            tokens[r] = most_likely(row);
            if (temperature[r] <= 0) continue;
            const Draw draw{row, row.logits[tokens[r]], 1 / temperature[r]};
            const Filters filters{top_k ? top_k[r] : vocabulary, top_p ? top_p[r] : 1, min_p ? min_p[r] : 0};
            tokens[r] = draw.draw(uniform[r], filters.any(vocabulary) ? draw.cut(filters) : Cut{});
        }
    });
}

void greedy(const float* logits, int64_t rows, int64_t vocabulary, int64_t stride, int64_t* tokens) {
    parallel(rows, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t r = begin; r < end; r++) tokens[r] = most_likely({logits + r * stride, vocabulary});
    });
}

// chosen [rows]; values, ids [rows, top]
void logprobs(const float* logits, int64_t rows, int64_t vocabulary, int64_t stride, const int64_t* tokens,
              int64_t top, float* chosen, float* values, int64_t* ids) {
    parallel(rows, 1, [&](int64_t begin, int64_t end, int) {
        std::vector<std::pair<float, int64_t>> best;  // negative ids: the lowest of equals comes first
        for (int64_t r = begin; r < end; r++) {
            const Row row{logits + r * stride, vocabulary};
            const float highest = row.logits[most_likely(row)];
            const Draw whole{row, highest, 1};
            double total = 0;
            for (int64_t n = 0; n < vocabulary; n += CHUNK) total += whole.weigh(n, std::min(n + CHUNK, vocabulary), {});
            const auto logprob = [&](float x) { return static_cast<float>(x - highest - std::log(total)); };
            chosen[r] = logprob(row.logits[tokens[r]]);
            best.clear();
            row.walk(0, vocabulary, [&](int64_t token, Vector x, int64_t there) {
                if (top == 0) return;
                const bool full = static_cast<int64_t>(best.size()) == top;
                uint32_t better = full ? lanes(less(splat(best.front().first), x)) : (1u << there) - 1;
                for (; better; better &= better - 1) {
                    const int64_t id = token + std::countr_zero(better);
                    const std::pair<float, int64_t> found{row.rank(id), -id};
                    if (static_cast<int64_t>(best.size()) == top) {
                        if (found < best.front()) continue;
                        std::pop_heap(best.begin(), best.end(), std::greater<>());
                        best.pop_back();
                    }
                    best.push_back(found);
                    std::push_heap(best.begin(), best.end(), std::greater<>());
                }
            });
            std::sort(best.begin(), best.end(), std::greater<>());
            for (int64_t n = 0; n < top; n++) {
                values[r * top + n] = logprob(best[n].first);
                ids[r * top + n] = -best[n].second;
            }
        }
    });
}

}  // namespace
}  // namespace inarch

INARCH_EXPORT(sample, inarch::sample)
INARCH_EXPORT(greedy, inarch::greedy)
INARCH_EXPORT(logprobs, inarch::logprobs)
