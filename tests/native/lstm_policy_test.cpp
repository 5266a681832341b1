// Every instruction set against the baseline and against differences of the loss; draws; samples that must be refused.
#include "ops/lstm_policy.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.h"

using nas_engine::Policy;
using nas_engine::PolicySize;

namespace {

// Genes may sum to `kMost` at most: a state for each decision and sum, and one at the end.
constexpr int64_t kMost = 4;

struct Network {
    Network(PolicySize of, uint32_t seed) : size(of) {
        size.states = size.decisions * (kMost + 1) + 1;
        for (int64_t state = 0; state + 1 < size.states; ++state) {
            for (int64_t choice = 0; choice < size.choices; ++choice) {
                const int64_t sum = state % (kMost + 1) + choice, decision = state / (kMost + 1);
                const bool is_last = decision + 1 == size.decisions;
                const int64_t next = is_last ? size.states - 1 : (decision + 1) * (kMost + 1) + sum;
                transitions.push_back(sum <= kMost ? static_cast<int32_t>(next) : -1);
            }
        }
        transitions.insert(transitions.end(), size.choices, -1);
        const nas_engine::PolicyTensors<const float> parts(size, nullptr);
        weights.resize(parts.value_bias + 1 - static_cast<const float*>(nullptr));
        std::mt19937 random(seed);
        std::normal_distribution<float> normal(0, 0.5F);
        for (float& weight : weights) weight = normal(random);
    }

    Policy policy(const std::string& level) const {
        return {size, weights.data(), transitions.data(), 1.5F, 2.0F, level};
    }

    PolicySize size;
    std::vector<int32_t> transitions;
    std::vector<float> weights;
};

std::vector<int64_t> draw(const Policy& policy, int64_t samples) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(0, 0.999F);
    std::vector<float> numbers(samples * policy.size.decisions);
    for (float& number : numbers) number = uniform(random);
    std::vector<int64_t> genes(numbers.size());
    CHECK(nas_engine::lstm_policy_sample(policy, numbers.data(), nullptr, samples, genes.data()));
    return genes;
}

struct Result {
    std::vector<float> outputs, tape;
    std::vector<uint8_t> open;
};

Result evaluate(const Policy& policy, const std::vector<int64_t>& genes) {
    const int64_t samples = static_cast<int64_t>(genes.size()) / policy.size.decisions;
    Result result;
    result.outputs.resize(3 * genes.size());
    result.open.resize(genes.size());
    result.tape.resize(policy_tape_size(policy.size, samples));
    CHECK(lstm_policy_evaluate(policy, {genes.data(), samples}, result.outputs.data(), result.open.data(),
                               result.tape.data()) == samples);
    return result;
}

// A loss that weighs every output differently.
float slope(size_t output) { return std::sin(static_cast<float>(output) + 1); }

std::vector<float> gradient(const Policy& policy, const std::vector<int64_t>& genes, size_t weights) {
    const int64_t samples = static_cast<int64_t>(genes.size()) / policy.size.decisions;
    const Result result = evaluate(policy, genes);
    std::vector<float> upstream(result.outputs.size()), found(weights);
    for (size_t i = 0; i < upstream.size(); ++i) upstream[i] = slope(i);
    CHECK(lstm_policy_gradient(policy, {genes.data(), samples}, result.tape.data(), upstream.data(), found.data()) ==
          samples);
    return found;
}

double loss(const Policy& policy, const std::vector<int64_t>& genes) {
    const std::vector<float> outputs = evaluate(policy, genes).outputs;
    double sum = 0;
    for (size_t i = 0; i < outputs.size(); ++i) sum += static_cast<double>(slope(i)) * outputs[i];
    return sum;
}

bool near(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance * (1 + std::abs(b)); }

void test_levels_agree(PolicySize size, int64_t samples) {
    const Network network(size, 7);
    const std::vector<int64_t> genes = draw(network.policy("baseline"), samples);
    const Result expected = evaluate(network.policy("baseline"), genes);
    const std::vector<float> slopes = gradient(network.policy("baseline"), genes, network.weights.size());
    for (const std::string& level : nas_engine::policy_levels()) {
        const Result found = evaluate(network.policy(level), genes);
        for (size_t i = 0; i < found.outputs.size(); ++i) CHECK(near(found.outputs[i], expected.outputs[i], 1e-4));
        CHECK(found.open == expected.open);
        const std::vector<float> other = gradient(network.policy(level), genes, network.weights.size());
        for (size_t i = 0; i < other.size(); ++i) CHECK(near(other[i], slopes[i], 1e-3));
    }
}

void test_gradient_is_that_of_the_loss() {
    Network network({3, 4, 5, 6, 0}, 3);
    const std::vector<int64_t> genes = draw(network.policy(""), 18);
    const std::vector<float> slopes = gradient(network.policy(""), genes, network.weights.size());
    for (size_t i = 0; i < network.weights.size(); ++i) {
        const float weight = network.weights[i];
        network.weights[i] = weight + 0.01F;
        const double above = loss(network.policy(""), genes);
        network.weights[i] = weight - 0.01F;
        const double below = loss(network.policy(""), genes);
        network.weights[i] = weight;
        CHECK(near(slopes[i], (above - below) / 0.02, 0.02));
    }
}

void test_draws_stay_in_the_diagram() {
    const Network network({5, 4, 3, 4, 0}, 5);
    for (const std::string& level : nas_engine::policy_levels()) {
        const std::vector<int64_t> genes = draw(network.policy(level), 50);
        for (size_t sample = 0; sample < 50; ++sample) {
            int64_t sum = 0;
            for (size_t decision = 0; decision < 5; ++decision) sum += genes[sample * 5 + decision];
            CHECK(sum <= kMost);
        }
    }
}

void test_what_is_no_path_is_refused() {
    const Network network({2, 4, 3, 4, 0}, 9);
    const Policy policy = network.policy("");
    std::vector<float> outputs(6 * 20), tape(policy_tape_size(policy.size, 20)), gradient(network.weights.size());
    std::vector<uint8_t> open(2 * 20);
    for (const int64_t gene : {int64_t{4}, int64_t{-1}, std::numeric_limits<int64_t>::max()}) {
        std::vector<int64_t> genes(2 * 20);
        genes[2 * 17] = gene;
        CHECK(lstm_policy_evaluate(policy, {genes.data(), 20}, outputs.data(), open.data(), tape.data()) == 17);
        CHECK(lstm_policy_gradient(policy, {genes.data(), 20}, tape.data(), outputs.data(), gradient.data()) == 17);
    }
    std::vector<int64_t> closed{3, 1, 3, 2};
    CHECK(lstm_policy_evaluate(policy, {closed.data(), 2}, outputs.data(), open.data(), tape.data()) == 1);
}

}  // namespace

int main() {
    test_levels_agree({6, 5, 16, 24, 0}, 19);
    test_levels_agree({4, 20, 7, 9, 0}, 33);
    test_levels_agree({1, 1, 1, 1, 0}, 1);
    test_gradient_is_that_of_the_loss();
    test_draws_stay_in_the_diagram();
    test_what_is_no_path_is_refused();
}
