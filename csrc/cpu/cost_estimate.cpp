// Prices many architectures on the CPU, rows shared out over threads where there are enough of them.
#include "ops/cost_estimate.h"

#include <algorithm>
#include <vector>

#include "parallel.h"

namespace nas_engine {

int64_t cost_estimate_cpu(const PriceList& prices, const RewardFormula& formula, const PricedRows& rows) {
    // Below this, some milliseconds of one thread, others save less than they may wait for a core of a busy machine.
    constexpr int64_t kMinGenesForThreads = 1 << 20;
    constexpr int64_t kRowsOfShare = 512;
    const int64_t threads = rows.rows * prices.decisions >= kMinGenesForThreads ? default_threads() : 1;
    std::vector<int64_t> first_bad(static_cast<size_t>(threads), rows.rows);
    parallel_for((rows.rows + kRowsOfShare - 1) / kRowsOfShare, threads, [&](int64_t share, int64_t thread) {
        int64_t& bad = first_bad[static_cast<size_t>(thread)];
        const int64_t end = std::min(rows.rows, (share + 1) * kRowsOfShare);
        for (int64_t row = share * kRowsOfShare; row < end; ++row) {
            if (!price(prices, formula, rows, row)) bad = std::min(bad, row);
        }
    });
    return *std::min_element(first_bad.begin(), first_bad.end());
}

}  // namespace nas_engine
