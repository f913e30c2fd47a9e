// Attention over pages: each item of a step's work (see pages.h), for each KV head, by whichever thread
// is free. A block of keys at a time: scores, what their exponentials add to the sum so far, outputs.
//
// All query heads of a group, of all query tokens of the tile, are rows of the same two products, so
// that a key or value is read once for all of them. (Dao et al., 2022, arXiv:2205.14135; Milakov and
// Gimelshein, 2018, arXiv:1805.02867.)
#include "abi.h"
#include "functions.h"
#include "pages.h"
#include "products.h"
#include "scratch.h"
#include "threads.h"

namespace inarch {
namespace {

constexpr int64_t BLOCK = 128;  // keys; of few rows twice as many, so that less is done between them
constexpr int64_t FEW_ROWS = 16;
constexpr int64_t LATENT_BLOCK = 64;  // keys of some hundred features, in float32

struct Strided {  // q [T, H, D]
    const void* data;
    int64_t token, head;
};

struct Call {
    const Shape& shape;
    const Work& work;
    Strided q;
    const void *k_pages, *v_pages;
    void* out;      // [T, H, value_dim] in the format of q
    float* sums;    // [T, H] or null
    const float* sinks;  // [H] or null
    float* put_aside;    // [slots, H, tile_tokens, value_row + 2]
    float scale, softcap;  // softcap 0: none
};

// Memory that a thread keeps from call to call.
template <class T> T* room(int which, int64_t count) {
    thread_local Scratch kept[7];
    return kept[which].get<T>(count);
}

template <class Q> void copy_row(const Q* from, float* to, int64_t count) {
    for (int64_t n = 0; n < count; n++) to[n] = number(from[n]);
}
inline void copy_row(const bf16* from, bf16* to, int64_t count) { std::memcpy(to, from, count * 2); }

struct State {  // of one query row, while keys go by
    float highest = -INFINITE, sum = 0;
};

// What comes out of a row whose outputs [value_row] are not divided by their sum yet.
void finish(const Call& call, int64_t token, int64_t head, State state, const float* outputs) {
    float factor = 1;
    if (call.sinks) {
        const float sink = call.sinks[head], highest = std::max(state.highest, sink);
        factor = state.sum > 0 ? std::exp(state.highest - highest) : 0;
        state.sum = state.sum * factor + std::exp(sink - highest);
        state.highest = highest;
    }
    const float each = state.sum > 0 ? factor / state.sum : 0;
    const int64_t row = token * call.shape.q_heads + head, size = call.shape.value_dim;
    const auto write = [&]<class T>(T* to) {
        int64_t n = 0;
        for (; n + WIDTH <= size; n += WIDTH) store(to + n, load(outputs + n) * splat(each));
        if (n < size) store(to + n, load(outputs + n) * splat(each), first(size - n));
    };
    if (call.shape.given == FLOAT32) write(static_cast<float*>(call.out) + row * size);
    else if (call.shape.given == BFLOAT16) write(static_cast<bf16*>(call.out) + row * size);
    else write(static_cast<f16*>(call.out) + row * size);
    if (call.sums) call.sums[row] = state.highest + std::log(state.sum);
}

// Pages of latents: a row for each token, the first features of which are its value too. All heads read
// the same rows, so that a block of them is widened once, for both products. Scores come out of the
// first with heads side by side: rows as they lie are what is broadcast.
template <class T> struct Latents {
    using Stored = T;
    using Given = float;
    static constexpr int TOGETHER = 1;
};
template <class Page> constexpr bool LATENT = false;
template <class T> constexpr bool LATENT<Latents<T>> = true;

template <class Page> struct Tiled {
    using Stored = typename Page::Stored;
    using Given = typename Page::Given;

    Tiled(const Call& call, const Item& item, int64_t head) : call(call), item(item), head(head) {}

    const Call& call;
    const Item& item;
    const int64_t head;  // of K and V
    const Shape& shape = call.shape;
    const int64_t group = shape.group(), rows = item.tokens * group;
    const int64_t block = LATENT<Page> ? LATENT_BLOCK : BLOCK * (rows <= FEW_ROWS ? 2 : 1);
    const int64_t features = (shape.key_dim + 1) / 2 * 2;  // of a row of q
    const int64_t columns = (rows + 15) / 16 * 16;         // of latents' scores
    const int32_t* members = call.work.at<int32_t>(call.work.member_at) + item.members;
    const int32_t* pages = call.work.at<int32_t>(call.work.page_at) + item.pages;
    Given* q = room<Given>(0, columns * features);  // of latents [features, columns]
    float* scores = room<float>(1, rows * block);
    Given* weights = room<Given>(2, rows * block);
    float* outputs = room<float>(3, rows * shape.value_row);
    State* states = room<State>(4, rows);

    void run() {
        load_queries();
        for (int64_t r = 0; r < rows; r++) states[r] = {};
        std::fill(outputs, outputs + rows * shape.value_row, 0.0f);
        for (int64_t begin = item.begin; begin < item.end; begin += block) {
            const int64_t end = std::min<int64_t>(begin + block, item.end);
            if constexpr (LATENT<Page>) score_latents(begin, end);
            else score(begin, end);
            for (int64_t r = 0; r < rows; r++) weigh(r, begin, end);
            if constexpr (LATENT<Page>) add_latents(end - begin);
            else add_values(begin, end);
        }
        for (int64_t r = 0; r < rows; r++) give(r);
    }

    void load_queries() {
        if constexpr (LATENT<Page>) return load_columns();
        for (int64_t r = 0; r < rows; r++) {
            const int64_t place = members[r / group] * call.q.token +
                                  (head * group + r % group) * call.q.head;
            Given* to = q + r * features;
            if constexpr (std::is_same_v<Given, bf16>) {
                copy_row(static_cast<const bf16*>(call.q.data) + place, to, shape.key_dim);
            } else if (shape.given == FLOAT32) {
                copy_row(static_cast<const float*>(call.q.data) + place, to, shape.key_dim);
            } else if (shape.given == BFLOAT16) {
                copy_row(static_cast<const bf16*>(call.q.data) + place, to, shape.key_dim);
            } else {
                copy_row(static_cast<const f16*>(call.q.data) + place, to, shape.key_dim);
            }
            if (features > shape.key_dim) to[shape.key_dim] = Given{};
        }
    }

    // The page of a key, and how many from there to `end` are in it.
    int64_t page_of(int64_t key) const { return pages[(key - item.begin) / shape.page_tokens]; }
    int64_t in_page(int64_t key, int64_t end) const {
        return std::min(end - key, shape.page_tokens - key % shape.page_tokens);
    }

    // Bytes from the page of a key to the next that is read, in pages of `size` numbers.
    int64_t ahead(int64_t key, int64_t size) const {
        const int64_t next = key / shape.page_tokens * shape.page_tokens + shape.page_tokens;
        if (next >= item.end) return 0;
        const auto bytes = static_cast<int64_t>(sizeof(Stored));
        return (page_of(next) - page_of(key)) * shape.kv_heads * size * bytes;
    }

    void score(int64_t begin, int64_t end) {
        for (int64_t key = begin; key < end; key += in_page(key, end)) {
            const int64_t count = in_page(key, end), offset = key % shape.page_tokens;
            const auto* b = static_cast<const Stored*>(call.k_pages) +
                            shape.key_place(page_of(key), head, 0, offset);
            const int64_t columns = (count + 15) / 16 * 16;  // those beyond `end` are masked
            product<Page>(rows, columns, {q, features, b, shape.page_tokens * Page::TOGETHER,
                                          scores + key - begin, block, shape.key_dim, false,
                                          ahead(key, shape.key_page())});
        }
    }

    // ---- latents ----

    float* wide() { return room<float>(5, block * shape.key_dim + 16); }  // read up to a multiple of 16

    void load_columns() {
        std::fill(q, q + columns * shape.key_dim, 0.0f);
        for (int64_t r = 0; r < rows; r++) {
            const auto* from = static_cast<const float*>(call.q.data) + members[r / group] * call.q.token +
                               r % group * call.q.head;
            for (int64_t d = 0; d < shape.key_dim; d++) q[d * columns + r] = from[d];
        }
    }

    void score_latents(int64_t begin, int64_t end) {
        const int64_t size = shape.key_dim;
        float *kept = wide(), *turned = room<float>(6, block * columns);
        for (int64_t key = begin; key < end; key++) {
            const int64_t at = page_of(key) * shape.page_tokens + key % shape.page_tokens;
            widen(static_cast<const Stored*>(call.k_pages) + at * size, kept + (key - begin) * size, size);
        }
        product<Plain<float>>(end - begin, columns, {kept, size, q, columns, turned, columns, size, false, 0});
        for (int64_t r = 0; r < rows; r++)
            for (int64_t n = 0; n < end - begin; n++) scores[r * block + n] = turned[n * columns + r];
    }

    void add_latents(int64_t count) {
        product<Plain<float>>(rows, shape.value_row,
                              {weights, block, wide(), shape.key_dim, outputs, shape.value_row, count, true, 0});
    }

    // Scores of a row -> weights, and its outputs so far to the new highest score.
    void weigh(int64_t r, int64_t begin, int64_t end) {
        const int64_t token = members[r / group];
        const Sees& sees = call.work.at<Sees>(call.work.sees_at)[token];
        float* row = scores + r * block;
        const int64_t count = end - begin, most = (count + WIDTH - 1) / WIDTH * WIDTH;
        float highest = masked(row, most, sees.begin - begin, std::min<int64_t>(sees.end, end) - begin);
        if (sees.mask >= 0) highest = hide(row, sees, begin, end);
        State& state = states[r];
        highest = std::max(highest, state.highest);
        Given* to = weights + r * block;
        if (highest == -INFINITE) {
            std::fill(to, to + most, Given{});
            return;
        }
        Vector total = zero();
        for (int64_t n = 0; n < most; n += WIDTH) {
            const Vector weight = exp(load(row + n) - splat(highest));
            total = total + weight;
            store(to + n, weight);
        }
        if (highest > state.highest) {
            const float factor = std::exp(state.highest - highest);  // 0 at first
            state.sum *= factor;
            state.highest = highest;
            float* out = outputs + r * shape.value_row;
            for (int64_t n = 0; n < shape.value_row; n += WIDTH) store(out + n, load(out + n) * splat(factor));
        }
        state.sum += sum(total);
    }

    // Scaled and capped, -inf outside from..to; the highest.
    float masked(float* row, int64_t count, int64_t from, int64_t to) {
        const Vector scale = splat(call.scale), never = splat(-INFINITE);
        Vector highest = never;
        for (int64_t n = 0; n < count; n += WIDTH) {
            Vector x = load(row + n) * scale;
            if (call.softcap != 0) x = tanh(x / splat(call.softcap)) * splat(call.softcap);
            if (to - n < WIDTH) x = where(first(std::max<int64_t>(to - n, 0)), x, never);
            if (from > n) x = where(first(std::min<int64_t>(from - n, WIDTH)), never, x);
            store(row + n, x);
            highest = max(x, highest);
        }
        return largest(highest);
    }

    float hide(float* row, const Sees& sees, int64_t begin, int64_t end) {
        const uint8_t* mask = call.work.at<uint8_t>(call.work.mask_at) + sees.mask;
        for (int64_t key = std::max<int64_t>(sees.from, begin); key < std::min<int64_t>(sees.end, end); key++) {
            if (!mask[key - sees.from]) row[key - begin] = -INFINITE;
        }
        return *std::max_element(row, row + end - begin);
    }

    void add_values(int64_t begin, int64_t end) {
        for (int64_t key = begin; key < end; key += in_page(key, end)) {
            const auto* b = static_cast<const Stored*>(call.v_pages) +
                            shape.value_place(page_of(key), head, 0, key % shape.page_tokens);
            product<Page>(rows, shape.value_row,
                          {weights + key - begin, block, b, shape.value_row * Page::TOGETHER, outputs,
                           shape.value_row, in_page(key, end), true, ahead(key, shape.value_page())});
        }
    }

    void give(int64_t r) {
        const int64_t q_head = head * group + r % group;
        const float* out = outputs + r * shape.value_row;
        if (item.slot < 0) return finish(call, members[r / group], q_head, states[r], out);
        const int64_t size = shape.value_row + 2;
        float* aside = call.put_aside +
                       ((item.slot * shape.q_heads + q_head) * call.work.tile_tokens + r / group) * size;
        std::memcpy(aside, out, shape.value_row * sizeof(float));
        std::memcpy(aside + shape.value_row, &states[r], sizeof(State));
    }
};

// The parts of one query token and head, put together by their highest scores.
void merge(const Call& call, const Merge& job, int64_t head) {
    const Shape& shape = call.shape;
    const Part* parts = call.work.at<Part>(call.work.part_at) + job.first;
    const auto aside = [&](int64_t n) {
        const int64_t row = (parts[n].slot * shape.q_heads + head) * call.work.tile_tokens + parts[n].row;
        return call.put_aside + row * (shape.value_row + 2);
    };
    const auto state = [&](int64_t n) {
        State found;
        std::memcpy(static_cast<void*>(&found), aside(n) + shape.value_row, sizeof found);
        return found;
    };
    State all;
    for (int64_t n = 0; n < job.count; n++) all.highest = std::max(all.highest, state(n).highest);
    float* outputs = room<float>(3, shape.value_row);
    std::fill(outputs, outputs + shape.value_row, 0.0f);
    for (int64_t n = 0; n < job.count; n++) {
        const State part = state(n);
        if (part.sum == 0) continue;  // it saw nothing
        const float factor = std::exp(part.highest - all.highest);
        all.sum += part.sum * factor;
        for (int64_t d = 0; d < shape.value_row; d += WIDTH) {
            store(outputs + d, fma(load(aside(n) + d), splat(factor), load(outputs + d)));
        }
    }
    finish(call, job.token, head, all, outputs);
}

void merge_all(const Call& call) {
    const Merge* merges = call.work.at<Merge>(call.work.merge_at);
    const int64_t heads = call.shape.q_heads;
    parallel(call.work.merges * heads, 8, [&](int64_t begin, int64_t end, int) {
        for (int64_t n = begin; n < end; n++) merge(call, merges[n / heads], n % heads);
    });
}

template <class Page> void attend_pages(const Call& call) {
    const int64_t heads = call.shape.kv_heads;
    const Item* items = call.work.at<Item>(call.work.item_at);
    parallel(call.work.items * heads, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t n = begin; n < end; n++) Tiled<Page>(call, items[n / heads], n % heads).run();
    });
}

void attend(const Shape* shape, const Work* work, void* q, int64_t q_token, int64_t q_head,
            const void* k_pages, const void* v_pages, void* out, float* sums, const float* sinks,
            float* put_aside, double scale, double softcap) {
    const Call call{*shape, *work, {q, q_token, q_head}, k_pages, v_pages, out, sums, sinks, put_aside,
                    static_cast<float>(scale), static_cast<float>(softcap)};
    switch (shape->kept) {
        case FLOAT32:
            attend_pages<Plain<float>>(call);
            break;
        case FLOAT16:
            attend_pages<Plain<f16>>(call);
            break;
        case FLOAT8:
            attend_pages<Plain<e4m3>>(call);
            break;
        default:
#ifdef INARCH_BF16
            if (shape->given == BFLOAT16) attend_pages<Dots>(call);
            else attend_pages<Pairs>(call);
#else
            attend_pages<Pairs>(call);
#endif
    }
    merge_all(call);
}

// q, out [T, H, .] float32, out of as many features as a latent; one KV head, whose pages hold rows.
void attend_latents(const Shape* shape, const Work* work, void* q, int64_t q_token, int64_t q_head,
                    const void* pages, void* out, float* put_aside, double scale) {
    const Call call{*shape, *work, {q, q_token, q_head}, pages, nullptr, out, nullptr, nullptr, put_aside,
                    static_cast<float>(scale), 0};
    if (shape->kept == FLOAT32) attend_pages<Latents<float>>(call);
    else if (shape->kept == BFLOAT16) attend_pages<Latents<bf16>>(call);
    else if (shape->kept == FLOAT16) attend_pages<Latents<f16>>(call);
    else attend_pages<Latents<e4m3>>(call);
    merge_all(call);
}

}  // namespace
}  // namespace inarch

INARCH_EXPORT(attend, inarch::attend)
INARCH_EXPORT(attend_latents, inarch::attend_latents)
