// Prices many architectures on the GPU, one thread a row.
#include "cuda/launch.h"
#include "ops/cost_estimate.h"

namespace nas_engine {

__global__ void cost_estimate_kernel(PriceList prices, RewardFormula formula, PricedRows rows, int64_t* first_bad) {
    const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; row < rows.rows; row += stride) {
        if (!price(prices, formula, rows, row)) atomic_min(first_bad, row);
    }
}

void cost_estimate_cuda(const PriceList& prices, const RewardFormula& formula, const PricedRows& rows,
                        int64_t* first_bad, void* stream) {
    constexpr int64_t kThreads = 128;
    constexpr int64_t kMaxBlocks = 4096;  // the loop in the kernel takes the rest
    if (rows.rows == 0) return;           // an empty grid is a launch error
    const int64_t blocks = (rows.rows + kThreads - 1) / kThreads;
    launch(cost_estimate_kernel, static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks),
           static_cast<unsigned>(kThreads), stream, prices, formula, rows, first_bad);
}

}  // namespace nas_engine
