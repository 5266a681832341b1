// Shares the iterations of a loop out over threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>

#ifdef _OPENMP
#include <omp.h>
#elif defined(__SANITIZE_THREAD__)  // ThreadSanitizer does not know how OpenMP's threads wait for each other
#include <thread>
#include <vector>
#endif

namespace nas_engine {

// How many threads a loop gets that asks for no number.
inline int64_t default_threads() {
#ifdef _OPENMP
    return omp_get_max_threads();
#elif defined(__SANITIZE_THREAD__)
    return 4;
#else
    return 1;
#endif
}

// Who takes which iterations: each thread a contiguous share, so that it meets the same ones again in the next loop; or
// whoever is free the next one, so that nobody waits for long.
enum class Schedule { kShares, kTurns };

// body(index, thread) for 0..count-1. An exception of a thread is thrown here.
template <Schedule kSchedule = Schedule::kShares, typename Body>
void parallel_for(int64_t count, int64_t threads, const Body& body) {
    std::exception_ptr fault;
    std::atomic_flag has_fault = ATOMIC_FLAG_INIT;
    const auto guarded = [&](int64_t index, int64_t thread) {
        try {
            body(index, thread);
        } catch (...) {
            if (!has_fault.test_and_set()) fault = std::current_exception();
        }
    };
    threads = std::min(threads, count);
#ifdef _OPENMP
    if (threads > 1 && kSchedule == Schedule::kShares) {
#pragma omp parallel for schedule(static) num_threads(static_cast<int>(threads))
        for (int64_t i = 0; i < count; ++i) guarded(i, omp_get_thread_num());
    } else if (threads > 1) {
#pragma omp parallel for schedule(dynamic) num_threads(static_cast<int>(threads))
        for (int64_t i = 0; i < count; ++i) guarded(i, omp_get_thread_num());
    } else
#elif defined(__SANITIZE_THREAD__)
    if (threads > 1) {
        std::vector<std::thread> running;
        std::atomic<int64_t> next{0};
        for (int64_t thread = 0; thread < threads; ++thread) {
            running.emplace_back([&guarded, &next, count, threads, thread] {
                if (kSchedule == Schedule::kTurns) {
                    for (int64_t i = next++; i < count; i = next++) guarded(i, thread);
                    return;
                }
                for (int64_t i = thread * count / threads; i < (thread + 1) * count / threads; ++i) guarded(i, thread);
            });
        }
        for (std::thread& thread : running) thread.join();
    } else
#endif
        for (int64_t i = 0; i < count; ++i) guarded(i, 0);
    if (fault) std::rethrow_exception(fault);
}

}  // namespace nas_engine
