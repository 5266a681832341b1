// Costs of architectures from tables, and their rewards: the arithmetic of one row, shared by CPU and CUDA.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace nas_engine {

constexpr int64_t kMaxCellNodes = 64;  // a set of nodes is one machine word
constexpr int64_t kMaxCostTables = 4;  // of one type; a price list travels to the GPU as a kernel's argument

// One edge of a cell; `decision` is the position of its gene.
struct CellEdge {
    int64_t decision;
    int64_t source;
    int64_t target;
};

enum class Combine : int64_t { kSum, kMaximum };

// The arrays of nas_engine.ops.cost_table.CostTable.
template <typename T>
struct CostTable {
    const T* constant;                 // [contexts, metrics]
    const T* entries;                  // [contexts, decisions, max_choices, metrics], or null: the constants are all
    const int64_t* context_decisions;  // [context_count], most significant first
    int64_t context_count;
    int64_t max_choices;
    int64_t metrics;
    Combine combine;
    bool live_only;  // an edge on no path from input to output counts as `zero_choice`
};

template <typename T>
struct CostTables {
    CostTable<T> table[kMaxCostTables];
    int64_t count;
    int64_t metrics;  // of all tables
};

// The caller guarantees: sizes agree, no gene below its `choices` leads out of a table, edges have source < target <
// kMaxCellNodes and come sorted by target. Genes may hold anything: they are checked here.
struct PriceList {
    CostTables<int64_t> counts;
    CostTables<double> measures;
    const int64_t* choices;  // [decisions]
    const CellEdge* edges;   // [decisions], or null where there is no cell
    int64_t decisions;
    int64_t zero_choice;
};

enum class RewardKind : int64_t { kAccuracy, kWeightedSum, kSoftPower, kAbsolute };

// The numbers of nas_engine.ops.reward.RewardFormula.
struct RewardFormula {
    RewardKind kind;
    int64_t metrics;     // how many costs it reads, 0 to 2
    int64_t columns[2];  // which: counts come first, then measures
    double targets[2];
    double weights[2];
    double accuracy_weight;
    double largest_ratio;
    double smallest_ratio;
};

// Rows to price and where the results go.
struct PricedRows {
    const int64_t* genes;    // [rows, decisions]
    const double* accuracy;  // [rows], or null where no rewards are wanted
    int64_t rows;
    int64_t* counts;   // [rows, metrics of counts]
    double* measures;  // [rows, metrics of measures]
    double* rewards;   // [rows], or null
};

struct LiveNodes {
    uint64_t from_input;  // bit i: node 0 reaches node i over edges that are not zero
    uint64_t to_output;   // bit i: node i reaches the last node over such edges
};

NAS_ENGINE_HOST_DEVICE inline LiveNodes live_nodes(const PriceList& prices, const int64_t* genes) {
    // Sorted by target, every edge into a node comes before every edge out of it, and the reverse backwards.
    const int64_t last = prices.edges[prices.decisions - 1].target;
    LiveNodes live{1, uint64_t{1} << last};
    for (int64_t i = 0; i < prices.decisions; ++i) {
        const CellEdge& edge = prices.edges[i];
        const uint64_t open = genes[edge.decision] != prices.zero_choice;
        live.from_input |= (open & (live.from_input >> edge.source)) << edge.target;
    }
    for (int64_t i = prices.decisions - 1; i >= 0; --i) {
        const CellEdge& edge = prices.edges[i];
        const uint64_t open = genes[edge.decision] != prices.zero_choice;
        live.to_output |= (open & (live.to_output >> edge.target)) << edge.source;
    }
    return live;
}

NAS_ENGINE_HOST_DEVICE inline bool genes_exist(const PriceList& prices, const int64_t* genes) {
    bool exist = true;  // as unsigned numbers, one comparison also catches negatives
    for (int64_t i = 0; i < prices.decisions; ++i) {
        exist &= static_cast<uint64_t>(genes[i]) < static_cast<uint64_t>(prices.choices[i]);
    }
    return exist;
}

NAS_ENGINE_HOST_DEVICE inline int64_t plus(int64_t a, int64_t b) {
    return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));  // wraps, as NumPy's does
}

NAS_ENGINE_HOST_DEVICE inline double plus(double a, double b) { return a + b; }

template <typename T>
NAS_ENGINE_HOST_DEVICE inline T combined(Combine combine, T cost, T entry) {
    if (combine == Combine::kSum) return plus(cost, entry);
    return cost < entry || entry != entry ? entry : cost;  // a NaN stays, whichever of the two it is
}

// Some metrics of one table, kept in registers; `constant`, `entries` and `costs` point to the first of them.
template <int kMetrics, typename T>
NAS_ENGINE_HOST_DEVICE inline void price_metrics(const PriceList& prices, const CostTable<T>& table,
                                                 const int64_t* genes, const LiveNodes& live, const T* constant,
                                                 const T* entries, T* costs) {
    T totals[kMetrics];
    for (int metric = 0; metric < kMetrics; ++metric) totals[metric] = constant[metric];
    for (int64_t i = 0; i < prices.decisions; ++i) {
        int64_t decision = i, gene = genes[i];
        if (table.live_only) {
            const CellEdge& edge = prices.edges[i];
            const bool counts = (live.from_input >> edge.source) & (live.to_output >> edge.target) & 1;
            decision = edge.decision;
            gene = counts ? genes[decision] : prices.zero_choice;
        }
        const T* entry = entries + (decision * table.max_choices + gene) * table.metrics;
        for (int metric = 0; metric < kMetrics; ++metric) {
            totals[metric] = combined(table.combine, totals[metric], entry[metric]);
        }
    }
    for (int metric = 0; metric < kMetrics; ++metric) costs[metric] = totals[metric];
}

template <typename T>
NAS_ENGINE_HOST_DEVICE inline void price_table(const PriceList& prices, const CostTable<T>& table, const int64_t* genes,
                                               const LiveNodes& live, T* costs) {
    int64_t context = 0;
    for (int64_t i = 0; i < table.context_count; ++i) {
        const int64_t decision = table.context_decisions[i];
        context = context * prices.choices[decision] + genes[decision];
    }
    const T* constant = table.constant + context * table.metrics;
    int64_t metric = 0;
    if (table.entries == nullptr) {
        for (; metric < table.metrics; ++metric) costs[metric] = constant[metric];
        return;
    }
    const T* entries = table.entries + context * prices.decisions * table.max_choices * table.metrics;
    for (; metric + 2 <= table.metrics; metric += 2) {
        price_metrics<2>(prices, table, genes, live, constant + metric, entries + metric, costs + metric);
    }
    if (metric < table.metrics) {
        price_metrics<1>(prices, table, genes, live, constant + metric, entries + metric, costs + metric);
    }
}

template <typename T>
NAS_ENGINE_HOST_DEVICE inline void price_tables(const PriceList& prices, const CostTables<T>& tables,
                                                const int64_t* genes, const LiveNodes& live, T* costs) {
    for (int64_t i = 0; i < tables.count; ++i) {
        price_table(prices, tables.table[i], genes, live, costs);
        costs += tables.table[i].metrics;
    }
}

// A success is never worse than a failure, which counts as `largest`; NaN and infinity come through.
NAS_ENGINE_HOST_DEVICE inline double capped(double ratio, double largest) {
    return std::isfinite(ratio) && ratio > largest ? largest : ratio;
}

// The arithmetic of nas_engine/objectives.py, which explains it; `ratios` are costs divided by their targets.
NAS_ENGINE_HOST_DEVICE inline double reward(const RewardFormula& formula, double accuracy, const double* ratios) {
    switch (formula.kind) {
        case RewardKind::kAccuracy:
            return accuracy;
        case RewardKind::kWeightedSum: {
            double sum = formula.accuracy_weight > 0 ? formula.accuracy_weight * (1 - accuracy) : 0;
            for (int64_t i = 0; i < formula.metrics; ++i) {
                sum += formula.weights[i] * capped(ratios[i], formula.largest_ratio);
            }
            return -sum;
        }
        case RewardKind::kSoftPower: {
            const double exponent = ratios[0] <= 1 ? formula.weights[0] : formula.weights[1];
            const double base = ratios[0] < formula.smallest_ratio ? formula.smallest_ratio : ratios[0];
            return accuracy * std::pow(base, exponent);
        }
        case RewardKind::kAbsolute:
            return accuracy + formula.weights[0] * capped(std::fabs(ratios[0] - 1), formula.largest_ratio);
    }
    return NAN;
}

// Prices one row, and rewards it where accuracies are given. Returns false where a gene is out of range; then nothing
// is written.
NAS_ENGINE_HOST_DEVICE inline bool price(const PriceList& prices, const RewardFormula& formula, const PricedRows& all,
                                         int64_t row) {
    const int64_t* genes = all.genes + row * prices.decisions;
    int64_t* counts = all.counts + row * prices.counts.metrics;
    double* measures = all.measures + row * prices.measures.metrics;
    if (!genes_exist(prices, genes)) return false;
    const LiveNodes live = prices.edges == nullptr ? LiveNodes{} : live_nodes(prices, genes);
    price_tables(prices, prices.counts, genes, live, counts);
    price_tables(prices, prices.measures, genes, live, measures);
    if (all.accuracy == nullptr) return true;
    double ratios[2] = {0, 0};
    for (int64_t i = 0; i < formula.metrics; ++i) {
        const int64_t column = formula.columns[i], counted = prices.counts.metrics;
        const double cost = column < counted ? static_cast<double>(counts[column]) : measures[column - counted];
        ratios[i] = cost / formula.targets[i];
    }
    all.rewards[row] = reward(formula, all.accuracy[row], ratios);
    return true;
}

// Prices all rows. Returns the first row with a gene out of range, or their number.
int64_t cost_estimate_cpu(const PriceList& prices, const RewardFormula& formula, const PricedRows& rows);

// The same on the GPU, queued on `stream`; all pointers are device pointers. *first_bad must hold the number of rows.
void cost_estimate_cuda(const PriceList& prices, const RewardFormula& formula, const PricedRows& rows,
                        int64_t* first_bad, void* stream);

}  // namespace nas_engine
