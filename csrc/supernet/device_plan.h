// The plans of many paths as tables in one piece of device memory, and what else a launch needs there.
#pragma once

#include <cstdint>
#include <vector>

#include "supernet/plan.h"

namespace nas_engine {

// Where the plan of one path lies in the tables. Indices of values and terms are relative to its first ones.
struct PathEntry {
    int64_t first_value;
    int64_t first_term;
    int64_t first_step;
    int64_t steps;
    int64_t input;
    int64_t head;
    int64_t arena_size;  // floats for one image
    int64_t packed;      // floats before its own among the packed numbers of all paths
};

// All tables; on the device, pointers into the workspace.
struct DeviceTables {
    const PathEntry* paths;
    const PlanValue* values;
    const PlanTerm* terms;
    const PlanStep* steps;
    const ProgramWeight* weights;
    const ProgramNorm* norms;
    const double* epsilons;
    const int64_t* first_channels;  // [norms + 1]: channels of the norms before this one
};

constexpr int64_t kMaxDeviceThreads = 128;  // of a block
constexpr int64_t kDeviceBlock = 8;         // output channels that a thread computes

// How often the work on some paths and images is divided.
struct Division {
    int64_t images;      // of one call
    int64_t max_blocks;  // thread blocks that a folded plan may use; a measured one uses one for each path
    int64_t threads;     // of a block: 8 to kMaxDeviceThreads
};

// Everything is in floats or bytes from the start of the workspace, whose first bytes are `tables`.
struct DevicePlan {
    std::vector<unsigned char> tables;
    NormStyle style;
    ProgramHead head;
    Division division;
    int64_t paths;
    int64_t group;   // images that a block works on together
    int64_t groups;  // of a path
    int64_t blocks;
    int64_t norm_channels;  // of all norms together
    int64_t block_floats;   // arena and scratch of a block
    int64_t scratch;        // floats before the scratch in it: features and logits of a group
    int64_t head_padded;    // channels of the features
    int64_t table_offsets[8];
    int64_t packed, arenas, statistics, losses, hits;  // bytes
    int64_t workspace_bytes;

    DeviceTables tables_at(const unsigned char* workspace) const;
};

// `genes` [paths, decisions]. Throws std::invalid_argument as `make_plan` does, and where batch statistics would be
// those of a single value.
DevicePlan make_device_plan(const Program& program, const int64_t* genes, int64_t paths, NormStyle style,
                            const Division& division);

}  // namespace nas_engine
