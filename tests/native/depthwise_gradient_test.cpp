// Every instruction set, several threads and any size against sums done one by one.
#include "ops/depthwise_gradient.h"

#include <cmath>
#include <random>
#include <stdexcept>
#include <vector>

#include "check.h"

using nas_engine::DepthwiseConvolution;
using nas_engine::FeatureMaps;

namespace {

std::vector<float> one_by_one(const DepthwiseConvolution& of, const FeatureMaps& inputs, const FeatureMaps& upstream) {
    std::vector<float> gradient;
    const auto at = [](const FeatureMaps& maps, int64_t n, int64_t c, int64_t y, int64_t x) {
        const auto& strides = maps.strides;
        return maps.pixels[n * strides[0] + c * strides[1] + y * strides[2] + x * strides[3]];
    };
    for (int64_t c = 0; c < of.channels; ++c) {
        for (int64_t tap = 0; tap < of.kernel * of.kernel; ++tap) {
            double total = 0;
            for (int64_t n = 0; n < of.images; ++n) {
                for (int64_t y = 0; y < of.out_height(); ++y) {
                    for (int64_t x = 0; x < of.out_width(); ++x) {
                        const int64_t row = y * of.stride + tap / of.kernel - of.kernel / 2;
                        const int64_t column = x * of.stride + tap % of.kernel - of.kernel / 2;
                        const bool inside = row >= 0 && row < of.height && column >= 0 && column < of.width;
                        if (inside) total += double{at(inputs, n, c, row, column)} * at(upstream, n, c, y, x);
                    }
                }
            }
            gradient.push_back(static_cast<float>(total));
        }
    }
    return gradient;
}

void test_a_random_convolution(unsigned seed) {
    std::mt19937 random(seed);
    const auto draw = [&](int64_t low, int64_t high) {
        return std::uniform_int_distribution<int64_t>(low, high)(random);
    };
    const DepthwiseConvolution of{draw(1, 20), draw(1, 35), draw(1, 9), draw(1, 9), 2 * draw(0, 7) + 1, draw(1, 3)};
    const auto floats = [&](int64_t count) {
        std::vector<float> made(static_cast<size_t>(count));
        for (float& value : made) value = std::uniform_real_distribution<float>(-1, 1)(random);
        return made;
    };
    const int64_t in = of.height * of.width, out = of.out_height() * of.out_width();
    const std::vector<float> pixels = floats(of.images * of.channels * in);
    const std::vector<float> slopes = floats(of.images * of.channels * out);
    const FeatureMaps inputs{pixels.data(), {of.channels * in, 1, of.width * of.channels, of.channels}};  // NHWC
    const FeatureMaps upstream{slopes.data(), {of.channels * out, out, of.out_width(), 1}};               // NCHW
    const std::vector<float> wanted = one_by_one(of, inputs, upstream);
    std::vector<float> before;
    for (const std::string& level : nas_engine::depthwise_levels()) {
        for (const int64_t threads : {1, 4}) {
            std::vector<float> got(wanted.size());
            depthwise_weight_gradient(of, inputs, upstream, got.data(), threads, level);
            for (size_t i = 0; i < got.size(); ++i) CHECK(std::fabs(got[i] - wanted[i]) < 1e-3);
            if (threads > 1) CHECK(got == before);
            before = got;
        }
    }
}

void test_an_unknown_level() {
    bool refused = false;
    const float zero = 0;
    float gradient;
    const FeatureMaps maps{&zero, {1, 1, 1, 1}};
    try {
        nas_engine::depthwise_weight_gradient({1, 1, 1, 1, 1, 1}, maps, maps, &gradient, 1, "best");
    } catch (const std::invalid_argument&) {
        refused = true;
    }
    CHECK(refused);
}

}  // namespace

int main() {
    for (unsigned seed = 0; seed < 150; ++seed) test_a_random_convolution(seed);
    test_an_unknown_level();
}
