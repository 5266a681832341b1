// Starts a kernel: on the GPU under nvcc, or as plain C++ with one thread for each thread of a block, so that tests
// run every kernel body on machines without a GPU and under sanitizers.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#ifdef __CUDACC__

#include <cuda_runtime.h>

namespace nas_engine {

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, void* stream, Arguments... arguments) {
    kernel<<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(arguments...);
    const cudaError_t status = cudaGetLastError();
    if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

#define NAS_ENGINE_UNROLLED _Pragma("unroll")
#define NAS_ENGINE_ROLLED _Pragma("unroll 1")
#define NAS_ENGINE_SHARED __shared__
#define NAS_ENGINE_LAUNCH_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)

// All threads of the block wait here; what they wrote before is then seen by all of them.
__device__ inline void sync_threads() { __syncthreads(); }

__device__ inline void atomic_min(int64_t* address, int64_t value) {
    static_assert(sizeof(long long) == sizeof(int64_t), "CUDA has atomics for long long");
    atomicMin(reinterpret_cast<long long*>(address), static_cast<long long>(value));
}

}  // namespace nas_engine

#else  // the host shim

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define NAS_ENGINE_UNROLLED
#define NAS_ENGINE_ROLLED
#define NAS_ENGINE_SHARED static  // blocks run one after the other
#define NAS_ENGINE_LAUNCH_BOUNDS(threads, blocks)

struct Dim3 {
    unsigned x, y, z;
};
inline thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace nas_engine {

class BlockBarrier {
  public:
    explicit BlockBarrier(unsigned threads) : threads_(threads) {}

    void wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        const unsigned round = round_;
        if (++waiting_ == threads_) {
            waiting_ = 0;
            ++round_;
            all_here_.notify_all();
        } else {
            all_here_.wait(lock, [&] { return round_ != round; });
        }
    }

  private:
    std::mutex mutex_;
    std::condition_variable all_here_;
    unsigned threads_, waiting_ = 0, round_ = 0;
};
inline thread_local BlockBarrier* block_barrier = nullptr;

inline void sync_threads() { block_barrier->wait(); }

// One set of threads takes the blocks one after the other.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, void* /*stream*/,
            Arguments... arguments) {
    BlockBarrier barrier(threads);
    std::vector<std::thread> running;
    for (unsigned thread = 0; thread < threads; ++thread) {
        running.emplace_back([=, &barrier] {
            block_barrier = &barrier;
            threadIdx = {thread, 0, 0};
            blockDim = {threads, 1, 1};
            gridDim = {blocks, 1, 1};
            for (unsigned block = 0; block < blocks; ++block) {
                blockIdx = {block, 0, 0};
                kernel(arguments...);
                sync_threads();
            }
        });
    }
    for (std::thread& thread : running) thread.join();
}

inline void atomic_min(int64_t* address, int64_t value) {
    int64_t seen = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (value < seen &&
           !__atomic_compare_exchange_n(address, &seen, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

}  // namespace nas_engine

#endif
