// Random weight-sharing networks: mostly right, sometimes anything.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "ops/supernet_eval.h"

namespace nas_engine {

inline int64_t address(const std::vector<float>& numbers) { return reinterpret_cast<int64_t>(numbers.data()); }

// Numbers that are mostly right, sometimes anything.
class Fuzzer {
  public:
    explicit Fuzzer(unsigned seed) : random_(seed) {}

    int64_t number(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }

    int64_t perhaps(int64_t value) {
        constexpr int64_t kOdd[] = {-2, -1, 0, 1, 9, 1 << 20, INT64_MAX, INT64_MIN};
        return number(0, 150) == 0 ? kOdd[number(0, 7)] : value;
    }

    std::vector<float> floats(int64_t count) {
        std::vector<float> made(static_cast<size_t>(count));
        for (float& value : made) value = std::uniform_real_distribution<float>(0.1f, 1.0f)(random_);
        return made;
    }

  private:
    std::mt19937 random_;
};

constexpr int64_t kChannels = 19, kKernel = 3;  // of every weight and norm: the nodes have fewer

inline Program random_program(Fuzzer& fuzzer, const std::vector<float>& numbers) {
    Program program{};
    program.choices = {2, 2};
    program.weights.assign(2, {address(numbers), kChannels, kChannels, kKernel, {kChannels * 9, 9, 3, 1}});
    program.norms.assign(3, {address(numbers), address(numbers), address(numbers), address(numbers), kChannels});
    program.epsilons.assign(3, 1e-5);
    program.nodes = {{0, 0, 3, 5, 6, 0, 0, -1}};
    using Size = std::pair<int64_t, int64_t>;
    std::vector<Size> sizes{{5, 6}};  // of the nodes, if nothing odd is drawn
    const int64_t count = fuzzer.number(1, 5);
    for (int64_t i = 1; i <= count; ++i) {
        const int64_t leader = fuzzer.number(0, i - 1), step = fuzzer.number(0, 3) ? 1 : fuzzer.number(2, 3);
        const Size before = sizes[static_cast<size_t>(leader)];
        const Size size{(before.first + step - 1) / step, (before.second + step - 1) / step};
        sizes.push_back(size);
        const int64_t first = static_cast<int64_t>(program.terms.size()), terms = fuzzer.number(0, 3);
        const int64_t channels = fuzzer.number(0, 1) ? 3 : fuzzer.number(1, kChannels);
        for (int64_t t = 0; t < terms; ++t) {
            int64_t source = t == 0 ? leader : fuzzer.number(0, i - 1);
            const Size of_source = sizes[static_cast<size_t>(source)];
            if (of_source != size && of_source != before) source = leader;
            const int64_t stride = sizes[static_cast<size_t>(source)] == size ? 1 : step;
            const int64_t kind = fuzzer.number(0, stride > 1 ? 2 : 3);
            const bool weighted = kind < 2;
            program.terms.push_back({fuzzer.perhaps(kind), fuzzer.perhaps(source),
                                     fuzzer.perhaps(kind == 3 ? 1 : 1 + 2 * fuzzer.number(0, 1)),
                                     fuzzer.perhaps(stride), fuzzer.perhaps(fuzzer.number(0, 1)),
                                     fuzzer.perhaps(weighted ? t % 2 : -1),
                                     fuzzer.perhaps(weighted ? fuzzer.number(-1, 2) : -1),
                                     fuzzer.perhaps(fuzzer.number(-1, 1)), fuzzer.perhaps(fuzzer.number(0, 1))});
        }
        const int64_t optional = i < count ? fuzzer.number(0, 1) : 0;
        const bool is_like_image = channels == 3 && size == sizes[0];
        const int64_t zero_of = is_like_image && !optional ? fuzzer.number(-1, 0) : -1;
        program.nodes.push_back({fuzzer.perhaps(first), fuzzer.perhaps(terms), fuzzer.perhaps(channels),
                                 fuzzer.perhaps(size.first), fuzzer.perhaps(size.second),
                                 fuzzer.perhaps(fuzzer.number(0, 1)), fuzzer.perhaps(optional),
                                 fuzzer.perhaps(zero_of)});
    }
    program.head = {
        fuzzer.perhaps(count), fuzzer.perhaps(fuzzer.number(-1, 2)), address(numbers), address(numbers), 4, kChannels};
    return program;
}

// Images, genes, labels and a calibration batch for the programs above, and weights for all of them.
struct RandomInputs {
    static constexpr int64_t kPaths = 3, kImages = 7, kClasses = 4, kCalibration = 5;

    explicit RandomInputs(Fuzzer& fuzzer)
        : numbers(fuzzer.floats(kChannels * kChannels * 9)), pixels(fuzzer.floats(2 * kImages * 90)) {}

    // The request points to this object.
    ScoreRequest request(Statistics statistics, int64_t threads, const std::string& level) const {
        ScoreRequest made{genes.data(), kPaths, {pixels.data(), kImages}, labels.data(), {}, statistics,
                          threads,      level};
        if (statistics == Statistics::kRecalibrated) made.calibration = {{pixels.data(), kCalibration}};
        return made;
    }

    std::vector<float> numbers, pixels;
    std::vector<int64_t> genes{0, 0, 0, 1, 1, 1}, labels{0, 1, 2, 3, 0, 1, 2};
};

// Room for the scores of `RandomInputs`.
struct RandomScores {
    std::vector<double> loss = std::vector<double>(RandomInputs::kPaths);
    std::vector<int64_t> correct = std::vector<int64_t>(RandomInputs::kPaths);
    std::vector<float> logits =
        std::vector<float>(RandomInputs::kPaths * RandomInputs::kImages * RandomInputs::kClasses);

    Scores places() { return {loss.data(), correct.data(), logits.data()}; }

    // Whether the logits of `path` are, bit by bit, those that it got alone.
    bool has_logits(int64_t path, const RandomScores& alone) const {
        const size_t size = static_cast<size_t>(RandomInputs::kImages * RandomInputs::kClasses);
        return std::memcmp(logits.data() + static_cast<size_t>(path) * size, alone.logits.data(),
                           size * sizeof(float)) == 0;
    }

    bool agrees(const RandomScores& other, float tolerance = 1e-4f) const {
        float largest = 1;
        for (const float logit : other.logits) largest = std::fmax(largest, std::fabs(logit));
        for (size_t i = 0; i < logits.size(); ++i) {
            if (!(std::fabs(logits[i] - other.logits[i]) <= tolerance * largest)) return false;
        }
        for (size_t i = 0; i < loss.size(); ++i) {
            if (!(std::fabs(loss[i] - other.loss[i]) <= tolerance * largest)) return false;
        }
        return true;
    }
};

}  // namespace nas_engine
