// The CUDA kernel, compiled as plain C++ with real threads, against the CPU code on random tables.
#include <algorithm>
#include <random>
#include <vector>

#include "check.h"
#include "cuda/cost_estimate.cu"

using nas_engine::CellEdge;
using nas_engine::CostTable;

namespace {

struct Problem {
    std::vector<int64_t> constant, entries, genes;
    std::vector<CellEdge> edges;
    CostTable table;
    int64_t rows;
};

Problem random_problem(std::mt19937& random, int64_t nodes, bool cell) {
    Problem problem;
    for (int64_t target = 1; target < nodes; ++target) {
        for (int64_t source = 0; source < target; ++source) {
            problem.edges.push_back({static_cast<int64_t>(problem.edges.size()), source, target});
        }
    }
    const int64_t decisions = static_cast<int64_t>(problem.edges.size()), choices = 4, metrics = 2;
    std::uniform_int_distribution<int64_t> cost(-1000, 1000), gene(0, choices - 1);
    for (int64_t i = 0; i < metrics; ++i) problem.constant.push_back(cost(random));
    for (int64_t i = 0; i < decisions * choices * metrics; ++i) problem.entries.push_back(cost(random));
    problem.rows = 300;  // three blocks, the last one not full
    for (int64_t i = 0; i < problem.rows * decisions; ++i) problem.genes.push_back(gene(random));
    problem.table = {problem.constant.data(),
                     problem.entries.data(),
                     nullptr,
                     nullptr,
                     cell ? problem.edges.data() : nullptr,
                     decisions,
                     choices,
                     metrics,
                     0,
                     1};
    return problem;
}

void test_kernel_equals_cpu(Problem& problem, int64_t expected_bad) {
    const size_t size = static_cast<size_t>(problem.rows * problem.table.metrics);
    std::vector<int64_t> by_cpu(size), by_kernel(size);
    int64_t first_bad = problem.rows;
    CHECK(cost_estimate_cpu(problem.table, problem.genes.data(), problem.rows, by_cpu.data()) == expected_bad);
    cost_estimate_cuda(problem.table, problem.genes.data(), problem.rows, by_kernel.data(), &first_bad, nullptr);
    CHECK(first_bad == expected_bad);
    CHECK(by_kernel == by_cpu);
    std::fill(by_kernel.begin(), by_kernel.end(), 0);  // again with one small block, so that threads take many rows
    first_bad = problem.rows;
    nas_engine::launch(nas_engine::cost_estimate_kernel, 1, 32, nullptr, problem.table, problem.genes.data(),
                       problem.rows, by_kernel.data(), &first_bad);
    CHECK(first_bad == expected_bad);
    CHECK(by_kernel == by_cpu);
}

}  // namespace

int main() {
    std::mt19937 random(0);
    for (int64_t nodes = 2; nodes < 7; ++nodes) {
        Problem problem = random_problem(random, nodes, nodes % 2 == 0);
        test_kernel_equals_cpu(problem, problem.rows);
        problem.genes[static_cast<size_t>(290 * problem.table.decisions)] = 4;
        problem.genes[static_cast<size_t>(7 * problem.table.decisions)] = -1;
        test_kernel_equals_cpu(problem, 7);
        problem.rows = 0;
        test_kernel_equals_cpu(problem, 0);
    }
}
