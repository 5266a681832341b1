// Chooses the instruction set. One thread: a batch of architectures is some microseconds of work.
#include "ops/lstm_policy.h"

#include "levels.h"
#include "policy/policy_kernels.h"

namespace nas_engine {
namespace {

std::vector<const PolicyKernels*> usable() {
    std::vector<const PolicyKernels*> found{policy_kernels_baseline()};
#ifdef NAS_ENGINE_AVX2
    if (has_avx2()) found.push_back(policy_kernels_avx2());
#endif
    return found;
}

const PolicyKernels& kernels(const std::string& level) {
    static const std::vector<const PolicyKernels*> all = usable();
    return level.empty() ? *all.back() : kernels_named(all, level);
}

}  // namespace

std::vector<std::string> policy_levels() { return names_of(usable()); }

int64_t policy_tape_size(const PolicySize& size, int64_t samples) {
    return policy_blocks(samples) * size.decisions * PolicyTape(size).size;
}

int64_t lstm_policy_evaluate(const Policy& policy, const PolicySamples& samples, float* outputs, uint8_t* open,
                             float* tape) {
    return kernels(policy.level).evaluate(policy, samples, outputs, open, tape);
}

int64_t lstm_policy_gradient(const Policy& policy, const PolicySamples& samples, const float* tape,
                             const float* upstream, float* gradient) {
    return kernels(policy.level).gradient(policy, samples, tape, upstream, gradient);
}

bool lstm_policy_sample(const Policy& policy, const float* uniforms, const float* bonus, int64_t samples,
                        int64_t* genes) {
    return kernels(policy.level).sample(policy, uniforms, bonus, samples, genes);
}

}  // namespace nas_engine
