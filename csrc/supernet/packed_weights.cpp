#include "supernet/packed_weights.h"

#include "parallel.h"

namespace nas_engine {

PackedWeights::PackedWeights(const Program& program, const std::vector<NormStatistics>* statistics)
    : program_(program), statistics_(statistics), packed_(program.terms.size()) {}

void PackedWeights::add(const std::vector<PathPlan>& plans, int64_t threads) {
    constexpr int64_t kLine = 16;  // floats of a cache line
    std::vector<bool> is_wanted(packed_.size());
    std::vector<Wanted> wanted;
    std::vector<int64_t> offsets{0};
    for (const PathPlan& plan : plans) {
        for (const PlanStep& step : plan.steps) {
            for (int64_t i = step.first_term; i < step.first_term + step.terms; ++i) {
                const PlanTerm& term = plan.terms[static_cast<size_t>(i)];
                if (term.weight == kNone) continue;
                const size_t origin = static_cast<size_t>(term.origin);
                if (packed_[origin] || is_wanted[origin]) continue;
                is_wanted[origin] = true;
                wanted.push_back({&term, &step});
                offsets.push_back(offsets.back() + (packed_length(term, step) + kLine - 1) / kLine * kLine);
            }
        }
    }
    if (wanted.empty()) return;
    buffers_.emplace_back();
    float* const packed = buffers_.back().floats(offsets.back());
    const int64_t count = static_cast<int64_t>(wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i)
        packed_[static_cast<size_t>(wanted[i].term->origin)] = packed + offsets[i];
    parallel_for(count, threads, [&](int64_t i, int64_t /*thread*/) { fill(wanted[static_cast<size_t>(i)]); });
}

void PackedWeights::fill(const Wanted& wanted) {
    const PlanTerm& term = *wanted.term;
    std::vector<float> scale(static_cast<size_t>(wanted.step->padded), 1.0f), shift(scale.size());
    if (statistics_ && term.norm != kNone) {
        const NormStatistics& statistics = (*statistics_)[static_cast<size_t>(term.norm)];
        norm_affine(program_, term.norm, statistics, wanted.step->channels, scale.data(), shift.data());
    }
    pack_weights(program_, term, *wanted.step, scale.data(), packed_[static_cast<size_t>(term.origin)]);
}

std::vector<const float*> PackedWeights::terms_of(const PathPlan& plan) const {
    std::vector<const float*> terms;
    for (const PlanTerm& term : plan.terms) {
        terms.push_back(term.weight == kNone ? nullptr : packed_[static_cast<size_t>(term.origin)]);
    }
    return terms;
}

}  // namespace nas_engine
