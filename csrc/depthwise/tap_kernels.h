// The inner loops of the weight gradient, once for each instruction set; `depthwise_gradient.cpp` chooses one.
#pragma once

#include <cstdint>

namespace nas_engine {

constexpr int64_t kTapChannels = 16;  // channels that are computed together: a cache line of each pixel
constexpr int64_t kMostTaps = 7;      // of a row of the kernel that fit into registers

// One image and 16 channels: rows of pixels of 16 floats.
struct TapRows {
    const float* inputs;    // what the first tap meets at the first output
    int64_t input_pitch;    // floats between what neighbouring outputs of a column meet
    int64_t input_step;     // floats between what neighbouring outputs of a row meet
    const float* upstream;  // of the first output
    int64_t rows, width;    // of the outputs, which lie one after the other
};

struct TapKernels {
    const char* level;
    // sums [taps, 16] += upstream times the inputs that each of `taps` neighbouring taps meets, over all outputs.
    void (*add_taps)(const TapRows& rows, int64_t taps, float* sums);
};

const TapKernels* tap_kernels_baseline();
const TapKernels* tap_kernels_avx2();

}  // namespace nas_engine
