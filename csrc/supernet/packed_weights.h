// Weights of a network in the order in which the kernels read them, packed once for all paths of a call.
#pragma once

#include <cstdint>
#include <vector>

#include "supernet/buffer.h"
#include "supernet/plan.h"

namespace nas_engine {

// What the kernels read beside the activations of one path.
struct PackedPath {
    const float* own;           // biases and scales of the path, at the offsets of its plan
    const float* const* terms;  // weights of each term of the plan; null where it has none
};

class PackedWeights {
  public:
    // Keeps `program`. Packed weights are multiplied by the norms' scales for `statistics`; null: by nothing.
    PackedWeights(const Program& program, const std::vector<NormStatistics>* statistics);

    // Packs on `threads` what the plans need and no plan before them needed.
    void add(const std::vector<PathPlan>& plans, int64_t threads);

    // Of each term of a plan that was added.
    std::vector<const float*> terms_of(const PathPlan& plan) const;

  private:
    struct Wanted {
        const PlanTerm* term;
        const PlanStep* step;
    };
    void fill(const Wanted& wanted);

    const Program& program_;
    const std::vector<NormStatistics>* statistics_;
    std::vector<Buffer> buffers_;  // one for each time that something was added
    std::vector<float*> packed_;   // of each term of the program; null: no plan needed it yet
};

}  // namespace nas_engine
