// Where processes that share memory wait for each other: spinning for a moment, then asleep. One that
// has died, or left, is told of instead of being waited for.
#include <immintrin.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <climits>

#include "abi.h"

namespace inarch {
namespace {

constexpr int SPINS = 4000;
constexpr long LOOK_NS = 50'000'000;  // between two looks whether who is waited for still lives

struct alignas(64) Seat {  // of a rank, in the shared memory
    std::atomic<uint32_t> meetings;
    std::atomic<uint32_t> left;
};
static_assert(sizeof(Seat) == 64);

bool ended(int process) {
    pollfd asked{process, POLLIN, 0};
    return process >= 0 && poll(&asked, 1, 0) == 1;
}

// 0, or 1 if the process ended or left, or 2 if it is late.
int64_t await(Seat& seat, uint32_t meeting, int process, std::chrono::steady_clock::time_point until) {
    for (int spins = 0; spins < SPINS; spins++) {
        if (static_cast<int32_t>(seat.meetings.load(std::memory_order_acquire) - meeting) >= 0) return 0;
        _mm_pause();
    }
    for (;;) {
        const uint32_t now = seat.meetings.load(std::memory_order_acquire);
        if (static_cast<int32_t>(now - meeting) >= 0) return 0;
        if (seat.left.load() || ended(process)) {
            // It may have come just before.
            return static_cast<int32_t>(seat.meetings.load() - meeting) >= 0 ? 0 : 1;
        }
        if (std::chrono::steady_clock::now() > until) return 2;
        const timespec look{0, LOOK_NS};
        syscall(SYS_futex, &seat.meetings, FUTEX_WAIT, now, &look, nullptr, 0);
    }
}

// processes [size]: descriptors (pidfd) of the other ranks; found[0]: as `await`; found[1]: of which rank
void meet(Seat* seats, int64_t rank, int64_t size, const int32_t* processes, int64_t seconds, int64_t* found) {
    const uint32_t meeting = seats[rank].meetings.fetch_add(1, std::memory_order_acq_rel) + 1;
    syscall(SYS_futex, &seats[rank].meetings, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    for (int64_t other = 0; other < size; other++) {
        if (other == rank) continue;
        found[0] = await(seats[other], meeting, processes[other], until);
        found[1] = other;
        if (found[0]) return;
    }
}

void leave(Seat* seats, int64_t rank) {
    seats[rank].left.store(1);
    syscall(SYS_futex, &seats[rank].meetings, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace
}  // namespace inarch

INARCH_EXPORT(meet, inarch::meet)
INARCH_EXPORT(leave, inarch::leave)
