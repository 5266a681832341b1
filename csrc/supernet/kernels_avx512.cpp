// Kernels for AVX-512: 32 registers of 16 floats, 24 of which hold sums.
namespace nas_engine {
namespace {
constexpr int kAccumulators = 24;
}
}  // namespace nas_engine
#include "supernet/kernels_impl.h"

namespace nas_engine {
namespace {

#include "supernet/blocks_avx512_impl.h"

void run_step(const PathPlan& plan, const PlanStep& step, const PackedPath& packed, const Arena& arena, int64_t first,
              int64_t last) {
    if (step.winograd) {
        const auto multiply = [](int64_t block, auto... rest) {
            if (block == 32) return multiply_all<16, 2>(rest...);
            block == 16 ? multiply_all<16, 1>(rest...) : multiply_all<8, 1>(rest...);
        };
        return run_winograd(plan, step, packed, arena, first, last, multiply);
    }
    run_images(plan, step, packed, arena, first, last, most_images(step.block),
               [&](const StepView& view, Rows rows) { run_view(view, step.block, rows); });
}

constexpr Kernels kKernels{"avx512", {block_rule, true, false}, run_step, moments, pooled};

}  // namespace

const Kernels* kernels_avx512() { return &kKernels; }

}  // namespace nas_engine
