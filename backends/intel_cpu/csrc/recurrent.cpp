// Recurrent states: short convolutions, the gated delta rule, and Mamba-2's scan, a token after the other.
//
// On a CPU a state stays in the nearest caches while its run goes by, so that no chunk of tokens has to be
// put together as matrices. What states are made of is independent: a thread takes a head's columns (or
// rows) through all tokens of a run.
#include <algorithm>
#include <cmath>

#include "abi.h"
#include "functions.h"
#include "scratch.h"
#include "threads.h"

namespace inarch {
namespace {

constexpr float EPS = 1e-6f;       // of unit length: see the op `gated_delta_rule`
constexpr int COLUMNS = 2;         // vectors of a delta rule's state that are worked on at once
constexpr int64_t CHANNELS = 256;  // of a convolution that a thread takes at a time

template <class T> T* room(int which, int64_t count) {
    static thread_local Scratch kept[4];
    return kept[which].get<T>(count);
}

template <class F> void by_format(int64_t format, const F& f) {
    if (format == FLOAT32) f(float{});
    else if (format == BFLOAT16) f(bf16{});
    else f(f16{});
}

struct Runs {  // n runs of L tokens each
    int64_t count, length;
    const int64_t *read, *write;  // slots
};

// ---- convolution ----

struct Convolution {
    int64_t channels, width;
    const void *weight, *bias;  // [C, W]; [C] or null
    void* tails;                // [slots, W - 1, C]
};

// Channels begin..end of a run: inputs [W - 1 + L, size] in float32, then the outputs.
template <class T>
void convolve(const Convolution& it, const T* x, T* out, const Runs& runs, int64_t run, int64_t begin,
              int64_t end) {
    const int64_t size = end - begin, before = it.width - 1, length = runs.length;
    const int64_t stride = (size + WIDTH - 1) / WIDTH * WIDTH;
    auto* inputs = room<float>(0, (before + length) * stride);
    auto* weight = room<float>(1, (it.width + 1) * stride);
    auto* tails = static_cast<T*>(it.tails);
    const int64_t slot = runs.read[run];
    for (int64_t w = 0; w < before; w++) {
        if (slot == 0) std::fill(inputs + w * stride, inputs + w * stride + size, 0.0f);
        else widen(tails + (slot * before + w) * it.channels + begin, inputs + w * stride, size);
    }
    const int64_t first = run * length * it.channels + begin;
    for (int64_t t = 0; t < length; t++) widen(x + first + t * it.channels, inputs + (before + t) * stride, size);
    for (int64_t w = 0; w < before; w++) {
        narrow(inputs + (length + w) * stride, tails + (runs.write[run] * before + w) * it.channels + begin, size);
    }
    for (int64_t c = 0; c < size; c++) {
        for (int64_t w = 0; w < it.width; w++) weight[w * stride + c] = number(static_cast<const T*>(it.weight)[(begin + c) * it.width + w]);
        weight[it.width * stride + c] = it.bias ? number(static_cast<const T*>(it.bias)[begin + c]) : 0;
    }
    for (int64_t t = 0; t < length; t++) {
        float* row = inputs + t * stride;  // its first input is the last that is needed: written over
        for (int64_t c = 0; c < size; c += WIDTH) {
            Vector sum = load(weight + it.width * stride + c);
            for (int64_t w = 0; w < it.width; w++) sum = fma(load(row + w * stride + c), load(weight + w * stride + c), sum);
            store(row + c, sum * sigmoid(sum));
        }
        narrow(row, out + first + t * it.channels, size);
    }
}

void causal_conv(const void* x, int64_t format, const void* weight, const void* bias, void* tails, void* out,
                 int64_t count, int64_t length, int64_t channels, int64_t width, const int64_t* read,
                 const int64_t* write) {
    const Convolution it{channels, width, weight, bias, tails};
    const Runs runs{count, length, read, write};
    const int64_t pieces = (channels + CHANNELS - 1) / CHANNELS;
    by_format(format, [&]<class T>(T) {
        parallel(count * pieces, 1, [&](int64_t begin, int64_t end, int) {
            for (int64_t n = begin; n < end; n++) {
                const int64_t at = n % pieces * CHANNELS;
                convolve(it, static_cast<const T*>(x), static_cast<T*>(out), runs, n / pieces, at,
                         std::min(at + CHANNELS, channels));
            }
        });
    });
}

// ---- gated delta rule ----

struct Heads {
    int64_t keys, values, key_dim, value_dim;  // numbers of heads and of their features
    int64_t decays;                            // 1, or key_dim: of each feature its own
    int64_t q_token, k_token, v_token;         // strides of tokens
};

struct Delta {
    const Heads& heads;
    const Runs& runs;
    const void *q, *k, *v;
    const float *decay, *beta;  // [n, L, H, decays], [n, L, H]
    float* states;              // [slots, H, K, V]
    void* out;                  // [n, L, H, V]

    // Unit q (scaled) and k, and what is left of each feature: [3][K] for each token
    template <class T> void prepare(int64_t run, int64_t head, float* ready) const {
        const int64_t size = heads.key_dim, own = head * heads.keys / heads.values * size;
        for (int64_t t = run * runs.length; t < (run + 1) * runs.length; t++, ready += 3 * size) {
            unit(static_cast<const T*>(q) + t * heads.q_token + own, ready, 1 / std::sqrt(static_cast<float>(size)));
            unit(static_cast<const T*>(k) + t * heads.k_token + own, ready + size, 1);
            const float* left = decay + (t * heads.values + head) * heads.decays;
            for (int64_t d = 0; d < size; d++) ready[2 * size + d] = heads.decays == 1 ? left[0] : left[d];
            int64_t d = 0;
            for (; d + WIDTH <= size; d += WIDTH) store(ready + 2 * size + d, exp(load(ready + 2 * size + d)));
            for (; d < size; d++) ready[2 * size + d] = std::exp(ready[2 * size + d]);
        }
    }

    template <class T> void unit(const T* from, float* to, float factor) const {
        widen(from, to, heads.key_dim);
        float squares = 0;
        for (int64_t d = 0; d < heads.key_dim; d++) squares += to[d] * to[d];
        scale(to, factor / std::sqrt(squares + EPS), heads.key_dim);
    }

    // Columns begin.. of a head's state, N vectors of them, through all tokens of a run.
    template <class T, int N>
    void columns(int64_t run, int64_t head, int64_t begin, const float* ready, float* state) const {
        const int64_t size = heads.key_dim, count = std::min<int64_t>(N * WIDTH, heads.value_dim - begin);
        load_state(run, head, begin, count, state, N * WIDTH);
        alignas(64) float row[N * WIDTH] = {};
        for (int64_t t = run * runs.length; t < (run + 1) * runs.length; t++, ready += 3 * size) {
            const float *own_q = ready, *own_k = ready + size, *left = ready + 2 * size;
            widen(static_cast<const T*>(v) + t * heads.v_token + head * heads.value_dim + begin, row, count);
            Vector held[N], change[N], sum[N];
            for (int n = 0; n < N; n++) held[n] = sum[n] = zero();
            for (int64_t d = 0; d < size; d++) {
                const Vector key = splat(own_k[d] * left[d]);
                for (int n = 0; n < N; n++) held[n] = fma(key, load(state + (d * N + n) * WIDTH), held[n]);
            }
            const Vector rate = splat(beta[t * heads.values + head]);
            for (int n = 0; n < N; n++) change[n] = (load(row + n * WIDTH) - held[n]) * rate;
            for (int64_t d = 0; d < size; d++) {
                const Vector key = splat(own_k[d]), kept = splat(left[d]), query = splat(own_q[d]);
                for (int n = 0; n < N; n++) {
                    float* at = state + (d * N + n) * WIDTH;
                    const Vector now = fma(key, change[n], kept * load(at));
                    store(at, now);
                    sum[n] = fma(query, now, sum[n]);
                }
            }
            for (int n = 0; n < N; n++) store(row + n * WIDTH, sum[n]);
            narrow(row, static_cast<T*>(out) + (t * heads.values + head) * heads.value_dim + begin, count);
        }
        store_state(run, head, begin, count, state, N * WIDTH);
    }

    float* place(int64_t slot, int64_t head, int64_t begin) const {
        return states + (slot * heads.values + head) * heads.key_dim * heads.value_dim + begin;
    }

    void load_state(int64_t run, int64_t head, int64_t begin, int64_t count, float* state, int64_t stride) const {
        std::fill(state, state + heads.key_dim * stride, 0.0f);
        if (runs.read[run] == 0) return;
        const float* from = place(runs.read[run], head, begin);
        for (int64_t d = 0; d < heads.key_dim; d++) std::copy_n(from + d * heads.value_dim, count, state + d * stride);
    }

    void store_state(int64_t run, int64_t head, int64_t begin, int64_t count, const float* state, int64_t stride) const {
        float* to = place(runs.write[run], head, begin);
        for (int64_t d = 0; d < heads.key_dim; d++) std::copy_n(state + d * stride, count, to + d * heads.value_dim);
    }
};

// A run of one token reads its state once: no column is worth a thread of its own.
void gated_delta_rule(const Heads* heads, const void* q, const void* k, const void* v, int64_t format,
                      const float* decay, const float* beta, float* states, void* out, int64_t count,
                      int64_t length, const int64_t* read, const int64_t* write) {
    const Runs runs{count, length, read, write};
    const Delta it{*heads, runs, q, k, v, decay, beta, states, out};
    constexpr int64_t SIZE = COLUMNS * WIDTH;
    const int64_t blocks = (heads->value_dim + SIZE - 1) / SIZE, shares = length == 1 ? 1 : blocks;
    by_format(format, [&]<class T>(T) {
        parallel(count * heads->values * shares, 1, [&](int64_t begin, int64_t end, int) {
            auto* state = room<float>(0, heads->key_dim * SIZE);
            auto* ready = room<float>(1, length * 3 * heads->key_dim);
            for (int64_t n = begin; n < end; n++) {
                const int64_t run = n / shares / heads->values, head = n / shares % heads->values;
                const int64_t first = n % shares * blocks / shares, last = (n % shares + 1) * blocks / shares;
                it.prepare<T>(run, head, ready);
                for (int64_t b = first; b < last; b++) it.columns<T, COLUMNS>(run, head, b * SIZE, ready, state);
            }
        });
    });
}

// ---- Mamba-2's scan ----

struct Space {
    int64_t heads, head_dim, groups, state;  // H, P, G, N
    int64_t x_token, b_token, c_token;       // strides of tokens
};

struct Scan {
    const Space& space;
    const Runs& runs;
    const void *x, *b, *c;
    const float *dt, *a, *skip;  // [n, L, H], [H], [H]
    float* states;               // [slots, H, P, N]
    void* out;                   // [n, L, H, P]

    int64_t padded() const { return (space.state + WIDTH - 1) / WIDTH * WIDTH; }

    template <class T> void head(int64_t run, int64_t head) const {
        const int64_t size = space.head_dim, width = space.state, stride = padded();
        auto* state = room<float>(0, size * stride);
        auto* both = room<float>(1, 2 * stride);  // b and c of a token
        auto* row = room<float>(2, 2 * size);     // x, and what comes out
        const int64_t own = head * space.groups / space.heads * width;
        std::fill(state, state + size * stride, 0.0f);
        std::fill(both, both + 2 * stride, 0.0f);
        if (runs.read[run] != 0)
            for (int64_t p = 0; p < size; p++) std::copy_n(place(runs.read[run], head) + p * width, width, state + p * stride);
        for (int64_t t = run * runs.length; t < (run + 1) * runs.length; t++) {
            widen(static_cast<const T*>(b) + t * space.b_token + own, both, width);
            widen(static_cast<const T*>(c) + t * space.c_token + own, both + stride, width);
            widen(static_cast<const T*>(x) + t * space.x_token + head * size, row, size);
            advance(state, both, both + stride, row, row + size, dt[t * space.heads + head], head);
            narrow(row + size, static_cast<T*>(out) + (t * space.heads + head) * size, size);
        }
        for (int64_t p = 0; p < size; p++) std::copy_n(state + p * stride, width, place(runs.write[run], head) + p * width);
    }

    void advance(float* state, const float* in, const float* through, const float* x, float* y, float step,
                 int64_t head) const {
        const Vector kept = splat(std::exp(step * a[head]));
        for (int64_t p = 0; p < space.head_dim; p++, state += padded()) {
            const Vector given = splat(x[p] * step);
            Vector total = zero();
            for (int64_t n = 0; n < padded(); n += WIDTH) {
                const Vector now = fma(given, load(in + n), kept * load(state + n));
                store(state + n, now);
                total = fma(now, load(through + n), total);
            }
            y[p] = sum(total) + skip[head] * x[p];
        }
    }

    float* place(int64_t slot, int64_t head) const {
        return states + (slot * space.heads + head) * space.head_dim * space.state;
    }
};

void state_space_scan(const Space* space, const void* x, const float* dt, const float* a, const void* b,
                      const void* c, const float* skip, int64_t format, float* states, void* out,
                      int64_t count, int64_t length, const int64_t* read, const int64_t* write) {
    const Runs runs{count, length, read, write};
    const Scan it{*space, runs, x, b, c, dt, a, skip, states, out};
    by_format(format, [&]<class T>(T) {
        parallel(count * space->heads, 1, [&](int64_t begin, int64_t end, int) {
            for (int64_t n = begin; n < end; n++) it.head<T>(n / space->heads, n % space->heads);
        });
    });
}

}  // namespace
}  // namespace inarch

INARCH_EXPORT(causal_conv, inarch::causal_conv)
INARCH_EXPORT(gated_delta_rule, inarch::gated_delta_rule)
INARCH_EXPORT(state_space_scan, inarch::state_space_scan)
