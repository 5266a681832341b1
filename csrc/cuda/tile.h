// One thread computes a tile: kDeviceBlock output channels of up to four neighbours in a row, in registers.
#pragma once

#include "cuda/launch.h"
#include "supernet/device_plan.h"

namespace nas_engine {

constexpr int kTilePixels = 4;
constexpr int kTileChannels = static_cast<int>(kDeviceBlock);

// What a step reads and writes, for one block of threads.
struct StepView {
    const PlanStep* step;
    const PlanTerm* terms;
    const PlanValue* values;
    const float* packed;
    Arena arena;
};

struct TilePlace {
    int slot, channel, y, x;
    int pixels;  // that exist
};

__device__ inline float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }

__device__ inline float clipped(float value, float low, float high) {  // NaN stays
    value = value < low ? low : value;
    return value > high ? high : value;
}

// The part of a window that lies in the source.
__device__ inline int inside(int first, int size, int limit) {
    const int last = first + size < limit ? first + size : limit;
    return last - (first > 0 ? first : 0);
}

// The first taps of a tile: those of neighbour p lie at first + offset[p].
struct Window {
    const float* first;
    int offset[kTilePixels];
    int pitch, padded;  // of the source

    __device__ const float* at(int p, int row, int column) const {
        return first + (offset[p] + row * pitch + column * padded);
    }
};

struct DeviceTile {
    float sums[kTilePixels][kTileChannels];

    __device__ void start(const float* bias) {
        NAS_ENGINE_UNROLLED
        for (int p = 0; p < kTilePixels; ++p) {
            NAS_ENGINE_UNROLLED
            for (int c = 0; c < kTileChannels; ++c) sums[p][c] = bias[c];
        }
    }

    __device__ void multiply_add(int p, float input, const float4& low, const float4& high) {
        sums[p][0] += input * low.x;
        sums[p][1] += input * low.y;
        sums[p][2] += input * low.z;
        sums[p][3] += input * low.w;
        sums[p][4] += input * high.x;
        sums[p][5] += input * high.y;
        sums[p][6] += input * high.z;
        sums[p][7] += input * high.w;
    }

    __device__ void add_products(int p, const float4& input_low, const float4& input_high, const float4& low,
                                 const float4& high) {
        sums[p][0] += input_low.x * low.x;
        sums[p][1] += input_low.y * low.y;
        sums[p][2] += input_low.z * low.z;
        sums[p][3] += input_low.w * low.w;
        sums[p][4] += input_high.x * high.x;
        sums[p][5] += input_high.y * high.y;
        sums[p][6] += input_high.z * high.z;
        sums[p][7] += input_high.w * high.w;
    }

    // Padded channels are zero and have no weights.
    __device__ void add_convolution(const PlanTerm& term, const Window& window, const float* weights) {
        const int kernel = term.kernel, inputs = static_cast<int>(term.inputs);
        NAS_ENGINE_ROLLED
        for (int row = 0; row < kernel; ++row) {
            NAS_ENGINE_ROLLED
            for (int column = 0; column < kernel; ++column) {
                const int tap = row * window.pitch + column * window.padded;
                int input = 0;
                NAS_ENGINE_ROLLED
                for (; input + 4 <= inputs; input += 4, weights += 4 * kTileChannels) {
                    float4 values[kTilePixels];
                    NAS_ENGINE_UNROLLED
                    for (int p = 0; p < kTilePixels; ++p)
                        values[p] = load4(window.first + (window.offset[p] + tap + input));
                    NAS_ENGINE_UNROLLED
                    for (int i = 0; i < 4; ++i) {
                        const float4 low = load4(weights + i * kTileChannels),
                                     high = load4(weights + i * kTileChannels + 4);
                        NAS_ENGINE_UNROLLED
                        for (int p = 0; p < kTilePixels; ++p) {
                            const float4& v = values[p];
                            multiply_add(p, i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w, low, high);
                        }
                    }
                }
                NAS_ENGINE_ROLLED
                for (; input < inputs; ++input, weights += kTileChannels) {
                    const float4 low = load4(weights), high = load4(weights + 4);
                    NAS_ENGINE_UNROLLED
                    for (int p = 0; p < kTilePixels; ++p) {
                        multiply_add(p, window.first[window.offset[p] + tap + input], low, high);
                    }
                }
            }
        }
    }

    __device__ void add_depthwise(const PlanTerm& term, const Window& window, const float* weights) {
        const int kernel = term.kernel;
        NAS_ENGINE_ROLLED
        for (int row = 0; row < kernel; ++row) {
            NAS_ENGINE_ROLLED
            for (int column = 0; column < kernel; ++column, weights += window.padded) {
                const float4 low = load4(weights), high = load4(weights + 4);
                NAS_ENGINE_UNROLLED
                for (int p = 0; p < kTilePixels; ++p) {
                    const float* pixel = window.at(p, row, column);
                    add_products(p, load4(pixel), load4(pixel + 4), low, high);
                }
            }
        }
    }

    __device__ void add_pool(const PlanTerm& term, const PlanValue& source, const TilePlace& place,
                             const Window& window) {
        const int kernel = term.kernel;
        const int rows = inside(place.y * term.stride - term.padding, kernel, static_cast<int>(source.height));
        NAS_ENGINE_UNROLLED
        for (int p = 0; p < kTilePixels; ++p) {
            const int x = place.x + (p < place.pixels ? p : place.pixels - 1);
            const int columns = inside(x * term.stride - term.padding, kernel, static_cast<int>(source.width));
            const float share = 1.0f / static_cast<float>(rows * columns);
            const float4 shares = make_float4(share, share, share, share);
            NAS_ENGINE_ROLLED
            for (int row = 0; row < kernel; ++row) {
                NAS_ENGINE_ROLLED
                for (int column = 0; column < kernel; ++column) {
                    const float* pixel = window.at(p, row, column);
                    add_products(p, load4(pixel), load4(pixel + 4), shares, shares);
                }
            }
        }
    }

    __device__ void add_scaled(const Window& window, const float4& low, const float4& high) {
        NAS_ENGINE_UNROLLED
        for (int p = 0; p < kTilePixels; ++p) {
            const float* pixel = window.at(p, 0, 0);
            add_products(p, load4(pixel), load4(pixel + 4), low, high);
        }
    }

    __device__ void add(const StepView& view, const PlanTerm& term, const TilePlace& place) {
        const PlanValue& source = view.values[term.value];
        Window window;
        window.padded = static_cast<int>(source.padded);
        window.pitch = static_cast<int>(source.pitch());
        window.first = address_of(source, view.arena, place.slot) +
                       (place.y * term.stride - term.padding) * window.pitch +
                       (term.kind == PlanKind::kConvolution ? 0 : place.channel);
        NAS_ENGINE_UNROLLED
        for (int p = 0; p < kTilePixels; ++p) {  // what does not exist is read as its neighbour and never written
            const int x = place.x + (p < place.pixels ? p : place.pixels - 1);
            window.offset[p] = (x * term.stride - term.padding) * window.padded;
        }
        const float* weights = view.packed + term.packed;
        switch (term.kind) {
            case PlanKind::kConvolution:
                add_convolution(term, window, weights + place.channel * (term.kernel * term.kernel * term.inputs));
                break;
            case PlanKind::kDepthwise:
                add_depthwise(term, window, weights + place.channel);
                break;
            case PlanKind::kAveragePool:
                add_pool(term, source, place, window);
                break;
            case PlanKind::kScaled:
                add_scaled(window, load4(weights + place.channel), load4(weights + place.channel + 4));
                break;
            default: {
                const float same = term.kind == PlanKind::kZero ? 0.0f : 1.0f;
                const float4 scale = make_float4(same, same, same, same);
                add_scaled(window, scale, scale);
            }
        }
    }

    __device__ void clip(float low, float high) {
        NAS_ENGINE_UNROLLED
        for (int p = 0; p < kTilePixels; ++p) {
            NAS_ENGINE_UNROLLED
            for (int c = 0; c < kTileChannels; ++c) sums[p][c] = clipped(sums[p][c], low, high);
        }
    }

    __device__ void write(const StepView& view, int64_t value, const TilePlace& place) const {
        const PlanValue& target = view.values[value];
        float* to = address_of(target, view.arena, place.slot) + place.y * target.pitch() + place.x * target.padded +
                    place.channel;
        NAS_ENGINE_UNROLLED
        for (int p = 0; p < kTilePixels; ++p) {
            if (p >= place.pixels) break;
            float4* pixel = reinterpret_cast<float4*>(to + p * target.padded);
            pixel[0] = make_float4(sums[p][0], sums[p][1], sums[p][2], sums[p][3]);
            pixel[1] = make_float4(sums[p][4], sums[p][5], sums[p][6], sums[p][7]);
        }
    }

    __device__ void finish(const StepView& view, const TilePlace& place) {
        const PlanStep& step = *view.step;
        if (step.relu6) clip(0.0f, 6.0f);
        if (step.raw != kNone) write(view, step.raw, place);
        if (step.rectified == kNone) return;
        clip(0.0f, INFINITY);
        write(view, step.rectified, place);
    }
};

// All tiles of a step for `slots` images, shared out over the threads of the block: neighbours in a warp read the
// same weights and successive pixels.
__device__ inline void run_step(const StepView& view, int64_t slots) {
    const PlanStep& step = *view.step;
    const int columns = static_cast<int>((step.width + kTilePixels - 1) / kTilePixels);
    const int width = static_cast<int>(step.width), height = static_cast<int>(step.height);
    const int64_t tiles = step.padded / kTileChannels * slots * height * columns;
    for (int64_t tile = threadIdx.x; tile < tiles; tile += blockDim.x) {
        TilePlace place;
        place.x = static_cast<int>(tile % columns) * kTilePixels;
        place.y = static_cast<int>(tile / columns % height);
        place.slot = static_cast<int>(tile / (columns * height) % slots);
        place.channel = static_cast<int>(tile / (columns * height * slots)) * kTileChannels;
        place.pixels = width - place.x < kTilePixels ? width - place.x : kTilePixels;
        DeviceTile sums;
        sums.start(view.packed + step.bias + place.channel);
        for (int64_t i = 0; i < step.terms; ++i) sums.add(view, view.terms[step.first_term + i], place);
        sums.finish(view, place);
    }
}

}  // namespace nas_engine
