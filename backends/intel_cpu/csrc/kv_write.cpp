// What is due to q and k before attention, and the way of k and v into their pages, a token at a time.
#include "abi.h"
#include "heads.h"
#include "pages.h"
#include "threads.h"

namespace inarch {
namespace {

constexpr int64_t TOKENS = 2;  // that a thread takes at a time

struct Given {  // [T, heads, D]
    void* data;
    int64_t token, head;

    template <class T> T* at(int64_t t, int64_t h) const {
        return static_cast<T*>(data) + t * token + h * head;
    }
};

template <class Kept, class F>
void put(const Shape& shape, Kept* pages, int64_t slot, int64_t head, const float* row, int64_t size,
         const F& place) {
    const int64_t page = slot / shape.page_tokens, offset = slot % shape.page_tokens;
    for (int64_t d = 0; d < size; d++) pages[place(page, head, d, offset)] = rounded<Kept>(row[d]);
}

// A token's features lie a row apart: their lines are fetched while its query heads are turned.
template <class Kept> void fetch(const Shape& shape, const Kept* k_pages, int64_t slot) {
    const int64_t page = slot / shape.page_tokens, offset = slot % shape.page_tokens;
    for (int64_t h = 0; h < shape.kv_heads; h++) {
        const Kept* first = k_pages + shape.key_place(page, h, 0, offset);
        const int64_t row = shape.page_tokens * shape.together();
        for (int64_t d = 0; d < shape.key_rows(); d++) __builtin_prefetch(first + d * row, 1);
    }
}

template <class T, class Kept>
void write_tokens(const Shape& shape, const Heads& heads, int64_t tokens, Given q, Given k, Given v,
                  const int64_t* slots, Kept* k_pages, Kept* v_pages) {
    const auto key = [&](auto... at) { return shape.key_place(at...); };
    const auto value = [&](auto... at) { return shape.value_place(at...); };
    parallel(tokens, TOKENS, [&](int64_t begin, int64_t end, int) {
        float row[MOST_HEAD_DIM];
        for (int64_t t = begin; t < end; t++) {
            fetch(shape, k_pages, slots[t]);
            for (int64_t h = 0; q.data && h < shape.q_heads; h++) {
                heads.turn(q.at<T>(t, h), heads.q_weight, t, row);
                narrow(row, q.at<T>(t, h), shape.key_dim);
            }
            for (int64_t h = 0; h < shape.kv_heads; h++) {
                heads.turn(k.at<T>(t, h), heads.k_weight, t, row);
                put(shape, k_pages, slots[t], h, row, shape.key_dim, key);
                widen(v.at<T>(t, h), row, shape.value_dim);
                put(shape, v_pages, slots[t], h, row, shape.value_dim, value);
            }
        }
    });
}

template <class T, class... More> void by_kept(const Shape& shape, void* k_pages, void* v_pages, More... more) {
    const auto write = [&]<class Kept>(Kept) {
        write_tokens<T>(shape, more..., static_cast<Kept*>(k_pages), static_cast<Kept*>(v_pages));
    };
    if (shape.kept == FLOAT32) write(float{});
    else if (shape.kept == BFLOAT16) write(bf16{});
    else if (shape.kept == FLOAT16) write(f16{});
    else write(e4m3{});
}

// q null: there is nothing to rotate. Weights null: no norm; float32 if wide_weight, else as q and k.
void write_kv(const Shape* shape, int64_t tokens, void* q, int64_t q_token, int64_t q_head, void* k,
              int64_t k_token, int64_t k_head, void* v, int64_t v_token, int64_t v_head,
              const int64_t* slots, void* k_pages, void* v_pages, const int64_t* positions,
              const float* cos_sin, int64_t rotary, int64_t interleaved, const void* q_weight,
              const void* k_weight, int64_t wide_weight, double eps) {
    const Heads heads{shape->key_dim, positions, cos_sin, rotary, interleaved != 0, q_weight, k_weight,
                      wide_weight != 0, static_cast<float>(eps)};
    const Given own_q{q, q_token, q_head}, own_k{k, k_token, k_head}, own_v{v, v_token, v_head};
    const auto write = [&]<class T>(T) {
        by_kept<T>(*shape, k_pages, v_pages, heads, tokens, own_q, own_k, own_v, slots);
    };
    if (shape->given == FLOAT32) write(float{});
    else if (shape->given == BFLOAT16) write(bf16{});
    else write(f16{});
}

}  // namespace
}  // namespace inarch

INARCH_EXPORT(write_kv, inarch::write_kv)
