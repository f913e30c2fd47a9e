// How a layer's keys and values lie in its pages (see kv.py), and the plan that reads them.
//
// A page of keys has, for each KV head, a row for each feature, of all tokens of the page; a page of
// values has a row for each token, of all features. Pages of bfloat16 have two such rows interleaved.
#pragma once
#include <cstdint>

#include "vector.h"

namespace inarch {

// What a layer's attention is made of: filled by Python (attention.py), the same for all its calls.
struct Shape {
    int64_t q_heads, kv_heads, key_dim, value_dim;
    int64_t page_tokens;
    int64_t value_row;  // value_dim, up to a multiple of 16
    int64_t kept;       // format of the pages
    int64_t given;      // format of q, k, v and of what comes out

    int64_t group() const { return q_heads / kv_heads; }
    int64_t together() const { return kept == BFLOAT16 ? 2 : 1; }
    int64_t key_rows() const { return (key_dim + together() - 1) / together(); }
    int64_t key_page() const { return key_rows() * page_tokens * together(); }  // of one head
    int64_t value_page() const { return page_tokens * value_row; }

    int64_t key_place(int64_t page, int64_t head, int64_t feature, int64_t offset) const {
        const int64_t t = together();
        return (page * kv_heads + head) * key_page() + feature / t * page_tokens * t + offset * t +
               feature % t;
    }
    int64_t value_place(int64_t page, int64_t head, int64_t feature, int64_t offset) const {
        const int64_t t = together();
        return (page * kv_heads + head) * value_page() + offset / t * value_row * t + feature * t +
               offset % t;
    }
};

// One step's work, as `plan_attention` writes it into a single array of 64-bit integers.
//
// A tile is some query tokens that read the same pages; an item is a tile, over all or a part of the
// keys. What an item of a part finds is put aside in a slot, and merged for each query token.
struct Item {
    int32_t members, tokens;  // where its query tokens are in Work::members, and how many
    int32_t pages;            // where its pages are in Work::pages
    int32_t begin, end;       // keys; begin is a page's first
    int32_t slot;             // -1: the item is all there is
};

struct Sees {  // what a query token sees: the keys begin..end but for those that `mask` hides
    int32_t begin, end;
    int32_t mask, from;  // mask: where its bytes are in Work::masks, of the keys from..end; -1: none
};

struct Merge {  // the query token's parts are Work::parts[first..first + count]
    int32_t token, first, count, unused;
};

struct Part {
    int32_t slot, row;  // row: the token's place in the tile
};

struct Work {
    int64_t items, tokens, merges, slots, tile_tokens;  // counts; tile_tokens: the most of a tile
    // where each begins, in bytes behind the struct's own begin
    int64_t item_at, sees_at, slot_at, member_at, page_at, merge_at, part_at, mask_at;

    template <class T> T* at(int64_t place) { return reinterpret_cast<T*>(reinterpret_cast<char*>(this) + place); }
    template <class T> const T* at(int64_t place) const { return const_cast<Work*>(this)->at<T>(place); }
};

}  // namespace inarch
