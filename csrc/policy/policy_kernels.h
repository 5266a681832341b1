// The policy for each instruction set; `lstm_policy.cpp` chooses one.
#pragma once

#include "ops/lstm_policy.h"

namespace nas_engine {

// The functions of ops/lstm_policy.h.
struct PolicyKernels {
    const char* level;
    decltype(&lstm_policy_evaluate) evaluate;
    decltype(&lstm_policy_gradient) gradient;
    decltype(&lstm_policy_sample) sample;
};

const PolicyKernels* policy_kernels_baseline();
const PolicyKernels* policy_kernels_avx2();

// Samples that go through the network together; more than there are repeat the first.
constexpr int64_t kPolicyBlock = 16;

inline int64_t policy_blocks(int64_t count) { return (count + kPolicyBlock - 1) / kPolicyBlock; }

// Where the parts of one block and one decision lie on the tape; everything has a column for each sample of the block.
struct PolicyTape {
    int64_t gates, cells, cell_tanhs, states, log_probs, slopes, size;

    explicit PolicyTape(const PolicySize& of)
        : gates(0),                                              // [4 * hidden]: after their activation functions
          cells(4 * of.hidden * kPolicyBlock),                   // [hidden]
          cell_tanhs(cells + of.hidden * kPolicyBlock),          // [hidden]
          states(cell_tanhs + of.hidden * kPolicyBlock),         // the hidden state: a row a sample, padded to vectors
          log_probs(states + padded(of.hidden) * kPolicyBlock),  // [choices]
          slopes(log_probs + of.choices * kPolicyBlock),         // [choices]: of the squashed logits
          size(slopes + of.choices * kPolicyBlock) {}

    static int64_t padded(int64_t count) { return (count + 7) / 8 * 8; }
};

}  // namespace nas_engine
