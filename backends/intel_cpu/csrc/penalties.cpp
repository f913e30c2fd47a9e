// What changes logits before a token is drawn, in place: penalties, masks and biases.
#include "abi.h"
#include "vector.h"
#include "threads.h"

namespace inarch {
namespace {

// See the op: prompt [R, V] bool, counts [R, V] int32.
void penalize(float* logits, int64_t seqs, int64_t vocabulary, int64_t stride, const int64_t* rows,
              const uint8_t* prompt, const int32_t* counts, const float* repetition,
              const float* frequency, const float* presence) {
    parallel(seqs, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t s = begin; s < end; s++) {
            float* row = logits + s * stride;
            const uint8_t* given = prompt + rows[s] * vocabulary;
            const int32_t* made = counts + rows[s] * vocabulary;
            const float factor = repetition[s], each = frequency[s], any = presence[s];
            for (int64_t n = 0; n < vocabulary; n++) {
                const float x = row[n], scaled = x > 0 ? x / factor : x * factor;
                const float seen = given[n] || made[n] > 0 ? scaled : x;
                row[n] = seen - each * static_cast<float>(made[n]) - (made[n] > 0 ? any : 0.0f);
            }
        }
    });
}

void count_tokens(int32_t* counts, int64_t vocabulary, const int64_t* rows, const int64_t* tokens,
                  int64_t seqs) {
    for (int64_t s = 0; s < seqs; s++) counts[rows[s] * vocabulary + tokens[s]]++;
}

void add_bias(float* logits, int64_t stride, const int64_t* rows, const int64_t* tokens,
              const float* values, int64_t count) {
    for (int64_t n = 0; n < count; n++) logits[rows[n] * stride + tokens[n]] += values[n];
}

// bitmask [count, words]: a 0 forbids the token
void apply_token_mask(float* logits, int64_t vocabulary, int64_t stride, const int32_t* bitmask,
                      int64_t words, const int64_t* rows, int64_t count) {
    parallel(count, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t m = begin; m < end; m++) {
            float* row = logits + rows[m] * stride;
            for (int64_t w = 0; w < words; w++) {
                const auto bits = static_cast<uint32_t>(bitmask[m * words + w]);
                if (bits == 0xffffffff) continue;
                const int64_t last = std::min<int64_t>(32, vocabulary - w * 32);
                for (int64_t n = 0; n < last; n++) {
                    if (!(bits >> n & 1)) row[w * 32 + n] = -INFINITE;
                }
            }
        }
    });
}

}  // namespace
}  // namespace inarch

INARCH_EXPORT(penalize, inarch::penalize)
INARCH_EXPORT(count_tokens, inarch::count_tokens)
INARCH_EXPORT(add_bias, inarch::add_bias)
INARCH_EXPORT(apply_token_mask, inarch::apply_token_mask)
