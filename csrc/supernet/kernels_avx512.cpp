// Kernels for AVX-512: 32 registers of 16 floats, 24 of which hold sums.
namespace nas_engine {
namespace {
constexpr int kAccumulators = 24;
}
}  // namespace nas_engine
#include "supernet/kernels_impl.h"

namespace nas_engine {
namespace {

int64_t block_rule(int64_t padded, int64_t width) {
    if (padded % 32 == 0 && width <= 12) return 32;
    return padded >= 16 ? 16 : 8;
}

void run_step(const PathPlan& plan, const PlanStep& step, const float* packed, const Arena& arena) {
    const StepView view = view_of(plan, step, packed, arena);
    int64_t channel = 0;
    for (; channel + step.block <= step.padded; channel += step.block) {
        if (step.block == 32) run_blocks<16, 2>(view, channel);
        if (step.block == 16) run_blocks<16, 1>(view, channel);
        if (step.block == 8) run_blocks<8, 1>(view, channel);
    }
    if (channel < step.padded) run_blocks<8, 1>(view, channel);
}

constexpr Kernels kKernels{"avx512", block_rule, run_step, moments, pooled};

}  // namespace

const Kernels* kernels_avx512() { return &kKernels; }

}  // namespace nas_engine
