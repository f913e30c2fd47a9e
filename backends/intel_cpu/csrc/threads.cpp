// A small pool: workers wait for the next region of work by spinning for a moment, then sleep.
//
// A token takes hundreds of regions, some microseconds apart: sleeping between them would cost more
// than the work, and spinning for good would take the core from whoever else has work. Nobody waits
// for a worker that has not come: each thread begins with its own share and goes on with the shares
// of others, so that a worker that the system keeps from running leaves its share to the rest.
#include "threads.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "abi.h"

namespace inarch {
namespace {

constexpr auto SPIN = std::chrono::microseconds(60);  // measured: longer than Python takes between two kernels
constexpr int LINE = 64;

struct alignas(LINE) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
};

struct Pool {
    explicit Pool(int count) : shares(count) {
        try {
            for (int n = 1; n < count; n++) std::thread([this, n] { work(n); }).detach();
        } catch (const std::exception&) {
            // The system gives no more threads, or no memory for one. Those that are here also take the
            // shares of the others; and they run in this pool, which must stay.
        }
    }

    void run(int64_t count, int64_t step, Body call, const void* with) {
        body = call, context = with, grain = step;
        const int64_t blocks = (count + step - 1) / step, size = static_cast<int64_t>(shares.size());
        for (int64_t n = 0; n < size; n++) {
            shares[n].next.store(std::min(count, blocks * n / size * step), std::memory_order_relaxed);
            shares[n].end = std::min(count, blocks * (n + 1) / size * step);
        }
        failed.store(false, std::memory_order_relaxed);
        open.store(true);
        region.fetch_add(1);
        region.notify_all();  // a system call only if somebody sleeps
        take_all(0);
        open.store(false);  // before the count of those inside is read: see `work`
        for (int spins = 0; inside.load() != 0; spins++) {
            if (spins < 4000) _mm_pause();
            else sched_yield();
        }
        if (failed.load(std::memory_order_relaxed)) throw std::bad_alloc();
    }

    // An exception must not leave a thread: what it says is thrown again where the region began.
    void take_all(int first) {
        try {
            take_shares(first);
        } catch (const std::bad_alloc&) {
            failed.store(true, std::memory_order_relaxed);
        }
    }

    void take_shares(int first) {
        const int size = static_cast<int>(shares.size());
        for (int n = 0; n < size; n++) {
            Share& share = shares[(first + n) % size];
            for (;;) {
                const int64_t begin = share.next.fetch_add(grain, std::memory_order_relaxed);
                if (begin >= share.end) break;
                body(context, begin, std::min(begin + grain, share.end), first);
            }
        }
    }

    void work(int number) {
        inside_region = true;
        uint32_t seen = 0;
        for (;;) {
            seen = next_region(seen);
            inside.fetch_add(1);
            if (open.load()) take_all(number);  // else the region was over before we came
            inside.fetch_sub(1);
        }
    }

    uint32_t next_region(uint32_t seen) {
        const auto until = std::chrono::steady_clock::now() + SPIN;
        while (std::chrono::steady_clock::now() < until) {
            for (int n = 0; n < 32; n++) {
                const uint32_t now = region.load(std::memory_order_acquire);
                if (now != seen) return now;
                _mm_pause();
            }
        }
        region.wait(seen);
        return region.load(std::memory_order_acquire);
    }

    static thread_local bool inside_region;

    std::vector<Share> shares;
    Body body = nullptr;
    const void* context = nullptr;
    int64_t grain = 1;
    alignas(LINE) std::atomic<uint32_t> region{0};
    alignas(LINE) std::atomic<bool> open{false};
    alignas(LINE) std::atomic<int> inside{0};
    std::atomic<bool> failed{false};
};

thread_local bool Pool::inside_region = false;

std::mutex one_region;  // of two threads that come at once, the second works alone
Pool* pool = nullptr;   // never freed: its workers run until the process ends
int wanted = 1;

struct Inside {
    Inside() { Pool::inside_region = true; }
    ~Inside() { Pool::inside_region = false; }
};

void forget_pool_in_child() {  // a fork copies no threads
    pool = nullptr;
    new (&one_region) std::mutex;
}

void set_threads(int64_t count) {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_pool_in_child);
    (void)registered;
    const std::lock_guard<std::mutex> lock(one_region);
    if (count != wanted) pool = nullptr;
    wanted = static_cast<int>(count);
}

}  // namespace

int threads() { return wanted; }

void run_parallel(int64_t count, int64_t grain, Body body, const void* context) {
    std::unique_lock<std::mutex> lock(one_region, std::defer_lock);
    const bool alone = wanted == 1 || count <= grain || Pool::inside_region || !lock.try_lock();
    if (alone) {
        for (int64_t n = 0; n < count; n += grain) body(context, n, std::min(n + grain, count), 0);
        return;
    }
    if (!pool) pool = new Pool(wanted);
    const Inside within;
    pool->run(count, grain, body, context);
}

}  // namespace inarch

INARCH_EXPORT(set_threads, inarch::set_threads)
