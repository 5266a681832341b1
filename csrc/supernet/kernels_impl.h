// The inner loops, written once with GCC/Clang vectors. Each instruction set includes this file and compiles it with
// its own options; everything is in an unnamed namespace, so that no two of them are merged by the linker.
#include "supernet/kernels.h"

namespace nas_engine {
namespace {

#define NAS_ENGINE_INLINE inline __attribute__((always_inline))
#define NAS_ENGINE_UNROLL _Pragma("GCC unroll 16")

template <int L>
struct Lanes;
template <>
struct Lanes<8> {
    typedef float Vector __attribute__((vector_size(32)));
    typedef float Loose __attribute__((vector_size(32), aligned(4), may_alias));
};
template <>
struct Lanes<16> {
    typedef float Vector __attribute__((vector_size(64)));
    typedef float Loose __attribute__((vector_size(64), aligned(4), may_alias));
};

template <int L>
using Vector = typename Lanes<L>::Vector;

template <int L>
NAS_ENGINE_INLINE Vector<L> broadcast(float x) {  // x + Vector{} would add 0 first: an instruction more
    if constexpr (L == 8) return Vector<L>{x, x, x, x, x, x, x, x};
    if constexpr (L == 16) return Vector<L>{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

template <int L>
NAS_ENGINE_INLINE Vector<L> load(const float* from) {
    return *reinterpret_cast<const typename Lanes<L>::Loose*>(from);
}

template <int L>
NAS_ENGINE_INLINE void store(float* to, Vector<L> value) {
    *reinterpret_cast<typename Lanes<L>::Loose*>(to) = value;
}

template <typename V>
NAS_ENGINE_INLINE V at_least(V value, float limit) {
    const V limits = V{} + limit;
    return value < limits ? limits : value;  // NaN stays
}

template <typename V>
NAS_ENGINE_INLINE V at_most(V value, float limit) {
    const V limits = V{} + limit;
    return value > limits ? limits : value;
}

// A source of a term in the arena of one image.
struct Source {
    const float* pixels;  // of pixel (0, 0)
    int64_t pitch;
    int64_t padded;
    int64_t height;
    int64_t width;
};

struct TermView {
    PlanKind kind;
    int64_t kernel, stride, padding, inputs;
    const float* packed;
    Source source;
};

struct Target {
    float* pixels;  // of pixel (0, 0), or null
    int64_t pitch;
};

struct StepView {
    TermView terms[kMaxStepTerms];
    int64_t count;
    const float* bias;
    Target raw, rectified;
    int64_t padded, height, width;
    bool relu6;
};

// V vectors of output channels for P pixels of a row. STEP: floats between the inputs of neighbouring outputs where
// all terms agree on it and the compiler shall know it; 0 else.
template <int L, int V, int P>
struct Tile {
    Vector<L> sums[P][V];

    NAS_ENGINE_INLINE void start(const float* bias) {
        NAS_ENGINE_UNROLL
        for (int p = 0; p < P; ++p) {
            NAS_ENGINE_UNROLL
            for (int v = 0; v < V; ++v) sums[p][v] = load<L>(bias + v * L);
        }
    }

    template <int STEP>
    NAS_ENGINE_INLINE void add_convolution(const TermView& term, int64_t y, int64_t x, int64_t channel) {
        const int64_t step = STEP ? STEP : term.stride * term.source.padded;
        const float* weights = term.packed + channel * term.kernel * term.kernel * term.inputs;
        const float* window = term.source.pixels + (y * term.stride - term.padding) * term.source.pitch +
                              (x * term.stride - term.padding) * term.source.padded;
        for (int64_t row = 0; row < term.kernel; ++row, window += term.source.pitch) {
            const float* pixel = window;
            for (int64_t column = 0; column < term.kernel; ++column, pixel += term.source.padded) {
                _Pragma("GCC unroll 2")
                for (int64_t input = 0; input < term.inputs; ++input, weights += V * L) {
                    Vector<L> weight[V];
                    NAS_ENGINE_UNROLL
                    for (int v = 0; v < V; ++v) weight[v] = load<L>(weights + v * L);
                    NAS_ENGINE_UNROLL
                    for (int p = 0; p < P; ++p) {
                        const Vector<L> value = broadcast<L>(pixel[p * step + input]);
                        NAS_ENGINE_UNROLL
                        for (int v = 0; v < V; ++v) sums[p][v] += value * weight[v];
                    }
                }
            }
        }
    }

    NAS_ENGINE_INLINE void add_depthwise(const TermView& term, int64_t y, int64_t x, int64_t channel,
                                         int64_t padded) {
        const int64_t step = term.stride * term.source.padded;
        const float* weights = term.packed + channel;
        const float* window = term.source.pixels + (y * term.stride - term.padding) * term.source.pitch +
                              (x * term.stride - term.padding) * term.source.padded + channel;
        for (int64_t row = 0; row < term.kernel; ++row, window += term.source.pitch) {
            const float* pixel = window;
            for (int64_t column = 0; column < term.kernel; ++column, pixel += term.source.padded, weights += padded) {
                NAS_ENGINE_UNROLL
                for (int v = 0; v < V; ++v) {
                    const Vector<L> weight = load<L>(weights + v * L);
                    NAS_ENGINE_UNROLL
                    for (int p = 0; p < P; ++p) sums[p][v] += load<L>(pixel + p * step + v * L) * weight;
                }
            }
        }
    }

    NAS_ENGINE_INLINE void add_pool(const TermView& term, int64_t y, int64_t x, int64_t channel) {
        const int64_t top = y * term.stride - term.padding, left = x * term.stride - term.padding;
        const int64_t rows = inside(top, term.kernel, term.source.height);
        NAS_ENGINE_UNROLL
        for (int p = 0; p < P; ++p) {
            const int64_t first = left + p * term.stride;
            const float share = 1.0f / static_cast<float>(rows * inside(first, term.kernel, term.source.width));
            const float* window = term.source.pixels + top * term.source.pitch + first * term.source.padded + channel;
            Vector<L> total[V] = {};
            for (int64_t row = 0; row < term.kernel; ++row, window += term.source.pitch) {
                for (int64_t column = 0; column < term.kernel; ++column) {
                    NAS_ENGINE_UNROLL
                    for (int v = 0; v < V; ++v) total[v] += load<L>(window + column * term.source.padded + v * L);
                }
            }
            NAS_ENGINE_UNROLL
            for (int v = 0; v < V; ++v) sums[p][v] += share * total[v];
        }
    }

    static NAS_ENGINE_INLINE int64_t inside(int64_t first, int64_t size, int64_t limit) {
        const int64_t from = first < 0 ? 0 : first, to = first + size < limit ? first + size : limit;
        return to - from;
    }

    NAS_ENGINE_INLINE void add_identity(const TermView& term, int64_t y, int64_t x, int64_t channel) {
        const float* pixel = term.source.pixels + y * term.source.pitch + x * term.source.padded + channel;
        const bool scaled = term.kind == PlanKind::kScaled;
        NAS_ENGINE_UNROLL
        for (int v = 0; v < V; ++v) {
            const Vector<L> scale = scaled ? load<L>(term.packed + channel + v * L) : broadcast<L>(1.0f);
            NAS_ENGINE_UNROLL
            for (int p = 0; p < P; ++p) sums[p][v] += scale * load<L>(pixel + p * term.source.padded + v * L);
        }
    }

    NAS_ENGINE_INLINE void finish(const StepView& step, int64_t y, int64_t x, int64_t channel) const {
        NAS_ENGINE_UNROLL
        for (int p = 0; p < P; ++p) {
            NAS_ENGINE_UNROLL
            for (int v = 0; v < V; ++v) {
                const int64_t at = (x + p) * step.padded + channel + v * L;
                const Vector<L> sum = step.relu6 ? at_most(at_least(sums[p][v], 0.0f), 6.0f) : sums[p][v];
                if (step.raw.pixels) store<L>(step.raw.pixels + y * step.raw.pitch + at, sum);
                if (step.rectified.pixels) {
                    store<L>(step.rectified.pixels + y * step.rectified.pitch + at, at_least(sum, 0.0f));
                }
            }
        }
    }
};

template <int L, int V, int P, int STEP>
void run_tile(const StepView& step, int64_t y, int64_t x, int64_t channel) {
    Tile<L, V, P> tile;
    tile.start(step.bias + channel);
    for (int64_t i = 0; i < step.count; ++i) {
        const TermView& term = step.terms[i];
        switch (term.kind) {
            case PlanKind::kConvolution:
                tile.template add_convolution<STEP>(term, y, x, channel);
                break;
            case PlanKind::kDepthwise:
                tile.add_depthwise(term, y, x, channel, step.padded);
                break;
            case PlanKind::kAveragePool:
                tile.add_pool(term, y, x, channel);
                break;
            default:
                tile.add_identity(term, y, x, channel);
        }
    }
    tile.finish(step, y, x, channel);
}

using RunTile = void (*)(const StepView&, int64_t, int64_t, int64_t);

template <int L, int V, int STEP, int P>
struct TileTable {  // entries[p - 1] computes p pixels
    static void fill(RunTile* entries) {
        entries[P - 1] = run_tile<L, V, P, STEP>;
        if constexpr (P > 1) TileTable<L, V, STEP, P - 1>::fill(entries);
    }
};

template <int L, int V, int STEP>
void run_block(const StepView& step, int64_t channel) {
    constexpr int kMost = kAccumulators / V < 12 ? kAccumulators / V : 12;
    RunTile by_pixels[kMost];
    TileTable<L, V, STEP, kMost>::fill(by_pixels);
    const int64_t tiles = (step.width + kMost - 1) / kMost;
    const int64_t narrow = step.width / tiles, wide = step.width - narrow * tiles;  // `wide` of them take one more
    for (int64_t y = 0; y < step.height; ++y) {
        int64_t x = 0;
        for (int64_t i = 0; i < wide; ++i, x += narrow + 1) by_pixels[narrow](step, y, x, channel);
        for (int64_t i = wide; i < tiles; ++i, x += narrow) by_pixels[narrow - 1](step, y, x, channel);
    }
}

// Floats between the inputs of neighbouring outputs where all convolutions agree, else 0.
inline int64_t common_step(const StepView& step) {
    int64_t common = 0;
    for (int64_t i = 0; i < step.count; ++i) {
        const TermView& term = step.terms[i];
        if (term.kind != PlanKind::kConvolution) continue;
        const int64_t own = term.stride * term.source.padded;
        if (common && common != own) return 0;
        common = own;
    }
    return common;
}

// The tiles that know the step at compile time where it is one of STEPS, else those that do not.
template <int L, int V, int... STEPS>
void run_blocks(const StepView& step, int64_t channel) {
    const int64_t common = common_step(step);
    const bool known = ((common == STEPS && (run_block<L, V, STEPS>(step, channel), true)) || ...);
    if (!known) run_block<L, V, 0>(step, channel);
}

// Where the results of a step go, without its terms.
NAS_ENGINE_INLINE void aim(StepView& view, const PathPlan& plan, const PlanStep& step, const Arena& arena,
                           int64_t slot) {
    const auto target = [&](int64_t index) {
        if (index == kNone) return Target{nullptr, 0};
        const PlanValue& value = plan.values.data()[index];
        return Target{address_of(value, arena, slot), value.pitch()};
    };
    view.padded = step.padded;
    view.height = step.height;
    view.width = step.width;
    view.relu6 = step.relu6;
    view.raw = target(step.raw);
    view.rectified = target(step.rectified);
}

StepView view_of(const PathPlan& plan, const PlanStep& step, const float* packed, const Arena& arena, int64_t slot) {
    StepView view;
    aim(view, plan, step, arena, slot);
    view.count = step.terms;
    view.bias = packed + step.bias;
    for (int64_t i = 0; i < step.terms; ++i) {
        const PlanTerm& term = plan.terms.data()[step.first_term + i];
        const PlanValue& value = plan.values.data()[term.value];
        const Source source{address_of(value, arena, slot), value.pitch(), value.padded, value.height, value.width};
        view.terms[i] = {term.kind,   term.kernel,          term.stride, term.padding,
                         term.inputs, packed + term.packed, source};
    }
    return view;
}

#include "supernet/winograd_impl.h"

void moments(const PlanValue& value, const Arena& arena, int64_t slot, float* sum, float* squares) {
    constexpr int L = 8;
    const float* pixels = address_of(value, arena, slot);
    const float share = 1.0f / static_cast<float>(value.height * value.width);
    for (int64_t channel = 0; channel < value.padded; channel += L) {
        Vector<L> total{}, spread{};
        for (int64_t y = 0; y < value.height; ++y) {
            Vector<L> row{};
            for (int64_t x = 0; x < value.width; ++x) {
                row += load<L>(pixels + y * value.pitch() + x * value.padded + channel);
            }
            total += row;
        }
        const Vector<L> mean = total * share;
        for (int64_t y = 0; y < value.height; ++y) {
            Vector<L> row{};
            for (int64_t x = 0; x < value.width; ++x) {
                const Vector<L> away = load<L>(pixels + y * value.pitch() + x * value.padded + channel) - mean;
                row += away * away;
            }
            spread += row;
        }
        store<L>(sum + channel, total);
        store<L>(squares + channel, spread);
    }
}

void pooled(const PlanValue& value, const Arena& arena, int64_t slot, const float* scale, const float* shift,
            float* means) {
    constexpr int L = 8;
    const float* pixels = address_of(value, arena, slot);
    const float share = 1.0f / static_cast<float>(value.height * value.width);
    for (int64_t channel = 0; channel < value.padded; channel += L) {
        Vector<L> total{};
        for (int64_t y = 0; y < value.height; ++y) {
            Vector<L> row{};
            for (int64_t x = 0; x < value.width; ++x) {
                const Vector<L> pixel = load<L>(pixels + y * value.pitch() + x * value.padded + channel);
                row += scale ? at_least(load<L>(scale + channel) * pixel + load<L>(shift + channel), 0.0f) : pixel;
            }
            total += row;
        }
        store<L>(means + channel, total * share);
    }
}

}  // namespace
}  // namespace nas_engine
