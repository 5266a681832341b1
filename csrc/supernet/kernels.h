// The inner loops of supernet scoring, once for each instruction set, chosen at run time.
#pragma once

#include <cstdint>
#include <string>

#include "supernet/plan.h"

namespace nas_engine {

// Values of one image: value `i` starts at base + offset * slots + slot * size. With one slot it is the arena of an
// image; with as many slots as images every value is an array over the images.
struct Arena {
    float* base;
    int64_t slots;
    int64_t slot;
};

struct Kernels {
    const char* level;
    BlockRule block_rule;
    // Computes `step` for the image in `arena`.
    void (*run_step)(const PathPlan& plan, const PlanStep& step, const float* packed, const Arena& arena);
    // Sum over pixels [padded] of the value, then of squared differences from the image's own mean [padded].
    void (*moments)(const PlanValue& value, const Arena& arena, float* sum, float* squares);
    // Mean over pixels of max(scale x + shift, 0), or of x where scale is null; [padded].
    void (*pooled)(const PlanValue& value, const Arena& arena, const float* scale, const float* shift, float* means);
};

const Kernels* kernels_baseline();
#ifdef NAS_ENGINE_X86
const Kernels* kernels_avx2();
const Kernels* kernels_avx512();
#endif

// The kernels called `level`; empty: the fastest that run here. Throws std::invalid_argument for unknown ones.
const Kernels& kernels_of(const std::string& level);

}  // namespace nas_engine
