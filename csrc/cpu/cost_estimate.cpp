// Prices many architectures on the CPU, rows shared out over threads where there are enough of them.
#include "ops/cost_estimate.h"

#include <algorithm>

namespace nas_engine {

int64_t cost_estimate_cpu(const CostTable& table, const int64_t* genes, int64_t rows, int64_t* costs) {
    // Below this, waking the threads costs more than they save.
    [[maybe_unused]] constexpr int64_t kMinGenesForThreads = 1 << 15;
    int64_t first_bad = rows;
#ifdef _OPENMP
#pragma omp parallel for schedule(static) reduction(min : first_bad) if (rows * table.decisions >= kMinGenesForThreads)
#endif
    for (int64_t row = 0; row < rows; ++row) {
        if (!price(table, genes + row * table.decisions, costs + row * table.metrics)) {
            first_bad = std::min(first_bad, row);
        }
    }
    return first_bad;
}

}  // namespace nas_engine
