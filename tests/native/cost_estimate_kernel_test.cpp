// The CUDA kernel, compiled as plain C++ with real threads, against the CPU code on random tables and rewards.
#include <algorithm>
#include <random>
#include <vector>

#include "check.h"
#include "cuda/cost_estimate.cu"

using nas_engine::CellEdge;
using nas_engine::Combine;
using nas_engine::PricedRows;
using nas_engine::PriceList;
using nas_engine::RewardFormula;
using nas_engine::RewardKind;

namespace {

constexpr int64_t kChoices = 4;
constexpr int64_t kRows = 300;  // three blocks, the last one not full

struct Problem {
    std::vector<int64_t> peaks, entries, choices, context, genes;
    std::vector<double> constant, latencies, accuracy;
    std::vector<CellEdge> edges;
    PriceList prices{};
    RewardFormula formula;
};

template <typename T>
std::vector<T> random_numbers(std::mt19937& random, int64_t count, int64_t low, int64_t high) {
    std::uniform_int_distribution<int64_t> number(low, high);
    std::vector<T> numbers;
    for (int64_t i = 0; i < count; ++i) numbers.push_back(static_cast<T>(number(random)));
    return numbers;
}

// Peaks by context, sums of two counts, and one latency, of which the reward is made.
Problem random_problem(std::mt19937& random, int64_t nodes, bool cell, RewardKind kind) {
    Problem problem;
    for (int64_t target = 1; target < nodes; ++target) {
        for (int64_t source = 0; source < target; ++source) {
            problem.edges.push_back({static_cast<int64_t>(problem.edges.size()), source, target});
        }
    }
    const int64_t decisions = static_cast<int64_t>(problem.edges.size());
    problem.choices.assign(static_cast<size_t>(decisions), kChoices);
    problem.context = {decisions - 1, 0};
    problem.peaks = random_numbers<int64_t>(random, kChoices * kChoices, -1000, 1000);
    problem.entries = random_numbers<int64_t>(random, 2 + decisions * kChoices * 2, -1000, 1000);
    problem.constant = {0.5};
    problem.latencies = random_numbers<double>(random, decisions * kChoices, 0, 9);
    problem.genes = random_numbers<int64_t>(random, kRows * decisions, 0, kChoices - 1);
    problem.accuracy = random_numbers<double>(random, kRows, 0, 1);
    const int64_t* entries = problem.entries.data();
    PriceList& prices = problem.prices;
    prices.counts.table[0] = {problem.peaks.data(), nullptr, problem.context.data(), 2, 0, 1, Combine::kMaximum, false};
    prices.counts.table[1] = {entries, entries + 2, nullptr, 0, kChoices, 2, Combine::kSum, cell};
    prices.counts.count = 2;
    prices.counts.metrics = 3;
    const double *constant = problem.constant.data(), *latencies = problem.latencies.data();
    prices.measures.table[0] = {constant, latencies, nullptr, 0, kChoices, 1, Combine::kSum, cell};
    prices.measures.count = prices.measures.metrics = 1;
    prices.choices = problem.choices.data();
    prices.edges = cell ? problem.edges.data() : nullptr;
    prices.decisions = decisions;
    prices.zero_choice = 1;
    const int64_t costs = kind == RewardKind::kAccuracy ? 0 : kind == RewardKind::kWeightedSum ? 2 : 1;
    problem.formula = {kind, costs, {3, 0}, {2.0, 400.0}, {-0.07, -0.5}, 0.8, 10, 1e-6};
    return problem;
}

struct Results {
    explicit Results(const Problem& problem, int64_t rows)
        : counts(static_cast<size_t>(3 * rows)),
          measures(static_cast<size_t>(rows)),
          rewards(static_cast<size_t>(rows)),
          priced{problem.genes.data(), problem.accuracy.data(), rows, counts.data(), measures.data(), rewards.data()} {}

    bool operator==(const Results& other) const {
        return counts == other.counts && measures == other.measures && rewards == other.rewards;
    }

    std::vector<int64_t> counts;
    std::vector<double> measures, rewards;
    PricedRows priced;
};

void test_kernel_equals_cpu(const Problem& problem, int64_t rows, int64_t expected_bad) {
    Results by_cpu(problem, rows), by_kernel(problem, rows), by_one_block(problem, rows);
    CHECK(cost_estimate_cpu(problem.prices, problem.formula, by_cpu.priced) == expected_bad);
    int64_t first_bad = rows;
    cost_estimate_cuda(problem.prices, problem.formula, by_kernel.priced, &first_bad, nullptr);
    CHECK(first_bad == expected_bad);
    CHECK(by_kernel == by_cpu);
    first_bad = rows;  // again with one small block, so that threads take many rows
    nas_engine::launch(nas_engine::cost_estimate_kernel, 1, 32, nullptr, problem.prices, problem.formula,
                       by_one_block.priced, &first_bad);
    CHECK(first_bad == expected_bad);
    CHECK(by_one_block == by_cpu);
}

}  // namespace

int main() {
    std::mt19937 random(0);
    const RewardKind kinds[] = {RewardKind::kAccuracy, RewardKind::kWeightedSum, RewardKind::kSoftPower,
                                RewardKind::kAbsolute};
    for (int64_t nodes = 2; nodes < 7; ++nodes) {
        Problem problem = random_problem(random, nodes, nodes % 2 == 0, kinds[nodes % 4]);
        test_kernel_equals_cpu(problem, kRows, kRows);
        problem.genes[static_cast<size_t>(290 * problem.prices.decisions)] = 4;
        problem.genes[static_cast<size_t>(7 * problem.prices.decisions)] = -1;
        test_kernel_equals_cpu(problem, kRows, 7);
        test_kernel_equals_cpu(problem, 0, 0);
    }
}
