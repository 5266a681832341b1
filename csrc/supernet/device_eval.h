// The launch that scores paths on the GPU.
#pragma once

#include <cstdint>

#include "supernet/device_plan.h"

namespace nas_engine {

// All pointers are device pointers.
struct DeviceScores {
    const float* images;    // [images, channels, height, width]
    const int64_t* labels;  // [images]
    // [paths, 2, norm channels]: means, then variances. Read by folded plans; null: those that the norms hold.
    const float* statistics;
    float* averages;  // like `statistics`, or null: measured plans move them by average_weight towards this batch's
    float average_weight;
    double* loss;      // [paths], or null: only statistics are wanted
    int64_t* correct;  // [paths]
    float* logits;     // [paths, images, classes], or null
};

// Queues the work on `stream`. The first bytes of `workspace` [plan.workspace_bytes] hold plan.tables. Throws
// std::runtime_error where a launch fails.
void supernet_eval_cuda(const DevicePlan& plan, const DeviceScores& scores, void* workspace, void* stream);

}  // namespace nas_engine
