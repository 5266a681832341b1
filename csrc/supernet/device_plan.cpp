#include "supernet/device_plan.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace nas_engine {

namespace {

constexpr int64_t kAlignment = 256;  // bytes; of what the CUDA runtime allocates

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

template <typename T>
int64_t append(std::vector<unsigned char>& tables, const std::vector<T>& rows) {
    const size_t offset = static_cast<size_t>(aligned(static_cast<int64_t>(tables.size())));
    tables.resize(offset + rows.size() * sizeof(T));
    if (!rows.empty()) std::memcpy(tables.data() + offset, rows.data(), rows.size() * sizeof(T));
    return static_cast<int64_t>(offset);
}

template <typename T>
void extend(std::vector<T>& all, const std::vector<T>& more) {
    all.insert(all.end(), more.begin(), more.end());
}

// The plans of all paths, one after the other.
struct Joined {
    std::vector<PathEntry> paths;
    std::vector<PlanValue> values;
    std::vector<PlanTerm> terms;
    std::vector<PlanStep> steps;
    int64_t packed = 0, largest_arena = 0, head_padded = 0;
    int64_t smallest_step = std::numeric_limits<int64_t>::max();  // tiles in one image

    void add(const PathPlan& plan) {
        const auto size = [](const auto& rows) { return static_cast<int64_t>(rows.size()); };
        paths.push_back(
            {size(values), size(terms), size(steps), size(plan.steps), plan.input, plan.head, plan.arena_size, packed});
        extend(values, plan.values);
        extend(terms, plan.terms);
        extend(steps, plan.steps);
        packed += plan.packed_size;
        largest_arena = std::max(largest_arena, plan.arena_size);
        head_padded = std::max(head_padded, plan.values[static_cast<size_t>(plan.head)].padded);
        for (const PlanStep& step : plan.steps) {
            smallest_step = std::min(smallest_step, step.padded / kDeviceBlock * step.height * ((step.width + 3) / 4));
        }
    }
};

void require_many_values(const PathPlan& plan, int64_t images) {
    for (const PlanStep& step : plan.steps) {
        if (step.measured != kNone && step.height * step.width * images == 1) {
            throw std::invalid_argument("batch statistics need more than one value a channel");
        }
    }
}

std::vector<int64_t> first_channels(const Program& program) {
    std::vector<int64_t> firsts{0};
    for (const ProgramNorm& norm : program.norms) firsts.push_back(firsts.back() + norm.channels);
    return firsts;
}

int64_t block_rule(int64_t /*padded*/, int64_t /*width*/) { return kDeviceBlock; }

void lay_out(DevicePlan& plan, const Joined& joined) {
    const Division& division = plan.division;
    const bool measured = plan.style == NormStyle::kMeasured;
    // Enough images for every thread to have a tile of the smallest step, if there are so many.
    const int64_t wanted = 1 + (division.threads - 1) / joined.smallest_step;
    const int64_t images = std::max<int64_t>(division.images, 1);
    plan.group = measured ? images : std::clamp<int64_t>(wanted, 1, images);
    plan.groups = (division.images + plan.group - 1) / plan.group;
    plan.blocks = measured ? plan.paths : std::min(plan.paths * plan.groups, division.max_blocks);
    plan.head_padded = joined.head_padded;
    plan.scratch = plan.group * joined.largest_arena;
    const int64_t scratch = plan.group * (plan.head_padded + plan.head.classes);
    plan.block_floats = aligned((plan.scratch + scratch) * 4) / 4;
    plan.packed = aligned(static_cast<int64_t>(plan.tables.size()));
    plan.arenas = plan.packed + aligned(joined.packed * 4);
    plan.statistics = plan.arenas + plan.blocks * plan.block_floats * 4;
    plan.losses = plan.statistics + aligned(measured ? plan.paths * 2 * plan.norm_channels * 4 : 0);
    plan.hits = plan.losses + aligned(plan.paths * division.images * 8);
    plan.workspace_bytes = plan.hits + aligned(plan.paths * division.images * 8);
}

}  // namespace

DeviceTables DevicePlan::tables_at(const unsigned char* workspace) const {
    const auto at = [&](int index) { return workspace + table_offsets[index]; };
    return {reinterpret_cast<const PathEntry*>(at(0)),     reinterpret_cast<const PlanValue*>(at(1)),
            reinterpret_cast<const PlanTerm*>(at(2)),      reinterpret_cast<const PlanStep*>(at(3)),
            reinterpret_cast<const ProgramWeight*>(at(4)), reinterpret_cast<const ProgramNorm*>(at(5)),
            reinterpret_cast<const double*>(at(6)),        reinterpret_cast<const int64_t*>(at(7))};
}

DevicePlan make_device_plan(const Program& program, const int64_t* genes, int64_t paths, NormStyle style,
                            const Division& division) {
    const KernelRules rules{block_rule, false, false};
    Joined joined;
    for (int64_t path = 0; path < paths; ++path) {
        const PathPlan plan = make_plan(program, genes + path * program.decisions(), style, rules, Cuts::kNone);
        if (style == NormStyle::kMeasured) require_many_values(plan, division.images);
        joined.add(plan);
    }
    DevicePlan plan{};
    plan.style = style;
    plan.head = program.head;
    plan.division = division;
    plan.paths = paths;
    const std::vector<int64_t> firsts = first_channels(program);
    plan.norm_channels = firsts.back();
    const int64_t offsets[] = {append(plan.tables, joined.paths),     append(plan.tables, joined.values),
                               append(plan.tables, joined.terms),     append(plan.tables, joined.steps),
                               append(plan.tables, program.weights),  append(plan.tables, program.norms),
                               append(plan.tables, program.epsilons), append(plan.tables, firsts)};
    std::copy(std::begin(offsets), std::end(offsets), std::begin(plan.table_offsets));
    lay_out(plan, joined);
    return plan;
}

}  // namespace nas_engine
