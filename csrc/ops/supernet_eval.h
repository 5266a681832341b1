// Scores many paths of a weight-sharing network: what Python describes and what comes back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nas_engine {

enum class TermKind : int64_t { kConvolution = 0, kDepthwise = 1, kAveragePool = 2, kIdentity = 3 };

// One summand of a node. It exists on the paths whose gene of `decision` is `choice`; decision -1: on all.
// Convolutions pad by kernel / 2. They use the first channels and the centre of their weight, and are followed by
// BatchNorm `norm` unless it is -1. Average pools pad by (kernel - 1) / 2 and leave padding out of the mean.
struct ProgramTerm {
    int64_t kind;  // TermKind
    int64_t source;
    int64_t kernel;
    int64_t stride;
    int64_t rectified;  // 1: reads max(source, 0)
    int64_t weight;     // index, or -1 where the kind has none
    int64_t norm;       // index, or -1
    int64_t decision;
    int64_t choice;
};

// A feature map: the sum of its terms, then the activation. Sources come before the nodes that read them. Node 0 is
// the image. `optional` nodes without terms do not exist and terms that read them vanish; others are zeros then: those
// of node `zero_of` times zero, so that a NaN is not lost.
struct ProgramNode {
    int64_t first_term;
    int64_t terms;
    int64_t channels;
    int64_t height;
    int64_t width;
    int64_t relu6;
    int64_t optional;
    int64_t zero_of;  // index of a node of the same shape, or -1
};

struct ProgramWeight {
    int64_t address;  // const float* [outputs, inputs, kernel, kernel]; depthwise: inputs = 1
    int64_t outputs;
    int64_t inputs;
    int64_t kernel;
    int64_t strides[4];  // in floats
};

struct ProgramNorm {
    int64_t weight;  // addresses of const float* [channels]
    int64_t bias;
    int64_t mean;
    int64_t variance;
    int64_t channels;
};

// Logits = linear(mean over pixels(relu(norm(node)))); without a norm the node is averaged as it is.
struct ProgramHead {
    int64_t node;
    int64_t norm;
    int64_t weight;  // address of const float* [classes, inputs]
    int64_t bias;    // address of const float* [classes]
    int64_t classes;
    int64_t inputs;
};

// A weight-sharing network. Addresses are trusted; every index, size and shape is checked by `check_program`.
struct Program {
    std::vector<ProgramNode> nodes;
    std::vector<ProgramTerm> terms;
    std::vector<ProgramWeight> weights;
    std::vector<ProgramNorm> norms;
    std::vector<double> epsilons;  // of each norm
    ProgramHead head;
    std::vector<int64_t> choices;  // of each decision

    int64_t decisions() const { return static_cast<int64_t>(choices.size()); }
};

// Throws std::invalid_argument, which names the first part that does not fit.
void check_program(const Program& program);

enum class Statistics : int64_t {
    kRunning = 0,       // the norms' own mean and variance
    kBatch = 1,         // those of the images that are scored, as in training mode
    kRecalibrated = 2,  // averages over the calibration batches, which go through the path in training mode
};

struct Images {
    const float* pixels;  // [count, channels, height, width] of node 0
    int64_t count;
};

struct ScoreRequest {
    const int64_t* genes;  // [paths, decisions], each below its choices
    int64_t paths;
    Images images;
    const int64_t* labels;            // [images], below the number of classes
    std::vector<Images> calibration;  // batches, for kRecalibrated
    Statistics statistics;
    int64_t threads;    // at least 1; the result does not depend on it
    std::string level;  // one of `kernel_levels` or `bfloat16_levels`; empty: the last of `kernel_levels`
};

struct Scores {
    double* loss;      // [paths]: mean cross-entropy in nats; NaN where a logit is not finite or there is no image
    int64_t* correct;  // [paths]
    float* logits;     // [paths, images, classes], or null
};

// Instruction sets whose kernels run on this processor, from the slowest to the fastest.
std::vector<std::string> kernel_levels();

// The same for kernels that convolve in bfloat16; all but "bf16-amx" are there to get the same numbers, not to be fast.
std::vector<std::string> bfloat16_levels();

// Throws std::invalid_argument for what does not fit together (a level that is not there, one value a channel for
// batch statistics), std::bad_alloc where memory is short.
void supernet_eval_cpu(const Program& program, const ScoreRequest& request, const Scores& scores);

}  // namespace nas_engine
