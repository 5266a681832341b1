// The weight gradient for AVX2 and FMA.
#include "depthwise/tap_impl.h"

namespace nas_engine {

const TapKernels* tap_kernels_avx2() {
    static constexpr TapKernels kKernels{"avx2", add_taps};
    return &kKernels;
}

}  // namespace nas_engine
