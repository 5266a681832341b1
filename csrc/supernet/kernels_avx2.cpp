// Kernels for AVX2 and FMA: 16 registers of 8 floats, 12 of which hold sums.
namespace nas_engine {
namespace {
constexpr int kAccumulators = 12;
}
}  // namespace nas_engine
#include "supernet/kernels_impl.h"

namespace nas_engine {
namespace {

#include "supernet/blocks_avx2_impl.h"

void run_step(const PathPlan& plan, const PlanStep& step, const PackedPath& packed, const Arena& arena, int64_t first,
              int64_t last) {
    if (step.winograd) {
        const auto multiply = [](int64_t block, auto... rest) {
            block == 16 ? multiply_all<8, 2>(rest...) : multiply_all<8, 1>(rest...);
        };
        return run_winograd(plan, step, packed, arena, first, last, multiply);
    }
    run_images(plan, step, packed, arena, first, last, most_images(step.block),
               [&](const StepView& view, Rows rows) { run_view(view, step.block, rows); });
}

constexpr Kernels kKernels{"avx2", {block_rule, true, false}, run_step, moments, pooled};

}  // namespace

const Kernels* kernels_avx2() { return &kKernels; }

}  // namespace nas_engine
