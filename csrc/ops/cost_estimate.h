// Exact costs of architectures as sums of table entries: the arithmetic of one row, shared by CPU and CUDA.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define NAS_ENGINE_HOST_DEVICE __host__ __device__
#else
#define NAS_ENGINE_HOST_DEVICE
#endif

namespace nas_engine {

constexpr int64_t kMaxCellNodes = 64;  // a set of nodes is one machine word

// One edge of a cell; `decision` is the position of its gene.
struct CellEdge {
    int64_t decision;
    int64_t source;
    int64_t target;
};

// The arrays of nas_engine.spaces.base.CostTable. The caller guarantees: sizes agree, context decisions are below
// `decisions`, `contexts` is the product of the context sizes, edges have source < target < kMaxCellNodes and come
// sorted by target, and zero_choice < max_choices. Genes may hold anything: they are checked here.
struct CostTable {
    const int64_t* constant;           // [contexts, metrics]
    const int64_t* entries;            // [contexts, decisions, max_choices, metrics]
    const int64_t* context_decisions;  // [context_count]
    const int64_t* context_sizes;      // [context_count]
    const CellEdge* edges;             // [decisions], or null where there is no cell
    int64_t decisions;
    int64_t max_choices;
    int64_t metrics;
    int64_t context_count;
    int64_t zero_choice;
};

struct LiveNodes {
    uint64_t from_input;  // bit i: node 0 reaches node i over edges that are not zero
    uint64_t to_output;   // bit i: node i reaches the last node over such edges
};

NAS_ENGINE_HOST_DEVICE inline bool is_below(int64_t value, int64_t limit) {
    return static_cast<uint64_t>(value) < static_cast<uint64_t>(limit);  // one comparison also catches negatives
}

NAS_ENGINE_HOST_DEVICE inline LiveNodes live_nodes(const CostTable& table, const int64_t* genes) {
    // Sorted by target, every edge into a node comes before every edge out of it, and the reverse backwards.
    const int64_t last = table.edges[table.decisions - 1].target;
    LiveNodes live{1, uint64_t{1} << last};
    for (int64_t i = 0; i < table.decisions; ++i) {
        const CellEdge& edge = table.edges[i];
        const uint64_t open = genes[edge.decision] != table.zero_choice;
        live.from_input |= (open & (live.from_input >> edge.source)) << edge.target;
    }
    for (int64_t i = table.decisions - 1; i >= 0; --i) {
        const CellEdge& edge = table.edges[i];
        const uint64_t open = genes[edge.decision] != table.zero_choice;
        live.to_output |= (open & (live.to_output >> edge.target)) << edge.source;
    }
    return live;
}

NAS_ENGINE_HOST_DEVICE inline bool add_entry(const CostTable& table, const int64_t* entries, int64_t decision,
                                             int64_t gene, int64_t* costs) {
    if (!is_below(gene, table.max_choices)) return false;
    const int64_t* entry = entries + (decision * table.max_choices + gene) * table.metrics;
    for (int64_t metric = 0; metric < table.metrics; ++metric) costs[metric] += entry[metric];
    return true;
}

// Prices one architecture: genes [decisions] -> costs [metrics]. Returns false where a gene is out of range.
NAS_ENGINE_HOST_DEVICE inline bool price(const CostTable& table, const int64_t* genes, int64_t* costs) {
    int64_t context = 0;
    for (int64_t i = 0; i < table.context_count; ++i) {
        const int64_t gene = genes[table.context_decisions[i]];
        if (!is_below(gene, table.context_sizes[i])) return false;
        context = context * table.context_sizes[i] + gene;
    }
    for (int64_t metric = 0; metric < table.metrics; ++metric) {
        costs[metric] = table.constant[context * table.metrics + metric];
    }
    const int64_t* entries = table.entries + context * table.decisions * table.max_choices * table.metrics;
    bool valid = true;
    if (table.edges == nullptr) {
        for (int64_t decision = 0; decision < table.decisions; ++decision) {
            valid &= add_entry(table, entries, decision, genes[decision], costs);
        }
        return valid;
    }
    const LiveNodes live = live_nodes(table, genes);
    for (int64_t i = 0; i < table.decisions; ++i) {
        const CellEdge& edge = table.edges[i];
        const bool counts = (live.from_input >> edge.source) & (live.to_output >> edge.target) & 1;
        const int64_t gene = genes[edge.decision];
        valid &= is_below(gene, table.max_choices);
        valid &= add_entry(table, entries, edge.decision, counts ? gene : table.zero_choice, costs);
    }
    return valid;
}

// Prices genes [rows, decisions] into costs [rows, metrics]. Returns the first row with a gene out of range, or `rows`.
int64_t cost_estimate_cpu(const CostTable& table, const int64_t* genes, int64_t rows, int64_t* costs);

// The same on the GPU, queued on `stream`; all pointers are device pointers. *first_bad must hold `rows` before.
void cost_estimate_cuda(const CostTable& table, const int64_t* genes, int64_t rows, int64_t* costs, int64_t* first_bad,
                        void* stream);

}  // namespace nas_engine
