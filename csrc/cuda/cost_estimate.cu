// Prices many architectures on the GPU, one thread a row.
#include "cuda/launch.h"
#include "ops/cost_estimate.h"

namespace nas_engine {

__global__ void cost_estimate_kernel(CostTable table, const int64_t* genes, int64_t rows, int64_t* costs,
                                     int64_t* first_bad) {
    const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; row < rows; row += stride) {
        if (!price(table, genes + row * table.decisions, costs + row * table.metrics)) atomic_min(first_bad, row);
    }
}

void cost_estimate_cuda(const CostTable& table, const int64_t* genes, int64_t rows, int64_t* costs, int64_t* first_bad,
                        void* stream) {
    constexpr int64_t kThreads = 128;
    constexpr int64_t kMaxBlocks = 4096;  // the loop in the kernel takes the rest
    if (rows == 0) return;                // an empty grid is a launch error
    const int64_t blocks = (rows + kThreads - 1) / kThreads;
    launch(cost_estimate_kernel, static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks),
           static_cast<unsigned>(kThreads), stream, table, genes, rows, costs, first_bad);
}

}  // namespace nas_engine
