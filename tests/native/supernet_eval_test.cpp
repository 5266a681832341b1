// Scores of a network done by hand, and random programs: each is refused or computed, alike on every instruction set.
#include "ops/supernet_eval.h"

#include <cmath>
#include <stdexcept>

#include "check.h"
#include "random_program.h"

using namespace nas_engine;

namespace {

// 1x1 convolution by 2, BatchNorm (mean 1, variance 4), head: mean -> two classes with weights 1 and -1.
void test_a_network_by_hand() {
    const std::vector<float> weight{2}, one{1}, zero{0}, mean{1}, variance{4}, classifier{1, -1}, bias{0, 0};
    Program program;
    program.nodes = {{0, 0, 1, 2, 2, 0, 0, -1}, {0, 1, 1, 2, 2, 0, 0, -1}};
    program.terms = {{0, 0, 1, 1, 0, 0, 0, 0, 1}};  // on the paths whose gene is 1
    program.weights = {{address(weight), 1, 1, 1, {1, 1, 1, 1}}};
    program.norms = {{address(one), address(zero), address(mean), address(variance), 1}};
    program.epsilons = {0};
    program.head = {1, -1, address(classifier), address(bias), 2, 1};
    program.choices = {2};
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

// Returns whether the program was computed.
bool test_a_random_program(unsigned seed) {
    Fuzzer fuzzer(seed);
    const RandomInputs inputs(fuzzer);
    const Program program = random_program(fuzzer, inputs.numbers);
    try {
        check_program(program);
        for (const Statistics statistics : {Statistics::kRunning, Statistics::kBatch, Statistics::kRecalibrated}) {
            RandomScores first;
            for (const std::string& level : kernel_levels()) {
                RandomScores scores;
                supernet_eval_cpu(program, inputs.request(statistics, 1 + seed % 3, level), scores.places());
                if (level == kernel_levels().front()) first = scores;
                // The variance of two equal values is noise: norms then enlarge differences.
                CHECK(statistics != Statistics::kRunning || scores.agrees(first));
                for (int64_t path = 0; path < RandomInputs::kPaths; ++path) {  // whatever is scored with it
                    RandomScores alone;
                    ScoreRequest request = inputs.request(statistics, 1, level);
                    request.genes += path * program.decisions();
                    request.paths = 1;
                    supernet_eval_cpu(program, request, alone.places());
                    CHECK(scores.has_logits(path, alone));
                }
            }
            for (const std::string& level : bfloat16_levels()) {
                RandomScores scores;
                supernet_eval_cpu(program, inputs.request(statistics, 1 + seed % 3, level), scores.places());
                CHECK(statistics != Statistics::kRunning || scores.agrees(first, 0.02f));
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
