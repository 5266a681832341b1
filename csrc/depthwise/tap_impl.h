// Compiled once for each instruction set; everything is in an unnamed namespace, as `vectors_impl.h` explains.
#include "depthwise/tap_kernels.h"
#include "vectors_impl.h"

namespace nas_engine {
namespace {

constexpr int kLanes = 8;

// T taps, half of the channels. Few taps take U outputs at a time, so that no sum waits for the one before.
template <int T, int U>
NAS_ENGINE_NOINLINE void add_half(const TapRows& rows, float* sums) {
    Vector<kLanes> total[U][T] = {};
    const float *inputs = rows.inputs, *upstream = rows.upstream;
    const int64_t step = rows.input_step, whole = rows.width / U * U;
    for (int64_t y = 0; y < rows.rows; ++y, inputs += rows.input_pitch, upstream += rows.width * kTapChannels) {
        const auto add = [&](int64_t x, int u) {
            const Vector<kLanes> slope = load<kLanes>(upstream + x * kTapChannels);
            NAS_ENGINE_UNROLL
            for (int t = 0; t < T; ++t) total[u][t] += slope * load<kLanes>(inputs + x * step + t * kTapChannels);
        };
        for (int64_t x = 0; x < whole; x += U) {
            NAS_ENGINE_UNROLL
            for (int u = 0; u < U; ++u) add(x + u, u);
        }
        for (int64_t x = whole; x < rows.width; ++x) add(x, 0);
    }
    NAS_ENGINE_UNROLL
    for (int t = 0; t < T; ++t) {
        Vector<kLanes> sum = load<kLanes>(sums + t * kTapChannels);
        NAS_ENGINE_UNROLL
        for (int u = 0; u < U; ++u) sum += total[u][t];
        store<kLanes>(sums + t * kTapChannels, sum);
    }
}

template <int T>
void add_taps_of(const TapRows& rows, float* sums) {
    constexpr int kOutputs = T > 4 ? 1 : T > 2 ? 2 : 4;
    TapRows half = rows;
    for (int64_t first = 0; first < kTapChannels; first += kLanes) {
        half.inputs = rows.inputs + first;
        half.upstream = rows.upstream + first;
        add_half<T, kOutputs>(half, sums + first);
    }
}

void add_taps(const TapRows& rows, int64_t taps, float* sums) {
    using AddTaps = void (*)(const TapRows&, float*);
    static constexpr AddTaps kByCount[kMostTaps] = {add_taps_of<1>, add_taps_of<2>, add_taps_of<3>, add_taps_of<4>,
                                                    add_taps_of<5>, add_taps_of<6>, add_taps_of<7>};
    kByCount[taps - 1](rows, sums);
}

}  // namespace
}  // namespace nas_engine
