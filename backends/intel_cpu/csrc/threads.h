// Threads that share the work of a kernel: `parallel(count, grain, body)`.
#pragma once
#include <cstdint>
#include <type_traits>

namespace inarch {

using Body = void (*)(const void* context, int64_t begin, int64_t end, int thread);

// Calls body for ranges that cover 0..count once, each of at most `grain` items, from up to
// `threads()` threads; returns when all are done. What a thread does inside one runs alone. Throws
// std::bad_alloc if any of them did; then some ranges may not have been done.
void run_parallel(int64_t count, int64_t grain, Body body, const void* context);

int threads();

// body(begin, end, thread), where 0 <= thread < threads()
template <class F> void parallel(int64_t count, int64_t grain, const F& body) {
    run_parallel(
        count, grain,
        [](const void* context, int64_t begin, int64_t end, int thread) {
            (*static_cast<const F*>(context))(begin, end, thread);
        },
        &body);
}

}  // namespace inarch
