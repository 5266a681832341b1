// Scores paths on the GPU: weights of all paths are packed by one launch and all paths scored by a second one, in
// which each block of threads takes some images through a whole network, so that activations stay near it.
#include <cmath>

#include "cuda/launch.h"
#include "cuda/tile.h"
#include "supernet/device_eval.h"

namespace nas_engine {

namespace {

constexpr int64_t kBlocksTogether = 3;  // on one multiprocessor: leaves a thread 168 registers, enough for a tile
constexpr int64_t kSlices = 8;          // blocks that pack one path

// Mean and variance of all norms of a path; null pointers: those that the norms hold.
struct PathStatistics {
    const float* means;
    const float* variances;
};

struct Affine {
    float scale, shift;
};

__device__ Affine affine_of(const DeviceTables& tables, int64_t norm, int64_t channel,
                            const PathStatistics& statistics) {
    const ProgramNorm& of = tables.norms[norm];
    const int64_t index = tables.first_channels[norm] + channel;
    const float mean = statistics.means ? statistics.means[index] : reinterpret_cast<const float*>(of.mean)[channel];
    const float variance =
        statistics.means ? statistics.variances[index] : reinterpret_cast<const float*>(of.variance)[channel];
    const double factor = reinterpret_cast<const float*>(of.weight)[channel] / sqrt(variance + tables.epsilons[norm]);
    const float bias = reinterpret_cast<const float*>(of.bias)[channel];
    return {static_cast<float>(factor), static_cast<float>(bias - mean * factor)};
}

__device__ PathStatistics statistics_of(const float* statistics, int64_t path, int64_t channels) {
    if (!statistics) return {nullptr, nullptr};
    const float* means = statistics + path * 2 * channels;
    return {means, means + channels};
}

struct PackArguments {
    DeviceTables tables;
    bool folded;
    const float* statistics;  // [paths, 2, norm_channels], or null
    int64_t norm_channels;
    float* packed;
};

// Weights of one term for the channels from `first` on, as `pack` lays them out.
__device__ void pack_term(const DeviceTables& tables, const PlanTerm& term, const PlanStep& step, int64_t first,
                          const float* scale, float* packed) {
    const ProgramWeight& weight = tables.weights[term.weight];
    const int64_t border = (weight.kernel - term.kernel) / 2;
    const float* centre =
        reinterpret_cast<const float*>(weight.address) + border * (weight.strides[2] + weight.strides[3]);
    const bool depthwise = term.kind == PlanKind::kDepthwise;
    const int64_t inputs = depthwise ? 1 : term.inputs, kernel = term.kernel;
    const int64_t pitch = depthwise ? step.padded : kTileChannels;
    float* to = packed + term.packed + first * (depthwise ? 1 : kernel * kernel * inputs);
    for (int64_t i = threadIdx.x; i < kernel * kernel * inputs * kTileChannels; i += blockDim.x) {
        const int64_t c = i % kTileChannels, input = i / kTileChannels % inputs, tap = i / (kTileChannels * inputs);
        const int64_t from = (first + c) * weight.strides[0] + input * weight.strides[1] +
                             tap / kernel * weight.strides[2] + tap % kernel * weight.strides[3];
        to[i / kTileChannels * pitch + c] = first + c < step.channels ? scale[c] * centre[from] : 0.0f;
    }
}

// Blocks: kSlices for each path, each of which takes every kSlices-th block of channels.
__global__ void NAS_ENGINE_LAUNCH_BOUNDS(kMaxDeviceThreads, kBlocksTogether) pack_kernel(PackArguments arguments) {
    NAS_ENGINE_SHARED float scale[kTileChannels];
    const DeviceTables& tables = arguments.tables;
    const int64_t path = blockIdx.x / kSlices;
    const PathEntry& entry = tables.paths[path];
    const PathStatistics statistics = statistics_of(arguments.statistics, path, arguments.norm_channels);
    float* packed = arguments.packed + entry.packed;
    int64_t turn = 0;
    for (int64_t s = 0; s < entry.steps; ++s) {
        const PlanStep& step = tables.steps[entry.first_step + s];
        for (int64_t first = 0; first < step.padded; first += kTileChannels, ++turn) {
            if (turn % kSlices != blockIdx.x % kSlices) continue;
            float bias = 0;
            for (int64_t i = 0; i < step.terms; ++i) {
                const PlanTerm& term = tables.terms[entry.first_term + step.first_term + i];
                if (term.weight == kNone) continue;
                sync_threads();  // the scales of the last term are no longer needed
                const int64_t c = threadIdx.x;
                if (c < kTileChannels) {
                    const bool folds = arguments.folded && term.norm != kNone && first + c < step.channels;
                    const Affine affine = folds ? affine_of(tables, term.norm, first + c, statistics) : Affine{1, 0};
                    scale[c] = affine.scale;
                    bias += affine.shift;
                }
                sync_threads();
                pack_term(tables, term, step, first, scale, packed);
            }
            if (threadIdx.x < kTileChannels) packed[step.bias + first + threadIdx.x] = bias;
        }
    }
}

struct ScoreArguments {
    DeviceTables tables;
    DeviceScores scores;
    ProgramHead head;
    int64_t images, paths, group, groups, norm_channels, scratch, head_padded, block_floats;
    float* packed;
    float* arenas;
    float* statistics;  // measured plans: written; folded plans: read, or null
    double* losses;     // [paths, images]
    int64_t* hits;
};

// What one block works on: images first..first+slots-1 of a path.
struct Work {
    int64_t path, first, slots;
    const PathEntry* entry;
    const PlanValue* values;
    Arena arena;
    float* scratch;
};

__device__ void load_images(const ScoreArguments& arguments, const Work& work) {
    const PlanValue& input = work.values[work.entry->input];
    const int64_t plane = input.height * input.width, size = plane * input.channels;
    for (int64_t i = threadIdx.x; i < work.slots * size; i += blockDim.x) {
        const int64_t x = i % input.width, y = i / input.width % input.height, c = i / plane % input.channels;
        const int64_t slot = i / size;
        address_of(input, work.arena, slot)[y * input.pitch() + x * input.padded + c] =
            arguments.scores.images[(work.first + slot) * size + i % size];
    }
}

// Sums over the threads that share a channel, in order; the result is there for the first of them.
__device__ double sum_of_slices(double mine, int64_t lanes, int64_t slices) {
    NAS_ENGINE_SHARED double parts[kMaxDeviceThreads];
    sync_threads();
    parts[threadIdx.x] = mine;
    sync_threads();
    double total = 0;
    if (threadIdx.x < lanes) {
        for (int64_t slice = 0; slice < slices; ++slice) total += parts[slice * lanes + threadIdx.x];
    }
    return total;
}

// Mean and biased variance of a value over images and pixels, into the path's statistics; averages are kept too.
__device__ void measure(const ScoreArguments& arguments, const Work& work, const PlanValue& value, int64_t norm) {
    const int64_t lanes = value.padded < blockDim.x ? value.padded : blockDim.x, slices = blockDim.x / lanes;
    const int64_t plane = value.height * value.width, first = arguments.tables.first_channels[norm];
    const int64_t lane = threadIdx.x % lanes, slice = threadIdx.x / lanes, channels = arguments.norm_channels;
    const double count = static_cast<double>(plane * work.slots);
    float* means = arguments.statistics + work.path * 2 * channels + first;
    float* averages =
        arguments.scores.averages ? arguments.scores.averages + work.path * 2 * channels + first : nullptr;
    const auto sum = [&](int64_t channel, float centre, bool squared) {
        double total = 0;
        const bool counts = slice < slices && channel < value.padded;
        for (int64_t slot = 0; counts && slot < work.slots; ++slot) {
            const float* pixels = address_of(value, work.arena, slot) + channel;
            float part = 0;
            for (int64_t i = slice; i < plane; i += slices) {
                const float away = pixels[i / value.width * value.pitch() + i % value.width * value.padded] - centre;
                part += squared ? away * away : away;
            }
            total += part;
        }
        return sum_of_slices(total, lanes, slices);
    };
    for (int64_t start = 0; start < value.padded; start += lanes) {
        const int64_t channel = start + lane;
        const bool writes = slice == 0 && channel < value.channels;
        const double mean = sum(channel, 0.0f, false) / count;
        if (writes) means[channel] = static_cast<float>(mean);
        sync_threads();
        const double variance = sum(channel, channel < value.channels ? means[channel] : 0.0f, true) / count;
        if (!writes) continue;
        means[channels + channel] = static_cast<float>(variance);
        if (!averages) continue;
        const float weight = arguments.scores.average_weight;
        const float unbiased = static_cast<float>(variance * count / (count - 1));
        averages[channel] += weight * (static_cast<float>(mean) - averages[channel]);
        averages[channels + channel] += weight * (unbiased - averages[channels + channel]);
    }
    sync_threads();
}

// Scales and bias of a step whose terms were measured before.
__device__ void apply_norms(const ScoreArguments& arguments, const Work& work, const PlanStep& step, float* packed) {
    const PlanTerm* terms = arguments.tables.terms + work.entry->first_term + step.first_term;
    const PathStatistics statistics = statistics_of(arguments.statistics, work.path, arguments.norm_channels);
    for (int64_t c = threadIdx.x; c < step.channels; c += blockDim.x) {
        float bias = 0;
        for (int64_t i = 0; i < step.terms; ++i) {
            if (terms[i].kind != PlanKind::kScaled) continue;
            const Affine affine = affine_of(arguments.tables, terms[i].norm, c, statistics);
            packed[terms[i].packed + c] = affine.scale;
            bias += affine.shift;
        }
        packed[step.bias + c] = bias;
    }
    sync_threads();
}

struct ImageScore {
    double loss;  // NaN where a logit is not finite
    int64_t hit;
};

// Cross-entropy in nats; like torch, a NaN is the largest logit.
__device__ ImageScore score_of(const float* logits, int64_t classes, int64_t label) {
    int64_t best = 0;
    bool finite = true;
    for (int64_t k = 0; k < classes; ++k) {
        const bool is_nan = logits[k] != logits[k];
        finite &= !is_nan && fabsf(logits[k]) < INFINITY;
        if (logits[k] > logits[best] || (is_nan && logits[best] == logits[best])) best = k;
    }
    double total = 0;
    for (int64_t k = 0; k < classes; ++k) total += exp(static_cast<double>(logits[k]) - logits[best]);
    return {finite ? log(total) + logits[best] - logits[label] : static_cast<double>(NAN), best == label};
}

__device__ void score_images(const ScoreArguments& arguments, const Work& work) {
    const PlanValue& source = work.values[work.entry->head];
    const ProgramHead& head = arguments.head;
    const PathStatistics statistics = statistics_of(arguments.statistics, work.path, arguments.norm_channels);
    float* features = work.scratch;
    float* logits = work.scratch + arguments.group * arguments.head_padded;
    for (int64_t i = threadIdx.x; i < work.slots * source.channels; i += blockDim.x) {
        const int64_t slot = i / source.channels, c = i % source.channels;
        const float* pixels = address_of(source, work.arena, slot) + c;
        const bool normed = head.norm != kNone;
        const Affine affine = normed ? affine_of(arguments.tables, head.norm, c, statistics) : Affine{1, 0};
        float total = 0;
        for (int64_t y = 0; y < source.height; ++y) {
            float row = 0;
            for (int64_t x = 0; x < source.width; ++x) {
                const float pixel = pixels[y * source.pitch() + x * source.padded];
                row += normed ? clipped(affine.scale * pixel + affine.shift, 0.0f, INFINITY) : pixel;
            }
            total += row;
        }
        features[slot * arguments.head_padded + c] = total / static_cast<float>(source.height * source.width);
    }
    sync_threads();
    const float* weight = reinterpret_cast<const float*>(head.weight);
    const float* bias = reinterpret_cast<const float*>(head.bias);
    for (int64_t i = threadIdx.x; i < work.slots * head.classes; i += blockDim.x) {
        const int64_t slot = i / head.classes, k = i % head.classes;
        float sum = bias[k];
        for (int64_t c = 0; c < source.channels; ++c) {
            sum += weight[k * head.inputs + c] * features[slot * arguments.head_padded + c];
        }
        logits[i] = sum;
        const int64_t image = work.path * arguments.images + work.first + slot;
        if (arguments.scores.logits) arguments.scores.logits[image * head.classes + k] = sum;
    }
    sync_threads();
    for (int64_t slot = threadIdx.x; slot < work.slots; slot += blockDim.x) {
        const int64_t label = arguments.scores.labels[work.first + slot];
        const ImageScore score = score_of(logits + slot * head.classes, head.classes, label);
        const int64_t image = work.path * arguments.images + work.first + slot;
        arguments.losses[image] = score.loss;
        arguments.hits[image] = score.hit;
    }
}

template <bool kMeasured>
__device__ void run_path(const ScoreArguments& arguments, const Work& work) {
    const PathEntry& entry = *work.entry;
    float* packed = arguments.packed + entry.packed;
    for (int64_t i = threadIdx.x; i < entry.arena_size * work.arena.slots; i += blockDim.x) work.arena.base[i] = 0;
    sync_threads();  // other plans may have used the arena: borders must be zero
    load_images(arguments, work);
    sync_threads();
    for (int64_t s = 0; s < entry.steps; ++s) {
        const PlanStep& step = arguments.tables.steps[entry.first_step + s];
        if (kMeasured) apply_norms(arguments, work, step, packed);
        run_step({&step, arguments.tables.terms + entry.first_term, work.values, packed, work.arena}, work.slots);
        sync_threads();
        if (kMeasured && step.measured != kNone) measure(arguments, work, work.values[step.raw], step.measured);
    }
    if (arguments.scores.loss) score_images(arguments, work);
    sync_threads();
}

// Blocks: any number for folded plans; one for each path for measured ones.
template <bool kMeasured>
__global__ void NAS_ENGINE_LAUNCH_BOUNDS(kMaxDeviceThreads, kBlocksTogether) score_kernel(ScoreArguments arguments) {
    float* base = arguments.arenas + blockIdx.x * arguments.block_floats;
    for (int64_t item = blockIdx.x; item < arguments.paths * arguments.groups; item += gridDim.x) {
        const int64_t path = item / arguments.groups, first = item % arguments.groups * arguments.group;
        const int64_t left = arguments.images - first;
        const PathEntry* entry = arguments.tables.paths + path;
        run_path<kMeasured>(arguments, {path,
                                        first,
                                        left < arguments.group ? left : arguments.group,
                                        entry,
                                        arguments.tables.values + entry->first_value,
                                        {base, arguments.group, nullptr},
                                        base + arguments.scratch});
    }
}

// One block a path: sums in an order that the number of blocks above does not change.
__global__ void NAS_ENGINE_LAUNCH_BOUNDS(kMaxDeviceThreads, kBlocksTogether) reduce_kernel(ScoreArguments arguments) {
    const int64_t path = blockIdx.x;
    double loss = 0, hits = 0;
    for (int64_t i = threadIdx.x; i < arguments.images; i += blockDim.x) {
        loss += arguments.losses[path * arguments.images + i];
        hits += static_cast<double>(arguments.hits[path * arguments.images + i]);
    }
    loss = sum_of_slices(loss, 1, blockDim.x);
    hits = sum_of_slices(hits, 1, blockDim.x);
    if (threadIdx.x != 0) return;
    arguments.scores.loss[path] = arguments.images ? loss / static_cast<double>(arguments.images) : NAN;
    arguments.scores.correct[path] = static_cast<int64_t>(hits);
}

}  // namespace

void supernet_eval_cuda(const DevicePlan& plan, const DeviceScores& scores, void* workspace, void* stream) {
    if (plan.paths == 0) return;  // an empty grid is a launch error
    unsigned char* bytes = static_cast<unsigned char*>(workspace);
    const auto floats = [&](int64_t offset) { return reinterpret_cast<float*>(bytes + offset); };
    const bool measured = plan.style == NormStyle::kMeasured;
    const DeviceTables tables = plan.tables_at(bytes);
    float* own_statistics = floats(plan.statistics);
    const unsigned threads = static_cast<unsigned>(plan.division.threads);
    // A measured path reads its own statistics, a folded one those that it was given.
    float* statistics = measured ? own_statistics : const_cast<float*>(scores.statistics);
    const ScoreArguments arguments{tables,
                                   scores,
                                   plan.head,
                                   plan.division.images,
                                   plan.paths,
                                   plan.group,
                                   plan.groups,
                                   plan.norm_channels,
                                   plan.scratch,
                                   plan.head_padded,
                                   plan.block_floats,
                                   floats(plan.packed),
                                   floats(plan.arenas),
                                   statistics,
                                   reinterpret_cast<double*>(bytes + plan.losses),
                                   reinterpret_cast<int64_t*>(bytes + plan.hits)};
    const PackArguments packing{tables, !measured, scores.statistics, plan.norm_channels, floats(plan.packed)};
    launch(pack_kernel, static_cast<unsigned>(plan.paths * kSlices), threads, stream, packing);
    if (plan.division.images > 0) {
        launch(measured ? score_kernel<true> : score_kernel<false>, static_cast<unsigned>(plan.blocks), threads, stream,
               arguments);
    }
    if (scores.loss) launch(reduce_kernel, static_cast<unsigned>(plan.paths), threads, stream, arguments);
}

}  // namespace nas_engine
