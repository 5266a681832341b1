// Kernels for any processor: the compiler lowers the vectors to what its default target has (SSE2, NEON).
namespace nas_engine {
namespace {
constexpr int kAccumulators = 4;  // vectors of sums that a tile may hold
}
}  // namespace nas_engine
#include "supernet/kernels_impl.h"

namespace nas_engine {
namespace {

int64_t block_rule(int64_t /*padded*/, int64_t /*width*/) { return 8; }

void run_step(const PathPlan& plan, const PlanStep& step, const PackedPath& packed, const Arena& arena, int64_t first,
              int64_t last) {
    if (step.winograd) {
        const auto multiply = [](int64_t /*block*/, auto... rest) { multiply_all<8, 1>(rest...); };
        return run_winograd(plan, step, packed, arena, first, last, multiply);
    }
    run_images(plan, step, packed, arena, first, last, most_neighbours(1), [](const StepView& view, Rows rows) {
        for (int64_t channel = 0; channel < view.padded; channel += 8) run_block<8, 1>(view, channel, rows);
    });
}

constexpr Kernels kKernels{"baseline", {block_rule, true, false}, run_step, moments, pooled};

}  // namespace

const Kernels* kernels_baseline() { return &kKernels; }

}  // namespace nas_engine
