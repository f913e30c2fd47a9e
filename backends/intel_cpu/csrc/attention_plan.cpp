// Cut a ragged batch into items of work that threads take one by one: see Work.
//
// Everything that a spec says about who sees whom (causal or not, windows, chunks, drafted trees) is
// worked out here, once a step, as a range of keys for each query token and, for trees, a mask of bytes.
#include <algorithm>
#include <vector>

#include "abi.h"
#include "pages.h"
#include "threads.h"

namespace inarch {
namespace {

constexpr int64_t TILE_ROWS = 48;        // query rows (tokens times heads of a group) of a tile, at most about
constexpr int64_t KEY_COST = 8;          // what reading a key costs, in rows that are computed with it
constexpr int64_t LEAST_COST = 512 * 12;  // of an item that is worth a thread of its own
constexpr int64_t ITEMS_A_THREAD = 4;    // so that they all end at about the same time
constexpr int64_t LEAST_SHARED = 64;     // keys that must be shared to be read by themselves

struct Batch {  // see AttentionBatch
    int64_t seqs;
    const int32_t *q_indptr, *kv_lens, *rows, *table;
    int64_t table_stride;
    const int32_t* parents;  // or null
    const int32_t *shared_seqs, *shared_indptr, *shared_tokens;
    int64_t shared_groups;
};

struct Rules {
    int64_t window, chunk;  // 0: none
    bool causal;
};

struct Tile {
    int32_t members, tokens, pages;
    int32_t begin, end;
    int64_t seq;  // -1: of several
};

struct Planner {
    const Batch& batch;
    const Rules rules;
    const int64_t page_tokens, group, kv_heads;
    const int64_t tile_tokens = std::max<int64_t>(1, TILE_ROWS / group);

    std::vector<Tile> tiles;
    std::vector<Item> items;
    std::vector<Sees> sees;
    std::vector<int64_t> slots_of_tokens;
    std::vector<int32_t> members, pages, pages_at;
    std::vector<Merge> merges;
    std::vector<Part> parts;
    std::vector<uint8_t> masks;
    int64_t slots = 0;

    void run() {
        std::vector<int32_t> done(batch.seqs, 0);  // keys that a shared tile has seen to
        for (int64_t s = 0; s < batch.seqs; s++) list_pages(s);
        share(done);
        for (int64_t s = 0; s < batch.seqs; s++) add_sequence(s, done[s]);
        std::vector<std::vector<Part>> found(batch.q_indptr[batch.seqs]);
        cut(done, found);
        for (size_t t = 0; t < found.size(); t++) {
            if (found[t].empty()) continue;
            merges.push_back({static_cast<int32_t>(t), static_cast<int32_t>(parts.size()),
                              static_cast<int32_t>(found[t].size()), 0});
            parts.insert(parts.end(), found[t].begin(), found[t].end());
        }
    }

    int64_t queries(int64_t s) const { return batch.q_indptr[s + 1] - batch.q_indptr[s]; }

    void list_pages(int64_t s) {
        pages_at.push_back(static_cast<int32_t>(pages.size()));
        if (queries(s) == 0) return;
        const int32_t* row = batch.table + batch.rows[s] * batch.table_stride;
        pages.insert(pages.end(), row, row + (batch.kv_lens[s] + page_tokens - 1) / page_tokens);
        const int64_t first = batch.kv_lens[s] - queries(s);
        for (int64_t at = first; at < batch.kv_lens[s]; at++) {
            slots_of_tokens.push_back(row[at / page_tokens] * page_tokens + at % page_tokens);
        }
    }

    // Tiles of the sequences of each group, over what they share.
    void share(std::vector<int32_t>& done) {
        if (rules.window || rules.chunk || batch.parents) return;
        for (int64_t g = 0; g < batch.shared_groups; g++) {
            const int32_t keys = batch.shared_tokens[g] / page_tokens * page_tokens;
            if (keys < LEAST_SHARED) continue;
            const int32_t begin = batch.shared_indptr[g], end = batch.shared_indptr[g + 1];
            for (int32_t m = begin; m < end; m += tile_tokens) {
                const int32_t count = std::min<int32_t>(tile_tokens, end - m);
                tiles.push_back({static_cast<int32_t>(members.size()), count,
                                 pages_at[batch.shared_seqs[m]], 0, keys, -1});
                for (int32_t n = m; n < m + count; n++) {
                    members.push_back(batch.q_indptr[batch.shared_seqs[n]]);
                    done[batch.shared_seqs[n]] = keys;
                }
            }
        }
    }

    void add_sequence(int64_t s, int32_t done) {
        const int64_t count = queries(s), first = batch.q_indptr[s];
        if (count == 0) return;
        if (drafted(s)) see_tree(s);
        else see_chain(s);
        for (int64_t t = 0; t < count; t += tile_tokens) {
            const int64_t tokens = std::min(tile_tokens, count - t);
            int32_t begin = batch.kv_lens[s], end = 0;
            const int32_t at = static_cast<int32_t>(members.size());
            for (int64_t n = first + t; n < first + t + tokens; n++) {
                members.push_back(static_cast<int32_t>(n));
                begin = std::min(begin, sees[n].begin);
                end = std::max(end, sees[n].end);
            }
            begin = std::max<int32_t>(begin / page_tokens * page_tokens, done);
            const auto page = static_cast<int32_t>(pages_at[s] + begin / page_tokens);
            tiles.push_back({at, static_cast<int32_t>(tokens), page, begin, end, s});
        }
    }

    // ---- what is seen ----

    bool drafted(int64_t s) const {
        if (!batch.parents) return false;
        for (int64_t n = 0; n < queries(s); n++) {
            if (batch.parents[batch.q_indptr[s] + n] != n - 1) return true;
        }
        return false;
    }

    int64_t first_seen(int64_t place) const {
        if (rules.window) return std::max<int64_t>(0, place - rules.window + 1);
        return rules.chunk ? place / rules.chunk * rules.chunk : 0;
    }

    void see_chain(int64_t s) {
        const int64_t length = batch.kv_lens[s];
        for (int64_t place = length - queries(s); place < length; place++) {
            int64_t begin = first_seen(place), end = place + 1;
            if (rules.window && rules.chunk) begin = std::max(begin, place / rules.chunk * rules.chunk);
            if (!rules.causal) end = rules.window ? std::min(length, place + rules.window) : length;
            sees.push_back({static_cast<int32_t>(begin), static_cast<int32_t>(end), -1, 0});
        }
    }

    void see_tree(int64_t s) {
        const int64_t count = queries(s), prefix = batch.kv_lens[s] - count;
        const int32_t* parents = batch.parents + batch.q_indptr[s];
        std::vector<int64_t> depth(count);
        for (int64_t n = 0; n < count; n++) {
            // A parent may come behind its child: walk up instead of building on what is known.
            for (int64_t up = parents[n]; up >= 0; up = parents[up]) depth[n]++;
        }
        for (int64_t n = 0; n < count; n++) {
            const int64_t place = prefix + depth[n];
            int64_t begin = first_seen(place);
            if (rules.window && rules.chunk) begin = std::max(begin, place / rules.chunk * rules.chunk);
            sees.push_back({static_cast<int32_t>(std::min(begin, prefix)),
                            static_cast<int32_t>(prefix + count), static_cast<int32_t>(masks.size()),
                            static_cast<int32_t>(prefix)});
            masks.resize(masks.size() + count, 0);
            for (int64_t up = n; up >= 0; up = parents[up]) {
                masks[masks.size() - count + up] = prefix + depth[up] >= begin;
            }
        }
    }

    // ---- items ----

    int64_t cost(const Tile& tile) const {
        return (tile.end - tile.begin) * (KEY_COST + tile.tokens * group);
    }

    // Tiles that would keep a thread longer than the others are cut along their keys.
    void cut(const std::vector<int32_t>& done, std::vector<std::vector<Part>>& found) {
        int64_t total = 0;
        for (const Tile& tile : tiles) total += cost(tile) * kv_heads;
        const int64_t share = total / (threads() * ITEMS_A_THREAD) + 1;
        const int64_t most = threads() == 1 ? total + 1 : std::max(share, LEAST_COST);
        for (const Tile& tile : tiles) {
            const int64_t key = KEY_COST + tile.tokens * group;
            const int64_t keys = tile.end - tile.begin, pieces = (keys * key + most - 1) / most;
            const int64_t piece = (keys / std::max<int64_t>(pieces, 1) + page_tokens) / page_tokens * page_tokens;
            const bool whole = keys <= piece && tile.seq >= 0 && done[tile.seq] == 0;
            for (int64_t begin = tile.begin; begin < tile.end; begin += piece) {
                const int64_t skipped = (begin - tile.begin) / page_tokens;
                items.push_back({tile.members, tile.tokens, static_cast<int32_t>(tile.pages + skipped),
                                 static_cast<int32_t>(begin),
                                 static_cast<int32_t>(std::min<int64_t>(begin + piece, tile.end)),
                                 whole ? -1 : static_cast<int32_t>(slots)});
                if (whole) continue;
                for (int32_t n = 0; n < tile.tokens; n++) {
                    found[members[tile.members + n]].push_back({static_cast<int32_t>(slots), n});
                }
                slots++;
            }
        }
        std::stable_sort(items.begin(), items.end(), [&](const Item& a, const Item& b) {
            return (a.end - a.begin) * (KEY_COST + a.tokens * group) >
                   (b.end - b.begin) * (KEY_COST + b.tokens * group);
        });
    }
};

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

template <class T> int64_t put(Work* work, int64_t at, const std::vector<T>& values, bool fits) {
    if (fits && !values.empty()) std::memcpy(work->at<T>(at), values.data(), values.size() * sizeof(T));
    return at + aligned(static_cast<int64_t>(values.size() * sizeof(T)));
}

// needed: the bytes that the work takes; it is written if they are no more than `room`.
void plan_attention(int64_t seqs, const int32_t* q_indptr, const int32_t* kv_lens, const int32_t* rows,
                    const int32_t* table, int64_t table_stride, const int32_t* parents,
                    const int32_t* shared_seqs, const int32_t* shared_indptr,
                    const int32_t* shared_tokens, int64_t shared_groups, int64_t window, int64_t chunk,
                    int64_t causal, int64_t page_tokens, int64_t group, int64_t kv_heads, void* room,
                    int64_t size, int64_t* needed) {
    const Batch batch{seqs,    q_indptr,    kv_lens,       rows,          table,        table_stride,
                      parents, shared_seqs, shared_indptr, shared_tokens, shared_groups};
    Planner planner{batch, {window, chunk, causal != 0}, page_tokens, group, kv_heads};
    planner.run();
    Work header{};
    header.items = static_cast<int64_t>(planner.items.size());
    header.tokens = static_cast<int64_t>(planner.sees.size());
    header.merges = static_cast<int64_t>(planner.merges.size());
    header.slots = planner.slots;
    header.tile_tokens = planner.tile_tokens;
    auto* work = static_cast<Work*>(room);
    for (const bool fits : {false, true}) {
        int64_t at = aligned(sizeof(Work));
        at = put(work, header.item_at = at, planner.items, fits);
        at = put(work, header.sees_at = at, planner.sees, fits);
        at = put(work, header.slot_at = at, planner.slots_of_tokens, fits);
        at = put(work, header.member_at = at, planner.members, fits);
        at = put(work, header.page_at = at, planner.pages, fits);
        at = put(work, header.merge_at = at, planner.merges, fits);
        at = put(work, header.part_at = at, planner.parts, fits);
        at = put(work, header.mask_at = at, planner.masks, fits);
        *needed = at;
        if (at > size) return;
    }
    *work = header;
}

}  // namespace
}  // namespace inarch

INARCH_EXPORT(plan_attention, inarch::plan_attention)
