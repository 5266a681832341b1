// The inner loops, written once with GCC/Clang vectors. Each instruction set includes this file and compiles it with
// its own options; everything is in an unnamed namespace, so that no two of them are merged by the linker.
#include "supernet/kernels.h"
#include "vectors_impl.h"

namespace nas_engine {
namespace {

// A source of a term in the arena of one image.
struct Source {
    const float* pixels;  // of pixel (0, 0)
    int64_t pitch;
    int64_t padded;
    int64_t height;
    int64_t width;
    int64_t step;  // floats between what neighbours in a tile read
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
    int64_t step;  // floats between neighbours in a tile
};

// Steps of one term that have kernels of their own; such terms may be followed by an identity.
enum class StepShape { kAny, kPointwise, kRowDepthwise };

struct StepView {
    StepShape shape;
    TermView terms[kMaxStepTerms];
    int64_t count;
    const float* bias;
    Target raw, rectified;
    int64_t padded, height, width;
    int64_t images;  // a tile holds pixels of one row; or, where this is not 0, one pixel of so many images
    bool relu6;
};

// `total` things in as few parts of at most `most` as possible, whose sizes differ by one at most.
struct Shares {
    int64_t count, narrow, wide;  // the first `wide` parts have narrow + 1 things

    NAS_ENGINE_INLINE Shares(int64_t total, int64_t most)
        : count((total + most - 1) / most), narrow(total / count), wide(total - narrow * count) {}
    NAS_ENGINE_INLINE int64_t size(int64_t part) const { return narrow + (part < wide); }
    NAS_ENGINE_INLINE int64_t first(int64_t part) const { return part * narrow + (part < wide ? part : wide); }
};

// The part of a window that lies in the source: the rest is border, and so zero.
struct Window {
    int64_t skipped, count;

    NAS_ENGINE_INLINE Window(int64_t first, int64_t size, int64_t limit)
        : skipped(first < 0 ? -first : 0), count((first + size < limit ? size : limit - first) - skipped) {}
};

#include "supernet/tile_impl.h"
#include "supernet/tile_runs_impl.h"

// Not inline, as other tiles: the compiler would keep what they share in the registers that the sums need.
template <int L, int V, int P>
NAS_ENGINE_NOINLINE void run_tile(const StepView& step, int64_t y, int64_t x, int64_t channel) {
    Tile<L, V, P> tile;
    tile.start(step.bias + channel);
    const bool across_images = step.images > 0;
    for (int64_t i = 0; i < step.count; ++i) {
        const TermView& term = step.terms[i];
        switch (term.kind) {
            case PlanKind::kConvolution:
                tile.add_convolution(term, y, x, channel, across_images);
                break;
            case PlanKind::kDepthwise:
                if (term.stride > 1 || across_images) {
                    tile.add_depthwise(term, y, x, channel, step.padded);
                } else if (term.kernel == 3) {
                    tile.template add_row_depthwise<3>(term, y, x, channel, step.padded);
                } else if (term.kernel == 5) {
                    tile.template add_row_depthwise<5>(term, y, x, channel, step.padded);
                } else if (term.kernel == 7) {
                    tile.template add_row_depthwise<7>(term, y, x, channel, step.padded);
                } else {
                    tile.add_depthwise(term, y, x, channel, step.padded);
                }
                break;
            case PlanKind::kAveragePool:
                if (term.kernel == 3 && term.stride == 1 && !across_images) {
                    tile.add_row_pool(term, y, x, channel);
                } else {
                    tile.add_pool(term, y, x, channel, across_images);
                }
                break;
            default:
                tile.add_identity(term, y, x, channel);
        }
    }
    tile.finish(step, y, x, channel);
}

// `count` tiles of row y, the first one at x, each `advance` pixels after the one before.
template <int L, int V, int P>
void run_tiles(const StepView& step, int64_t channel, int64_t y, int64_t x, int64_t count, int64_t advance) {
    switch (step.shape) {
        case StepShape::kPointwise:
            return run_pointwise<L, V, P>(step, y, x, count, advance, channel);
        case StepShape::kRowDepthwise:
            return run_row_depthwise<L, V, P>(step, y, x, count, advance, channel);
        default:
            for (const int64_t end = x + count * advance; x < end; x += advance) run_tile<L, V, P>(step, y, x, channel);
    }
}

using RunTiles = void (*)(const StepView&, int64_t, int64_t, int64_t, int64_t, int64_t);

template <int L, int V, int P>
void fill_tiles(RunTiles* by_neighbours) {
    by_neighbours[P - 1] = run_tiles<L, V, P>;
    if constexpr (P > 1) fill_tiles<L, V, P - 1>(by_neighbours);
}

struct Rows {
    int64_t first, last;
};

// How many neighbours a tile may hold, so that its sums stay in registers.
constexpr int most_neighbours(int vectors) { return kAccumulators / vectors < 12 ? kAccumulators / vectors : 12; }

// One block of V * L output channels.
template <int L, int V>
void run_block(const StepView& step, int64_t channel, Rows rows) {
    constexpr int kMost = most_neighbours(V);
    RunTiles by_neighbours[kMost];
    fill_tiles<L, V, kMost>(by_neighbours);
    if (step.images) {
        for (int64_t y = rows.first; y < rows.last; ++y) {
            by_neighbours[step.images - 1](step, channel, y, 0, step.width, 1);
        }
        return;
    }
    const Shares shares(step.width, kMost);
    const int64_t narrow = shares.narrow, wide = narrow + 1, others = shares.count - shares.wide;
    for (int64_t y = rows.first; y < rows.last; ++y) {
        if (shares.wide) by_neighbours[wide - 1](step, channel, y, 0, shares.wide, wide);
        if (others) by_neighbours[narrow - 1](step, channel, y, shares.wide * wide, others, narrow);
    }
}

// Where the results of a step go, without its terms. Neighbours are pixels of a row where `images` is 0.
NAS_ENGINE_INLINE void aim(StepView& view, const PathPlan& plan, const PlanStep& step, const Arena& arena, int64_t slot,
                           int64_t images) {
    const auto target = [&](int64_t index) {
        if (index == kNone) return Target{nullptr, 0, 0};
        const PlanValue& value = plan.values.data()[index];
        return Target{address_of(value, arena, slot), value.pitch(), images ? value.size() : value.padded};
    };
    view.padded = step.padded;
    view.height = step.height;
    view.width = step.width;
    view.images = images;
    view.relu6 = step.relu6;
    view.raw = target(step.raw);
    view.rectified = target(step.rectified);
}

StepShape shape_of(const StepView& view) {
    if (view.count == 0 || view.count > 2) return StepShape::kAny;
    const TermView& first = view.terms[0];
    const bool is_pointwise = first.kind == PlanKind::kConvolution && first.kernel == 1;
    if (is_pointwise && (view.count == 1 || view.terms[1].kind == PlanKind::kIdentity)) return StepShape::kPointwise;
    const bool is_row = first.kind == PlanKind::kDepthwise && first.stride == 1 && view.images == 0 && view.count == 1;
    const bool is_known = first.kernel == 3 || first.kernel == 5 || first.kernel == 7;
    return is_row && is_known ? StepShape::kRowDepthwise : StepShape::kAny;
}

StepView view_of(const PathPlan& plan, const PlanStep& step, const PackedPath& packed, const Arena& arena, int64_t slot,
                 int64_t images) {
    StepView view;
    aim(view, plan, step, arena, slot, images);
    view.count = step.terms;
    view.bias = packed.own + step.bias;
    for (int64_t i = 0; i < step.terms; ++i) {
        const PlanTerm& term = plan.terms.data()[step.first_term + i];
        const PlanValue& value = plan.values.data()[term.value];
        const int64_t neighbour = images ? value.size() : term.stride * value.padded;
        const Source source{
            address_of(value, arena, slot), value.pitch(), value.padded, value.height, value.width, neighbour};
        const float* weights =
            term.kind == PlanKind::kScaled ? packed.own + term.packed : packed.terms[step.first_term + i];
        view.terms[i] = {term.kind, term.kernel, term.stride, term.padding, term.inputs, weights, source};
    }
    view.shape = shape_of(view);
    return view;
}

// Rows this short fill no tile: several images are then computed together, pixel by pixel.
constexpr int64_t kShortRow = 4;

// RUN: (a view of one image, or of several; rows) -> computes them. `most`: images that one tile can hold.
template <typename Run>
void run_images(const PathPlan& plan, const PlanStep& step, const PackedPath& packed, const Arena& arena, int64_t first,
                int64_t last, int64_t most, Run run_rows) {
    const auto run = [&](const StepView& view) {
        if (!step.by_rows) return run_rows(view, Rows{0, step.height});
        for (int64_t y = 0; y < step.height; ++y) run_rows(view, Rows{y, y + 1});
    };
    if (step.width > kShortRow || last - first <= 1) {
        for (int64_t slot = first; slot < last; ++slot) run(view_of(plan, step, packed, arena, slot, 0));
        return;
    }
    const Shares shares(last - first, most);
    for (int64_t i = 0; i < shares.count; ++i) {
        run(view_of(plan, step, packed, arena, first + shares.first(i), shares.size(i)));
    }
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
