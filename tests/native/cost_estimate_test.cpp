// Costs and rewards against sums done by hand, and genes that must be refused without being followed.
#include "ops/cost_estimate.h"

#include <cmath>
#include <limits>
#include <vector>

#include "check.h"

using nas_engine::CellEdge;
using nas_engine::Combine;
using nas_engine::cost_estimate_cpu;
using nas_engine::CostTable;
using nas_engine::PricedRows;
using nas_engine::PriceList;
using nas_engine::RewardFormula;
using nas_engine::RewardKind;

namespace {

const double kNan = std::numeric_limits<double>::quiet_NaN();
const double kInfinity = std::numeric_limits<double>::infinity();

PriceList counts_of(const CostTable<int64_t>& table, const std::vector<int64_t>& choices, const CellEdge* edges) {
    PriceList prices{};
    prices.counts.table[0] = table;
    prices.counts.count = 1;
    prices.counts.metrics = table.metrics;
    prices.choices = choices.data();
    prices.edges = edges;
    prices.decisions = static_cast<int64_t>(choices.size());
    return prices;
}

std::vector<int64_t> count(const PriceList& prices, const std::vector<int64_t>& genes) {
    const int64_t rows = static_cast<int64_t>(genes.size()) / prices.decisions;
    std::vector<int64_t> counts(static_cast<size_t>(rows * prices.counts.metrics));
    CHECK(cost_estimate_cpu(prices, {}, {genes.data(), nullptr, rows, counts.data(), nullptr, nullptr}) == rows);
    return counts;
}

// A cell 0 -> 1 -> 2 with the shortcut 0 -> 2, edges sorted by target. Choice 2 costs 10, 20 or 30.
void test_only_edges_on_a_live_path_count() {
    const std::vector<int64_t> constant{1000}, choices{3, 3, 3};
    const std::vector<int64_t> entries{0, 0, 10, 0, 0, 20, 0, 0, 30};
    const std::vector<CellEdge> edges{{0, 0, 1}, {1, 0, 2}, {2, 1, 2}};
    CostTable<int64_t> table{constant.data(), entries.data(), nullptr, 0, 3, 1, Combine::kSum, true};
    const std::vector<int64_t> genes{2, 2, 2, 2, 2, 0, 0, 2, 2, 2, 0, 1, 2, 0, 0};
    CHECK(
        (count(counts_of(table, choices, edges.data()), genes) == std::vector<int64_t>{1060, 1020, 1020, 1010, 1000}));
    table.live_only = false;  // every edge as written
    CHECK(
        (count(counts_of(table, choices, edges.data()), genes) == std::vector<int64_t>{1060, 1030, 1050, 1010, 1010}));
}

void test_the_context_selects_the_table() {
    const std::vector<int64_t> constant{0, 100, 200, 300, 400, 500}, entries(6 * 2 * 3, 1);
    const std::vector<int64_t> decisions{1, 0}, choices{2, 3}, genes{0, 0, 1, 0, 0, 1, 1, 2};
    CostTable<int64_t> table{constant.data(), entries.data(), decisions.data(), 2, 3, 1, Combine::kSum, false};
    CHECK((count(counts_of(table, choices, nullptr), genes) == std::vector<int64_t>{2, 102, 202, 502}));
    table.entries = nullptr;
    CHECK((count(counts_of(table, choices, nullptr), genes) == std::vector<int64_t>{0, 100, 200, 500}));
}

void test_the_largest_entry_is_the_maximum() {
    const std::vector<int64_t> constant{3}, entries{1, 7, 5, -2}, choices{2, 2}, genes{0, 1, 0, 0, 1, 0};
    const CostTable<int64_t> table{constant.data(), entries.data(), nullptr, 0, 2, 1, Combine::kMaximum, false};
    CHECK((count(counts_of(table, choices, nullptr), genes) == std::vector<int64_t>{3, 5, 7}));
}

void test_the_first_bad_row_is_reported_and_not_followed() {
    const std::vector<int64_t> constant{0, 0}, entries{1, 2, 3, 4}, context{0}, choices{2};
    const CostTable<int64_t> table{constant.data(), entries.data(), context.data(), 1, 2, 1, Combine::kSum, false};
    const PriceList prices = counts_of(table, choices, nullptr);
    for (const int64_t bad : {int64_t{2}, int64_t{-1}, std::numeric_limits<int64_t>::min()}) {
        const int64_t rows = 1'100'000;  // so many are shared out over threads
        std::vector<int64_t> genes(static_cast<size_t>(rows), 1), costs(genes.size());
        genes[1'000'000] = genes[123] = bad;
        CHECK(cost_estimate_cpu(prices, {}, {genes.data(), nullptr, rows, costs.data(), nullptr, nullptr}) == 123);
    }
    CHECK(cost_estimate_cpu(prices, {}, {nullptr, nullptr, 0, nullptr, nullptr, nullptr}) == 0);
}

// One decision whose latency is its gene's entry: 1, 2, 30, NaN or infinity; the target is 2.
double reward_of(RewardFormula formula, double accuracy, int64_t gene) {
    const std::vector<double> constant{0}, entries{1, 2, 30, kNan, kInfinity};
    const std::vector<int64_t> choices{5};
    PriceList prices{};
    prices.measures.table[0] = {constant.data(), entries.data(), nullptr, 0, 5, 1, Combine::kSum, false};
    prices.measures.count = prices.measures.metrics = 1;
    prices.choices = choices.data();
    prices.decisions = 1;
    formula.targets[0] = 2;
    formula.largest_ratio = 10;
    formula.smallest_ratio = 1e-6;
    double measure = 0, reward = 0;
    CHECK(cost_estimate_cpu(prices, formula, {&gene, &accuracy, 1, nullptr, &measure, &reward}) == 1);
    return reward;
}

bool near(double a, double b) { return std::fabs(a - b) < 1e-12; }

void test_rewards() {
    CHECK(reward_of({RewardKind::kAccuracy, 0, {}, {}, {}, 1, 0, 0}, 0.5, 3) == 0.5);
    const RewardFormula absolute{RewardKind::kAbsolute, 1, {}, {}, {-0.1}, 1, 0, 0};
    CHECK(near(reward_of(absolute, 0.5, 0), 0.45));
    CHECK(near(reward_of(absolute, 0.5, 2), 0.5 - 1));  // 14 times the target, capped at 10
    CHECK(std::isnan(reward_of(absolute, 0.5, 3)) && std::isnan(reward_of(absolute, kNan, 0)));
    CHECK(reward_of(absolute, 0.5, 4) == -kInfinity);
    const RewardFormula soft{RewardKind::kSoftPower, 1, {}, {}, {0, -1}, 1, 0, 0};
    CHECK(near(reward_of(soft, 0.5, 0), 0.5) && near(reward_of(soft, 0.5, 2), 0.5 / 15));
    CHECK(std::isnan(reward_of(soft, 0.5, 3)));
    RewardFormula weighted{RewardKind::kWeightedSum, 1, {}, {}, {0.2}, 0.8, 0, 0};
    CHECK(near(reward_of(weighted, 0.5, 0), -0.5) && near(reward_of(weighted, 0.5, 2), -0.4 - 2));
    weighted.accuracy_weight = 0;
    CHECK(near(reward_of(weighted, kNan, 0), -0.1));  // an accuracy of weight 0 is not read
}

}  // namespace

int main() {
    test_only_edges_on_a_live_path_count();
    test_the_context_selects_the_table();
    test_the_largest_entry_is_the_maximum();
    test_the_first_bad_row_is_reported_and_not_followed();
    test_rewards();
}
