// The ops `rope` and `qk_norm_rope` where attention does not do them on its way: in place.
#include "abi.h"
#include "heads.h"
#include "threads.h"

namespace inarch {
namespace {

constexpr int64_t TOKENS = 4;  // that a thread takes at a time

template <class T>
void turn_heads(const Heads& heads, const void* weight, T* x, int64_t tokens, int64_t count, int64_t token,
                int64_t head) {
    parallel(tokens, TOKENS, [&](int64_t begin, int64_t end, int) {
        float row[MOST_HEAD_DIM];
        for (int64_t t = begin; t < end; t++) {
            for (int64_t h = 0; h < count; h++) {
                T* own = x + t * token + h * head;
                heads.turn(own, weight, t, row);
                narrow(row, own, heads.dim);
            }
        }
    });
}

// x [tokens, count, dim] with any strides of tokens and heads; weight null: no norm
void rope(void* x, int64_t tokens, int64_t count, int64_t dim, int64_t token, int64_t head,
          int64_t format, const int64_t* positions, const float* cos_sin, int64_t rotary,
          int64_t interleaved, const void* weight, int64_t wide_weight, double eps) {
    const Heads heads{dim, positions, cos_sin, rotary, interleaved != 0, weight, weight,
                      wide_weight != 0, static_cast<float>(eps)};
    const auto run = [&]<class T>(T) {
        turn_heads(heads, weight, static_cast<T*>(x), tokens, count, token, head);
    };
    if (format == FLOAT32) run(float{});
    else if (format == BFLOAT16) run(bf16{});
    else run(f16{});
}

}  // namespace
}  // namespace inarch

INARCH_EXPORT(rope, inarch::rope)
