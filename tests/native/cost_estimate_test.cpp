// Costs against sums done by hand, and genes that must be refused without being followed.
#include "ops/cost_estimate.h"

#include <limits>
#include <vector>

#include "check.h"

using nas_engine::CellEdge;
using nas_engine::cost_estimate_cpu;
using nas_engine::CostTable;

namespace {

// A cell 0 -> 1 -> 2 with the shortcut 0 -> 2, edges sorted by target. Choice 2 costs 10, 20 or 30.
void test_only_edges_on_a_live_path_count() {
    const std::vector<int64_t> constant{1000};
    const std::vector<int64_t> entries{0, 0, 10, 0, 0, 20, 0, 0, 30};
    const std::vector<CellEdge> edges{{0, 0, 1}, {1, 0, 2}, {2, 1, 2}};
    const CostTable table{constant.data(), entries.data(), nullptr, nullptr, edges.data(), 3, 3, 1, 0, 0};
    const std::vector<int64_t> genes{2, 2, 2, 2, 2, 0, 0, 2, 2, 2, 0, 1, 2, 0, 0};
    const std::vector<int64_t> expected{1060, 1020, 1020, 1010, 1000};
    std::vector<int64_t> costs(expected.size());
    CHECK(cost_estimate_cpu(table, genes.data(), 5, costs.data()) == 5);
    CHECK(costs == expected);
}

void test_the_context_selects_the_table() {
    const std::vector<int64_t> constant{0, 100, 200, 300, 400, 500};
    const std::vector<int64_t> entries(6 * 2 * 3, 1);
    const std::vector<int64_t> decisions{1, 0};
    const std::vector<int64_t> sizes{3, 2};
    const CostTable table{constant.data(), entries.data(), decisions.data(), sizes.data(), nullptr, 2, 3, 1, 2, 0};
    const std::vector<int64_t> genes{0, 0, 1, 0, 0, 1, 1, 2};
    std::vector<int64_t> costs(4);
    CHECK(cost_estimate_cpu(table, genes.data(), 4, costs.data()) == 4);
    CHECK((costs == std::vector<int64_t>{2, 102, 202, 502}));
}

void test_the_first_bad_row_is_reported() {
    const std::vector<int64_t> constant{0};
    const std::vector<int64_t> entries{1, 2};
    const CostTable table{constant.data(), entries.data(), nullptr, nullptr, nullptr, 1, 2, 1, 0, 0};
    for (const int64_t bad : {int64_t{2}, int64_t{-1}, std::numeric_limits<int64_t>::min()}) {
        std::vector<int64_t> genes(50'000, 1);
        genes[40'000] = genes[123] = bad;
        std::vector<int64_t> costs(genes.size());
        CHECK(cost_estimate_cpu(table, genes.data(), 50'000, costs.data()) == 123);
    }
    CHECK(cost_estimate_cpu(table, nullptr, 0, nullptr) == 0);
}

}  // namespace

int main() {
    test_only_edges_on_a_live_path_count();
    test_the_context_selects_the_table();
    test_the_first_bad_row_is_reported();
}
