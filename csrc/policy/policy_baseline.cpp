// The policy for any processor.
#include "policy/policy_impl.h"

namespace nas_engine {

const PolicyKernels* policy_kernels_baseline() {
    static constexpr PolicyKernels kKernels{"baseline", evaluate, gradient, sample};
    return &kKernels;
}

}  // namespace nas_engine
