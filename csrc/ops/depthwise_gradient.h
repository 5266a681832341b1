// The gradient of depthwise convolutions by their weights, which PyTorch computes slowly on CPUs.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace nas_engine {

// A batch of feature maps of any memory layout.
struct FeatureMaps {
    const float* pixels;
    std::array<int64_t, 4> strides;  // in floats, of image, channel, row and column
};

// A convolution of each channel by itself, padded by kernel / 2. All sizes are at least 1, `kernel` is odd.
struct DepthwiseConvolution {
    int64_t images, channels, height, width;  // of the inputs
    int64_t kernel, stride;

    int64_t out_height() const { return (height + stride - 1) / stride; }
    int64_t out_width() const { return (width + stride - 1) / stride; }
};

// gradient [channels, kernel, kernel] = sum over images and outputs of upstream times the input that the tap met.
// `upstream` [images, channels, out_height, out_width] is the gradient of the outputs. The result does not depend on
// `threads`. `level` is one of `depthwise_levels`; empty: the last. Throws std::invalid_argument for an unknown one,
// std::bad_alloc where memory is short.
void depthwise_weight_gradient(const DepthwiseConvolution& convolution, const FeatureMaps& inputs,
                               const FeatureMaps& upstream, float* gradient, int64_t threads, const std::string& level);

// Instruction sets that this processor has, from the slowest to the fastest.
std::vector<std::string> depthwise_levels();

}  // namespace nas_engine
