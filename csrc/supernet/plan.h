// One path of a weight-sharing network as a list of steps over buffers, ready to be executed image by image.
#pragma once

#include <cstdint>
#include <vector>

#include "host_device.h"
#include "ops/supernet_eval.h"

namespace nas_engine {

constexpr int64_t kLane = 8;  // channels are stored in multiples of this; the added ones are zero
constexpr int64_t kNone = -1;
constexpr int64_t kMaxStepTerms = 32;

// A feature map [height + 2 border, width + 2 border, padded]: channels are innermost, the border stays zero.
struct PlanValue {
    int64_t offset;  // in floats; of one image's arena
    int64_t channels;
    int64_t padded;
    int64_t height;
    int64_t width;
    int64_t border;
    int64_t is_first;  // 1: no value before this one lies at the same offset

    NAS_ENGINE_HOST_DEVICE int64_t pitch() const { return (width + 2 * border) * padded; }
    NAS_ENGINE_HOST_DEVICE int64_t size() const { return (height + 2 * border) * pitch(); }
    NAS_ENGINE_HOST_DEVICE int64_t origin() const {
        return border * (pitch() + padded);
    }  // of pixel (0, 0), from the start of the value
};

enum class PlanKind : int32_t { kConvolution, kWinograd, kDepthwise, kAveragePool, kIdentity, kScaled, kZero, kTiled };

struct PlanTerm {
    PlanKind kind;
    int32_t kernel;
    int32_t stride;
    int32_t padding;
    int64_t value;   // index of the source
    int64_t inputs;  // channels of the source that count
    int64_t packed;  // offset of weights, or of the scales of kScaled and kTiled, among the packed numbers
    int64_t origin;  // index of the term in the program that the weights are of, or kNone
    int64_t weight;  // index in the program, or kNone
    int64_t norm;    // index in the program, or kNone
};

// Computes one node: bias + sum of terms, activated, written as it is and/or rectified.
struct PlanStep {
    int64_t first_term;
    int64_t terms;
    int64_t raw;        // index of a value, or kNone
    int64_t rectified;  // index of a value, or kNone
    int64_t channels;
    int64_t padded;
    int64_t height;
    int64_t width;
    int64_t bias;   // offset among the packed numbers
    int64_t block;  // output channels a tile: weights are packed in blocks of this, the last one may be narrower
    bool relu6;
    int64_t measured;  // norm whose statistics are those of `raw`, or kNone
    bool winograd;     // all terms are of that kind
    bool by_rows;      // all channels of a row before the next row: the weights are small enough to stay in cache
};

// A place in a plan where one node is all that the steps after it read. Its values stay to the end of the plan, so that
// the next path can go on from here if its genes are the same up to here.
struct PlanCut {
    int64_t decisions;  // so many of `decision_order` decide about the steps before
    int64_t steps;      // that come before
    int64_t node;       // in the program
    int64_t raw;        // index of its value, or kNone
    int64_t rectified;  // index of its value, or kNone
};

struct PathPlan {
    std::vector<PlanCut> cuts;  // ascending
    std::vector<PlanValue> values;
    std::vector<PlanTerm> terms;
    std::vector<PlanStep> steps;
    int64_t input;         // index of the image's value
    int64_t head;          // index of the value that the head reads
    int64_t arena_size;    // floats for one image
    int64_t own_size;      // floats of the packed numbers that come first: biases and scales
    int64_t packed_size;   // floats of all packed numbers; weights come last
    int64_t scratch_size;  // floats that one call of the kernels needs besides
};

// The values of some images: value `i` of image `slot` starts at base + offset * slots + slot * size, so that every
// value is an array over the images that are in work together.
struct Arena {
    float* base;
    int64_t slots;
    float* scratch;  // of this thread
};

// Of pixel (0, 0).
NAS_ENGINE_HOST_DEVICE inline float* address_of(const PlanValue& value, const Arena& arena, int64_t slot) {
    return arena.base + value.offset * arena.slots + slot * value.size() + value.origin();
}

// Sets the borders of all values to zero for the images in slots first..last-1: steps write what lies inside. Those
// that lie where the plan `before` had one are zero already, if it is the one that used this arena last; null: none
// was.
void clear_borders(const PathPlan& plan, const PathPlan* before, const Arena& arena, int64_t first, int64_t last);

// How norms enter a plan: folded into the weights, or measured on the batch and applied afterwards.
enum class NormStyle { kFolded, kMeasured };

// Whether a plan has cuts, for paths that go through the same arena one after the other.
enum class Cuts { kNone, kWhereTheyPay };

// What suits an instruction set.
struct KernelRules {
    int64_t (*block)(int64_t padded, int64_t width);  // output channels that one tile covers
    bool winograd;                                    // whether 3x3 convolutions may be computed that way
    bool tiled;                                       // whether convolutions are computed by tiles of bfloat16
};

// Winograd convolution F(4x4, 3x3) (Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section
// 4): a tile of 4 x 4 outputs is computed from 6 x 6 inputs with 36 multiplications a pair of channels, not 144.
constexpr int64_t kTile = 4;
constexpr int64_t kTransformed = 6;  // side of a transformed tile
constexpr int64_t kFrequencies = kTransformed * kTransformed;
constexpr int64_t kTilesAtOnce = 12;  // fill the registers of every instruction set in one or two rounds

// Tiles of bfloat16 (Intel AMX): 16 neighbouring outputs times 16 channels, over 32 inputs at a time. A row of the
// kernel is one run of inputs, because channels and pixels of a source lie one after the other.
constexpr int64_t kTileOutputs = 16;
constexpr int64_t kTileInputs = 32;

// How the tiled terms of a step work in a thread's scratch memory: each source becomes a map of bfloat16 with a border,
// all with equally long rows, and sums are made of whole tiles of positions that count on from row to row. Some
// positions are no outputs: those in the border, and those that a stride skips.
struct TiledShape {
    int64_t border;     // of the maps
    int64_t stride;     // the largest one
    int64_t width;      // positions of a row
    int64_t rows;       // of the output that are computed together
    int64_t positions;  // from the first output of these rows to the last, rounded up to whole tiles
    int64_t outputs;    // channels, a multiple of 16

    // Of the tiled ones among the terms.
    TiledShape(const std::vector<PlanValue>& values, const PlanTerm* terms, const PlanStep& step);

    // Numbers of bfloat16 in the map of a source: tiles read beyond its end.
    int64_t map_size(const PlanValue& source) const;
};

inline int64_t tiled_channels(const PlanValue& value) {  // of a map
    constexpr int64_t kMultiple = kTileInputs / 2;
    return (value.channels + kMultiple - 1) / kMultiple * kMultiple;
}

// The live part of the path `genes` [decisions]. Nodes that only copy another one share its buffer. Throws
// std::invalid_argument where a node has more than kMaxStepTerms terms, or a norm is measured twice.
PathPlan make_plan(const Program& program, const int64_t* genes, NormStyle style, const KernelRules& rules, Cuts cuts);

// Decisions in the order in which nodes first depend on them. No node depends on those that are left out.
std::vector<int64_t> decision_order(const Program& program);

// A path and its plan.
struct PlannedPath {
    const int64_t* genes;
    const PathPlan* plan;
};

// The last cut of `path` up to which it computes what `before` has computed; null: there is none. `before` must be the
// path that the same images took through the same arena last.
const PlanCut* shared_cut(const std::vector<int64_t>& decision_order, const PlannedPath& before,
                          const PlannedPath& path);

// Mean and variance of each norm of a program; vectors of its channels.
struct NormStatistics {
    std::vector<float> mean;
    std::vector<float> variance;
};
std::vector<NormStatistics> running_statistics(const Program& program);

// Writes the scales of a path's tiled terms among its own numbers: those of its norms; 1 where `statistics` is null.
void fill_tiled_scales(const Program& program, const PathPlan& plan, const std::vector<NormStatistics>* statistics,
                       float* own);

// Scale and shift that equal a norm: y = scale x + shift, for `channels` channels.
void norm_affine(const Program& program, int64_t norm, const NormStatistics& statistics, int64_t channels, float* scale,
                 float* shift);

// Numbers that the weights of a term take, and their place where it has weights: in the order in which the kernels read
// them, each output channel times its scale; kTiled: without it, rounded to bfloat16.
int64_t packed_length(const PlanTerm& term, const PlanStep& step);
void pack_weights(const Program& program, const PlanTerm& term, const PlanStep& step, const float* scale,
                  float* packed);

// What `pack_weights` gives, from what it gives for scales of 1.
void scale_weights(const PlanTerm& term, const PlanStep& step, const float* scale, const float* unscaled,
                   float* packed);

}  // namespace nas_engine
