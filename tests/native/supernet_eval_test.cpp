// Scores of a network done by hand, and random programs: each is refused or computed, alike on every instruction set.
#include "ops/supernet_eval.h"

#include <cmath>
#include <random>
#include <stdexcept>

#include "check.h"

using namespace nas_engine;

namespace {

int64_t address(const std::vector<float>& numbers) { return reinterpret_cast<int64_t>(numbers.data()); }

// 1x1 convolution by 2, BatchNorm (mean 1, variance 4), head: mean -> two classes with weights 1 and -1.
void test_a_network_by_hand() {
    const std::vector<float> weight{2}, one{1}, zero{0}, mean{1}, variance{4}, classifier{1, -1}, bias{0, 0};
    Program program;
    program.nodes = {{0, 0, 1, 2, 2, 0, 0}, {0, 1, 1, 2, 2, 0, 0}};
    program.terms = {{0, 0, 1, 1, 0, 0, 0, 0, 1}};  // on the paths whose gene is 1
    program.weights = {{address(weight), 1, 1, 1, {1, 1, 1, 1}}};
    program.norms = {{address(one), address(zero), address(mean), address(variance), 1}};
    program.epsilons = {0};
    program.head = {1, -1, address(classifier), address(bias), 2, 1};
    program.decisions = 1;
    check_program(program);
    const std::vector<float> images{1, 2, 3, 4};  // mean after the norm: (2 * 2.5 - 1) / 2 = 2
    const std::vector<int64_t> genes{1, 0}, labels{0};
    for (const std::string& level : kernel_levels()) {
        std::vector<double> loss(2);
        std::vector<int64_t> correct(2);
        std::vector<float> logits(4);
        const ScoreRequest request{genes.data(), 2, {images.data(), 1}, labels.data(), {}, Statistics::kRunning, 1,
                                   level};
        supernet_eval_cpu(program, request, {loss.data(), correct.data(), logits.data()});
        CHECK(std::fabs(logits[0] - 2) < 1e-5 && std::fabs(logits[1] + 2) < 1e-5);
        CHECK(logits[2] == 0 && logits[3] == 0);  // nothing reaches the head: zeros
        CHECK(std::fabs(loss[0] - std::log1p(std::exp(-4.0))) < 1e-5);
        CHECK(correct[0] == 1);
    }
}

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

Program random_program(Fuzzer& fuzzer, const std::vector<float>& numbers) {
    Program program{};
    program.decisions = 2;
    program.weights.assign(2, {address(numbers), kChannels, kChannels, kKernel, {kChannels * 9, 9, 3, 1}});
    program.norms.assign(3, {address(numbers), address(numbers), address(numbers), address(numbers), kChannels});
    program.epsilons.assign(3, 1e-5);
    program.nodes = {{0, 0, 3, 5, 6, 0, 0}};
    const int64_t count = fuzzer.number(1, 5);
    for (int64_t i = 1; i <= count; ++i) {
        const int64_t first = static_cast<int64_t>(program.terms.size()), terms = fuzzer.number(0, 3);
        const int64_t channels = fuzzer.number(0, 1) ? 3 : fuzzer.number(1, kChannels);
        for (int64_t t = 0; t < terms; ++t) {
            const int64_t kind = fuzzer.number(0, 3);
            const bool weighted = kind < 2;
            program.terms.push_back({fuzzer.perhaps(kind), fuzzer.perhaps(fuzzer.number(0, i - 1)),
                                     fuzzer.perhaps(kind == 3 ? 1 : 1 + 2 * fuzzer.number(0, 1)), fuzzer.perhaps(1),
                                     fuzzer.perhaps(fuzzer.number(0, 1)), fuzzer.perhaps(weighted ? t % 2 : -1),
                                     fuzzer.perhaps(weighted ? fuzzer.number(-1, 2) : -1),
                                     fuzzer.perhaps(fuzzer.number(-1, 1)), fuzzer.perhaps(fuzzer.number(0, 1))});
        }
        program.nodes.push_back({fuzzer.perhaps(first), fuzzer.perhaps(terms), fuzzer.perhaps(channels),
                                 fuzzer.perhaps(5), fuzzer.perhaps(6), fuzzer.perhaps(fuzzer.number(0, 1)),
                                 fuzzer.perhaps(i < count ? fuzzer.number(0, 1) : 0)});
    }
    program.head = {
        fuzzer.perhaps(count), fuzzer.perhaps(fuzzer.number(-1, 2)), address(numbers), address(numbers), 4, kChannels};
    return program;
}

// Returns whether the program was computed.
bool test_a_random_program(unsigned seed) {
    Fuzzer fuzzer(seed);
    const std::vector<float> numbers = fuzzer.floats(kChannels * kChannels * 9), pixels = fuzzer.floats(2 * 7 * 90);
    const Program program = random_program(fuzzer, numbers);
    const std::vector<int64_t> genes{0, 0, 0, 1, 1, 1}, labels{0, 1, 2, 3, 0, 1, 2};
    std::vector<float> first_logits;
    try {
        check_program(program);
        for (const std::string& level : kernel_levels()) {
            for (const Statistics statistics : {Statistics::kRunning, Statistics::kBatch, Statistics::kRecalibrated}) {
                std::vector<double> loss(3);
                std::vector<int64_t> correct(3);
                std::vector<float> logits(3 * 7 * 4);
                ScoreRequest request{genes.data(), 3,          {pixels.data(), 7}, labels.data(),
                                     {},           statistics, 1 + seed % 3,       level};
                if (statistics == Statistics::kRecalibrated) request.calibration = {{pixels.data(), 5}};
                supernet_eval_cpu(program, request, {loss.data(), correct.data(), logits.data()});
                if (statistics != Statistics::kRunning) continue;
                if (first_logits.empty()) first_logits = logits;
                float largest = 1;
                for (const float logit : first_logits) largest = std::fmax(largest, std::fabs(logit));
                for (size_t i = 0; i < logits.size(); ++i) {
                    CHECK(std::fabs(logits[i] - first_logits[i]) <= 1e-4f * largest);
                }
            }
        }
    } catch (const std::invalid_argument&) {
        return false;
    }
    return true;
}

}  // namespace

int main() {
    test_a_network_by_hand();
    int computed = 0;
    for (unsigned seed = 0; seed < 1500; ++seed) computed += test_a_random_program(seed);
    CHECK(computed > 100);  // the fuzzer makes programs of both kinds
    CHECK(computed < 1500);
}
