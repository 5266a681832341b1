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

__device__ inline void atomic_min(int64_t* address, int64_t value) {
    static_assert(sizeof(long long) == sizeof(int64_t), "CUDA has atomics for long long");
    atomicMin(reinterpret_cast<long long*>(address), static_cast<long long>(value));
}

}  // namespace nas_engine

#else  // the host shim

#include <thread>
#include <vector>

#define __global__
#define __device__

struct Dim3 {
    unsigned x, y, z;
};
inline thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace nas_engine {

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, void* /*stream*/,
            Arguments... arguments) {
    for (unsigned block = 0; block < blocks; ++block) {
        std::vector<std::thread> running;
        for (unsigned thread = 0; thread < threads; ++thread) {
            running.emplace_back([=] {
                threadIdx = {thread, 0, 0};
                blockIdx = {block, 0, 0};
                blockDim = {threads, 1, 1};
                gridDim = {blocks, 1, 1};
                kernel(arguments...);
            });
        }
        for (std::thread& thread : running) thread.join();
    }
}

inline void atomic_min(int64_t* address, int64_t value) {
    int64_t seen = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (value < seen &&
           !__atomic_compare_exchange_n(address, &seen, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

}  // namespace nas_engine

#endif
