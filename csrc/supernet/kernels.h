// The inner loops of supernet scoring, once for each instruction set, chosen at run time.
#pragma once

#include <cstdint>
#include <string>

#include "supernet/packed_weights.h"
#include "supernet/plan.h"

namespace nas_engine {

struct Kernels {
    const char* level;
    KernelRules rules;
    // Computes `step` for the images in slots first..last-1.
    void (*run_step)(const PathPlan& plan, const PlanStep& step, const PackedPath& packed, const Arena& arena,
                     int64_t first, int64_t last);
    // Sum over pixels [padded] of the value, then of squared differences from the image's own mean [padded].
    void (*moments)(const PlanValue& value, const Arena& arena, int64_t slot, float* sum, float* squares);
    // Mean over pixels of max(scale x + shift, 0), or of x where scale is null; [padded].
    void (*pooled)(const PlanValue& value, const Arena& arena, int64_t slot, const float* scale, const float* shift,
                   float* means);
};

const Kernels* kernels_baseline();
#ifdef NAS_ENGINE_AVX2
const Kernels* kernels_avx2();
#endif
#ifdef NAS_ENGINE_AVX512
const Kernels* kernels_avx512();
#endif

// Convolutions on numbers of bfloat16, sums and everything else in float32.
#ifdef NAS_ENGINE_AVX2
const Kernels* kernels_bf16_avx2();
#endif
#ifdef NAS_ENGINE_AMX
const Kernels* kernels_bf16_amx();
#endif

// The kernels called `level`; empty: the fastest that run here in float32. Throws std::invalid_argument for unknown
// ones.
const Kernels& kernels_of(const std::string& level);

}  // namespace nas_engine
