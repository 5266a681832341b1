// Shares the weight gradient out over blocks of channels and chunks of images. A task copies the block of one image
// after the other, with a border of zeros, to where the inner loops find all of it side by side.
#include "ops/depthwise_gradient.h"

#include <algorithm>

#include "depthwise/tap_kernels.h"
#include "levels.h"
#include "parallel.h"
#include "supernet/buffer.h"

namespace nas_engine {
namespace {

std::vector<const TapKernels*> usable() {
    std::vector<const TapKernels*> found{tap_kernels_baseline()};
#ifdef NAS_ENGINE_AVX2
    if (has_avx2()) found.push_back(tap_kernels_avx2());
#endif
    return found;
}

const TapKernels& kernels(const std::string& level) {
    static const std::vector<const TapKernels*> all = usable();
    return level.empty() ? *all.back() : kernels_named(all, level);
}

// Copies 16 channels from `first` on (zeros where there are fewer) of a map [height, width] to `to`, whose rows start
// `pitch` floats apart.
void copy_block(const FeatureMaps& maps, int64_t image, int64_t first, int64_t channels, int64_t height, int64_t width,
                float* to, int64_t pitch) {
    const auto& strides = maps.strides;
    const float* from = maps.pixels + image * strides[0] + first * strides[1];
    const int64_t real = std::min(kTapChannels, channels - first);
    const bool is_line = strides[1] == 1 && real == kTapChannels;
    for (int64_t y = 0; y < height; ++y) {
        for (int64_t x = 0; x < width; ++x) {
            const float* pixel = from + y * strides[2] + x * strides[3];
            float* place = to + y * pitch + x * kTapChannels;
            if (is_line) {
                std::copy(pixel, pixel + kTapChannels, place);
                continue;
            }
            for (int64_t c = 0; c < real; ++c) place[c] = pixel[c * strides[1]];
            std::fill(place + real, place + kTapChannels, 0.0f);
        }
    }
}

// Outputs first..last-1 of 0..count-1: those whose tap `tap` meets an input, not the border.
struct Inside {
    int64_t first, last;

    Inside(int64_t tap, int64_t padding, int64_t stride, int64_t size, int64_t count)
        : first(std::min(count, (std::max<int64_t>(padding - tap, 0) + stride - 1) / stride)),
          last(std::clamp(size + padding > tap ? (size - 1 + padding - tap) / stride + 1 : 0, first, count)) {}
};

class WeightGradient {
  public:
    WeightGradient(const DepthwiseConvolution& convolution, const FeatureMaps& inputs, const FeatureMaps& upstream,
                   const TapKernels& kernels)
        : of_(convolution),
          inputs_(inputs),
          upstream_(upstream),
          kernels_(kernels),
          padding_(convolution.kernel / 2),
          pitch_((convolution.width + 2 * padding_) * kTapChannels),
          map_size_((convolution.height + 2 * padding_) * pitch_),
          block_size_(convolution.kernel * convolution.kernel * kTapChannels) {}

    void compute(float* gradient, int64_t threads) {
        constexpr int64_t kImages = 16;  // of a chunk, whatever the threads: sums are always added up in one order
        const int64_t blocks = (of_.channels + kTapChannels - 1) / kTapChannels;
        const int64_t chunks = (of_.images + kImages - 1) / kImages;
        const int64_t outputs = of_.out_height() * of_.out_width() * kTapChannels;
        std::vector<Buffer> workspaces(static_cast<size_t>(threads));
        Buffer partial;
        float* const sums = partial.zeroed(chunks * blocks * block_size_);
        parallel_for<Schedule::kTurns>(chunks * blocks, threads, [&](int64_t task, int64_t thread) {
            float* const map = workspaces[static_cast<size_t>(thread)].zeroed(map_size_ + outputs);
            const int64_t first = task / blocks * kImages, last = std::min(first + kImages, of_.images);
            for (int64_t image = first; image < last; ++image) {
                add_image(image, task % blocks * kTapChannels, map, map + map_size_, sums + task * block_size_);
            }
        });
        add_up(sums, chunks, blocks, gradient);
    }

  private:
    void add_image(int64_t image, int64_t channel, float* map, float* outputs, float* sums) const {
        float* const inside = map + padding_ * (pitch_ + kTapChannels);
        copy_block(inputs_, image, channel, of_.channels, of_.height, of_.width, inside, pitch_);
        const int64_t out_pitch = of_.out_width() * kTapChannels;
        copy_block(upstream_, image, channel, of_.channels, of_.out_height(), of_.out_width(), outputs, out_pitch);
        for (int64_t row = 0; row < of_.kernel; ++row) {
            const Inside rows(row, padding_, of_.stride, of_.height, of_.out_height());
            if (rows.first == rows.last) continue;
            for (int64_t column = 0; column < of_.kernel; column += kMostTaps) {
                const int64_t taps = std::min(kMostTaps, of_.kernel - column);
                const TapRows part{map + (rows.first * of_.stride + row) * pitch_ + column * kTapChannels,
                                   of_.stride * pitch_,
                                   of_.stride * kTapChannels,
                                   outputs + rows.first * out_pitch,
                                   rows.last - rows.first,
                                   of_.out_width()};
                kernels_.add_taps(part, taps, sums + (row * of_.kernel + column) * kTapChannels);
            }
        }
    }

    void add_up(const float* sums, int64_t chunks, int64_t blocks, float* gradient) const {
        const int64_t taps = of_.kernel * of_.kernel;
        for (int64_t c = 0; c < of_.channels; ++c) {
            const float* own = sums + c / kTapChannels * block_size_ + c % kTapChannels;
            for (int64_t tap = 0; tap < taps; ++tap) {
                float total = 0;
                for (int64_t chunk = 0; chunk < chunks; ++chunk) {
                    total += own[chunk * blocks * block_size_ + tap * kTapChannels];
                }
                gradient[c * taps + tap] = total;
            }
        }
    }

    const DepthwiseConvolution of_;
    const FeatureMaps inputs_, upstream_;
    const TapKernels& kernels_;
    const int64_t padding_, pitch_, map_size_, block_size_;
};

}  // namespace

std::vector<std::string> depthwise_levels() { return names_of(usable()); }

void depthwise_weight_gradient(const DepthwiseConvolution& convolution, const FeatureMaps& inputs,
                               const FeatureMaps& upstream, float* gradient, int64_t threads,
                               const std::string& level) {
    WeightGradient(convolution, inputs, upstream, kernels(level)).compute(gradient, threads);
}

}  // namespace nas_engine
