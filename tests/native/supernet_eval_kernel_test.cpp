// The CUDA kernels, compiled as plain C++ with real threads, against the CPU code on random networks.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <stdexcept>

#include "check.h"
#include "cuda/supernet_eval.cu"
#include "random_program.h"

using namespace nas_engine;

namespace {

struct Freed {
    void operator()(void* memory) const { std::free(memory); }
};

// What the Python wrapper does with tensors: a workspace that starts with the tables, then the launches.
void run(const DevicePlan& plan, const DeviceScores& scores) {
    const std::unique_ptr<void, Freed> workspace(std::aligned_alloc(256, static_cast<size_t>(plan.workspace_bytes)));
    std::copy(plan.tables.begin(), plan.tables.end(), static_cast<unsigned char*>(workspace.get()));
    supernet_eval_cuda(plan, scores, workspace.get(), nullptr);
}

void score_with_kernels(const Program& program, const ScoreRequest& request, int64_t threads, const Scores& scores) {
    DeviceScores wanted{request.images.pixels, request.labels, nullptr,      nullptr, 0,
                        scores.loss,           scores.correct, scores.logits};
    NormStyle style = request.statistics == Statistics::kBatch ? NormStyle::kMeasured : NormStyle::kFolded;
    std::vector<float> averages;
    float weight = 1;
    for (const Images& batch : request.calibration) {
        const DevicePlan plan =
            make_device_plan(program, request.genes, request.paths, NormStyle::kMeasured, {batch.count, 1, threads});
        averages.resize(static_cast<size_t>(request.paths * 2 * plan.norm_channels));
        run(plan, {batch.pixels, nullptr, nullptr, averages.data(), weight, nullptr, nullptr, nullptr});
        weight = weight / (1 + weight);
        wanted.statistics = averages.data();
    }
    run(make_device_plan(program, request.genes, request.paths, style, {request.images.count, 2, threads}), wanted);
}

// Returns whether the program was computed.
bool test_a_random_program(unsigned seed) {
    Fuzzer fuzzer(seed);
    const RandomInputs inputs(fuzzer);
    const Program program = random_program(fuzzer, inputs.numbers);
    try {
        check_program(program);
        for (const Statistics statistics : {Statistics::kRunning, Statistics::kBatch, Statistics::kRecalibrated}) {
            RandomScores by_cpu, by_kernels;
            const ScoreRequest request = inputs.request(statistics, 1, "");
            supernet_eval_cpu(program, request, by_cpu.places());
            score_with_kernels(program, request, seed % 2 ? 8 : 13, by_kernels.places());
            CHECK(by_kernels.agrees(by_cpu));
        }
    } catch (const std::invalid_argument&) {
        return false;
    }
    return true;
}

void test_nothing_to_score() {
    Fuzzer fuzzer(0);
    RandomInputs inputs(fuzzer);
    const Program program = random_program(fuzzer, inputs.numbers);
    ScoreRequest request = inputs.request(Statistics::kRunning, 1, "");
    request.images.count = 0;
    RandomScores scores;
    score_with_kernels(program, request, 8, {scores.loss.data(), scores.correct.data(), nullptr});
    for (const double loss : scores.loss) CHECK(std::isnan(loss));
    for (const int64_t correct : scores.correct) CHECK(correct == 0);
    request.paths = 0;
    score_with_kernels(program, request, 8, {nullptr, nullptr, nullptr});
}

}  // namespace

int main() {
    test_nothing_to_score();
    int computed = 0;
    for (unsigned seed = 0; seed < 100; ++seed) computed += test_a_random_program(seed);
    CHECK(computed > 12);
}
