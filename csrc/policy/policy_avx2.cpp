// The policy for AVX2 and FMA.
#include "policy/policy_impl.h"

namespace nas_engine {

const PolicyKernels* policy_kernels_avx2() {
    static constexpr PolicyKernels kKernels{"avx2", evaluate, gradient, sample};
    return &kKernels;
}

}  // namespace nas_engine
