// Prices many architectures on the CPU, rows shared out over threads where there are enough of them.
#include "ops/cost_estimate.h"

#include <algorithm>
#include <vector>

#include "parallel.h"

namespace nas_engine {

int64_t cost_estimate_cpu(const CostTable& table, const int64_t* genes, int64_t rows, int64_t* costs) {
    // Below this, waking the threads costs more than they save.
    constexpr int64_t kMinGenesForThreads = 1 << 15;
    constexpr int64_t kRowsOfShare = 512;
    const int64_t threads = rows * table.decisions >= kMinGenesForThreads ? default_threads() : 1;
    std::vector<int64_t> first_bad(static_cast<size_t>(threads), rows);
    parallel_for((rows + kRowsOfShare - 1) / kRowsOfShare, threads, [&](int64_t share, int64_t thread) {
        int64_t& bad = first_bad[static_cast<size_t>(thread)];
        const int64_t end = std::min(rows, (share + 1) * kRowsOfShare);
        for (int64_t row = share * kRowsOfShare; row < end; ++row) {
            if (!price(table, genes + row * table.decisions, costs + row * table.metrics)) bad = std::min(bad, row);
        }
    });
    return *std::min_element(first_bad.begin(), first_bad.end());
}

}  // namespace nas_engine
