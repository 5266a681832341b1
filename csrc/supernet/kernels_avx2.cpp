// Kernels for AVX2 and FMA: 16 registers of 8 floats, 12 of which hold sums.
namespace nas_engine {
namespace {
constexpr int kAccumulators = 12;
}
}  // namespace nas_engine
#include "supernet/kernels_impl.h"

namespace nas_engine {
namespace {

int64_t block_rule(int64_t padded, int64_t /*width*/) { return padded >= 16 ? 16 : 8; }

void run_view(const StepView& view, int64_t block, Rows rows) {
    int64_t channel = 0;
    for (; channel + block <= view.padded; channel += block) {
        if (block == 16) run_block<8, 2>(view, channel, rows);
        if (block == 8) run_block<8, 1>(view, channel, rows);
    }
    if (channel < view.padded) run_block<8, 1>(view, channel, rows);
}

void run_step(const PathPlan& plan, const PlanStep& step, const PackedPath& packed, const Arena& arena, int64_t first,
              int64_t last) {
    if (step.winograd) {
        const auto multiply = [](int64_t block, auto... rest) {
            block == 16 ? multiply_all<8, 2>(rest...) : multiply_all<8, 1>(rest...);
        };
        return run_winograd(plan, step, packed, arena, first, last, multiply);
    }
    const int64_t most = most_neighbours(static_cast<int>(step.block / 8));
    run_images(plan, step, packed, arena, first, last, most,
               [&](const StepView& view, Rows rows) { run_view(view, step.block, rows); });
}

constexpr Kernels kKernels{"avx2", {block_rule, true}, run_step, moments, pooled};

}  // namespace

const Kernels* kernels_avx2() { return &kKernels; }

}  // namespace nas_engine
