// Scores paths on the CPU. Folded plans go depth first, image by image, so that activations stay in cache; measured
// plans go step by step, because batch statistics need all images before the next step can start.
#include "ops/supernet_eval.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "parallel.h"
#include "supernet/kernels.h"
#include "supernet/plan.h"

namespace nas_engine {

namespace {

// Floats on page boundaries; grows, never shrinks. Large ones ask for huge pages: new memory is then much faster.
class Buffer {
  public:
    float* floats(int64_t size) {
        const size_t bytes = static_cast<size_t>(std::max<int64_t>(size, 1)) * sizeof(float);
        if (bytes > capacity_) {
            memory_.reset();
            capacity_ = 0;
            memory_.reset(static_cast<float*>(::operator new(bytes, std::align_val_t{kPage})));
            capacity_ = bytes;
#ifdef __linux__
            madvise(memory_.get(), bytes / kPage * kPage, MADV_HUGEPAGE);  // where it cannot be had, nothing changes
#endif
        }
        return memory_.get();
    }

    float* zeroed(int64_t size) {
        float* memory = floats(size);
        std::memset(memory, 0, static_cast<size_t>(size) * sizeof(float));
        return memory;
    }

  private:
    static constexpr size_t kPage = size_t{1} << 21;
    struct Free {
        void operator()(float* memory) const { ::operator delete(memory, std::align_val_t{kPage}); }
    };
    std::unique_ptr<float, Free> memory_;
    size_t capacity_ = 0;
};

constexpr int64_t kGroupFloats = int64_t{1} << 18;  // of the activations of a group of images: 1 MiB

struct ImageScore {
    double loss;  // NaN where a logit is not finite
    bool correct;
};

// Cross-entropy in nats; like torch, a NaN is the largest logit.
ImageScore score_of(const std::vector<float>& logits, int64_t label) {
    size_t best = 0;
    bool finite = true;
    for (size_t i = 0; i < logits.size(); ++i) {
        finite &= std::isfinite(logits[i]);
        if (logits[i] > logits[best] || (std::isnan(logits[i]) && !std::isnan(logits[best]))) best = i;
    }
    double total = 0;
    for (const float logit : logits) total += std::exp(static_cast<double>(logit) - logits[best]);
    const double loss = std::log(total) + logits[best] - logits[static_cast<size_t>(label)];
    return {finite ? loss : std::numeric_limits<double>::quiet_NaN(), static_cast<int64_t>(best) == label};
}

class PathScorer {
  public:
    PathScorer(const Program& program, const ScoreRequest& request)
        : program_(program),
          request_(request),
          kernels_(kernels_of(request.level)),
          workspaces_(static_cast<size_t>(request.threads)),
          image_scores_(static_cast<size_t>(request.images.count)) {}

    void score(const int64_t* genes, double* loss, int64_t* correct, float* logits) {
        switch (request_.statistics) {
            case Statistics::kRunning:
                score_folded(genes, running_statistics(program_), logits);
                break;
            case Statistics::kRecalibrated:
                score_folded(genes, recalibrated(genes), logits);
                break;
            case Statistics::kBatch:
                score_measured(genes, logits);
        }
        double total = 0;
        *correct = 0;
        for (const ImageScore& image : image_scores_) {  // in order: the sum does not depend on the threads
            total += image.loss;
            *correct += image.correct;
        }
        *loss = total / static_cast<double>(image_scores_.size());
    }

  private:
    const PlanValue& value(const PathPlan& plan, int64_t index) const {
        return plan.values[static_cast<size_t>(index)];
    }

    // Images that go through the network together: enough to use weights again while they are in cache, few enough
    // that their activations stay there too.
    static int64_t group_size(const PathPlan& plan) {
        constexpr int64_t kMost = 12;
        return std::clamp<int64_t>(kGroupFloats / plan.arena_size, 1, kMost);
    }

    void score_folded(const int64_t* genes, const std::vector<NormStatistics>& statistics, float* logits) {
        const PathPlan plan = make_plan(program_, genes, NormStyle::kFolded, kernels_.rules);
        float* packed = packed_.zeroed(plan.packed_size);
        pack(program_, plan, NormStyle::kFolded, statistics, packed);
        const int64_t count = request_.images.count, group = group_size(plan);
        std::vector<Arena> arenas;
        for (Workspace& workspace : workspaces_) {
            arenas.push_back(
                {workspace.arena.floats(plan.arena_size * group), group, workspace.scratch.floats(plan.scratch_size)});
            clear_borders(plan, arenas.back(), 0, group);
        }
        const HeadAffine affine = head_affine(plan, statistics);
        parallel_for((count + group - 1) / group, request_.threads, [&](int64_t index, int64_t thread) {
            const Arena& arena = arenas[static_cast<size_t>(thread)];
            const int64_t first = index * group, size = std::min(group, count - first);
            for (int64_t slot = 0; slot < size; ++slot) load_image(plan, request_.images, first + slot, arena, slot);
            for (const PlanStep& step : plan.steps) kernels_.run_step(plan, step, packed, arena, 0, size);
            for (int64_t slot = 0; slot < size; ++slot) score_image(plan, affine, first + slot, arena, slot, logits);
        });
    }

    void score_measured(const int64_t* genes, float* logits) {
        if (request_.images.count == 0) return;
        const PathPlan plan = make_plan(program_, genes, NormStyle::kMeasured, kernels_.rules);
        std::vector<NormStatistics> statistics(program_.norms.size());
        const Arena arena = run_measured(plan, request_.images, statistics);
        const HeadAffine affine = head_affine(plan, statistics);
        parallel_for(request_.images.count, request_.threads, [&](int64_t image, int64_t /*thread*/) {
            score_image(plan, affine, image, arena, image, logits);
        });
    }

    // What the norms of the path hold after all calibration batches: averages of the batches' means and unbiased
    // variances (momentum=None in PyTorch).
    std::vector<NormStatistics> recalibrated(const int64_t* genes) {
        const PathPlan plan = make_plan(program_, genes, NormStyle::kMeasured, kernels_.rules);
        std::vector<NormStatistics> averages(program_.norms.size());
        float weight = 1.0f;
        for (const Images& batch : request_.calibration) {
            std::vector<NormStatistics> statistics(program_.norms.size());
            run_measured(plan, batch, statistics);
            for (size_t i = 0; i < averages.size(); ++i) {
                average(averages[i].mean, statistics[i].mean, weight, 1.0);
                const double pixels = static_cast<double>(measured_pixels_[i] * batch.count);
                average(averages[i].variance, statistics[i].variance, weight, pixels / (pixels - 1));
            }
            weight = weight / (1.0f + weight);
        }
        return averages;
    }

    static void average(std::vector<float>& mean, const std::vector<float>& next, float weight, double factor) {
        mean.resize(next.size());
        for (size_t i = 0; i < next.size(); ++i) {
            mean[i] += weight * (static_cast<float>(next[i] * factor) - mean[i]);
        }
    }

    // All images through the path in training mode; `statistics` gets mean and biased variance of each norm it meets.
    // Returns the arena, with as many slots as images.
    Arena run_measured(const PathPlan& plan, const Images& images, std::vector<NormStatistics>& statistics) {
        float* packed = packed_.zeroed(plan.packed_size);
        pack(program_, plan, NormStyle::kMeasured, {}, packed);
        measured_pixels_.assign(program_.norms.size(), 0);
        first_moments_.assign(program_.norms.size(), 0);
        const Arena all{batch_arena_.floats(plan.arena_size * images.count), images.count, nullptr};
        std::vector<float*> scratch;
        for (Workspace& workspace : workspaces_) scratch.push_back(workspace.scratch.floats(plan.scratch_size));
        parallel_for(images.count, request_.threads, [&](int64_t image, int64_t /*thread*/) {
            clear_borders(plan, all, image, image + 1);
            load_image(plan, images, image, all, image);
        });
        for (const Phase& phase : phases_of(plan)) {
            for (const PlanStep& step : phase) apply_norms(plan, step, statistics, packed);
            start_moments(plan, phase, images.count);
            const int64_t group = phase_group(plan, phase);
            parallel_for((images.count + group - 1) / group, request_.threads, [&](int64_t index, int64_t thread) {
                const Arena arena{all.base, all.slots, scratch[static_cast<size_t>(thread)]};
                const int64_t first = index * group, last = std::min(first + group, images.count);
                for (const PlanStep& step : phase) {
                    kernels_.run_step(plan, step, packed, arena, first, last);
                    for (int64_t image = first; image < last; ++image) add_moments(plan, step, all, image);
                }
            });
            join_moments(phase, images.count, statistics);
        }
        return all;
    }

    // Steps in a row that need no statistics of one another: a group of images goes through all of them in one go.
    struct Phase {
        const PlanStep* first;
        const PlanStep* last;

        const PlanStep* begin() const { return first; }
        const PlanStep* end() const { return last; }
    };

    static std::vector<Phase> phases_of(const PathPlan& plan) {
        std::vector<Phase> phases;
        const PlanStep* const end = plan.steps.data() + plan.steps.size();
        std::vector<int64_t> measured;  // by the phase
        for (const PlanStep* step = plan.steps.data(); step != end; ++step) {
            const bool waits = std::any_of(plan.terms.begin() + step->first_term,
                                           plan.terms.begin() + step->first_term + step->terms, [&](const auto& term) {
                                               return term.kind == PlanKind::kScaled &&
                                                      std::count(measured.begin(), measured.end(), term.norm) > 0;
                                           });
            if (waits || phases.empty()) {
                phases.push_back({step, step});
                measured.clear();
            }
            phases.back().last = step + 1;
            if (step->measured != kNone) measured.push_back(step->measured);
        }
        return phases;
    }

    // Images whose results of a phase stay in a second-level cache.
    int64_t phase_group(const PathPlan& plan, const Phase& phase) const {
        constexpr int64_t kMost = 12;
        int64_t floats = 1;
        for (const PlanStep& step : phase) {
            if (step.raw != kNone) floats += value(plan, step.raw).size();
            if (step.rectified != kNone) floats += value(plan, step.rectified).size();
        }
        return std::clamp<int64_t>(kGroupFloats / floats, 1, kMost);
    }

    // Scales and bias of a step whose terms were measured before.
    void apply_norms(const PathPlan& plan, const PlanStep& step, const std::vector<NormStatistics>& statistics,
                     float* packed) {
        std::vector<float> shift(static_cast<size_t>(step.channels));
        for (int64_t i = step.first_term; i < step.first_term + step.terms; ++i) {
            const PlanTerm& term = plan.terms[static_cast<size_t>(i)];
            if (term.kind != PlanKind::kScaled) continue;
            norm_affine(program_, term.norm, statistics[static_cast<size_t>(term.norm)], step.channels,
                        packed + term.packed, shift.data());
            for (size_t c = 0; c < shift.size(); ++c) packed[step.bias + static_cast<int64_t>(c)] += shift[c];
        }
    }

    // Mean and biased variance over all images and pixels: each image around its own mean, then put together (Chan,
    // Golub & LeVeque 1983, equation 1.3), in order, so that the result does not depend on the threads.
    void start_moments(const PathPlan& plan, const Phase& phase, int64_t count) {
        int64_t size = 0;
        for (const PlanStep& step : phase) {
            if (step.measured == kNone) continue;
            if (step.height * step.width * count == 1) {
                throw std::invalid_argument("batch statistics need more than one value a channel");
            }
            first_moments_[static_cast<size_t>(step.measured)] = size;
            size += 2 * value(plan, step.raw).padded * count;
        }
        moments_.resize(static_cast<size_t>(size));
    }

    // [2, padded] of one image.
    float* moments_of(const PlanStep& step, int64_t image) {
        return moments_.data() + first_moments_[static_cast<size_t>(step.measured)] + 2 * step.padded * image;
    }

    void add_moments(const PathPlan& plan, const PlanStep& step, const Arena& arena, int64_t image) {
        if (step.measured == kNone) return;
        float* sums = moments_of(step, image);
        kernels_.moments(value(plan, step.raw), arena, image, sums, sums + step.padded);
    }

    void join_moments(const Phase& phase, int64_t count, std::vector<NormStatistics>& statistics) {
        for (const PlanStep& step : phase) {
            if (step.measured == kNone) continue;
            const double pixels = static_cast<double>(step.height * step.width), images = static_cast<double>(count);
            measured_pixels_[static_cast<size_t>(step.measured)] = step.height * step.width;
            NormStatistics& found = statistics[static_cast<size_t>(step.measured)];
            found.mean.resize(static_cast<size_t>(step.channels));
            found.variance.resize(static_cast<size_t>(step.channels));
            for (int64_t c = 0; c < step.channels; ++c) {
                double sum = 0, squares = 0;
                for (int64_t image = 0; image < count; ++image) sum += moments_of(step, image)[c];
                const double mean = sum / (pixels * images);
                for (int64_t image = 0; image < count; ++image) {
                    const float* own = moments_of(step, image) + c;
                    const double away = own[0] / pixels - mean;
                    squares += own[step.padded] + pixels * away * away;
                }
                found.mean[static_cast<size_t>(c)] = static_cast<float>(mean);
                found.variance[static_cast<size_t>(c)] = static_cast<float>(squares / (pixels * images));
            }
        }
    }

    void load_image(const PathPlan& plan, const Images& images, int64_t image, const Arena& arena, int64_t slot) const {
        const PlanValue& input = value(plan, plan.input);
        const int64_t plane = input.height * input.width;
        const float* from = images.pixels + image * input.channels * plane;
        float* to = address_of(input, arena, slot);
        for (int64_t y = 0; y < input.height; ++y) {
            for (int64_t x = 0; x < input.width; ++x) {
                float* pixel = to + y * input.pitch() + x * input.padded;
                for (int64_t c = 0; c < input.channels; ++c) pixel[c] = from[c * plane + y * input.width + x];
            }
        }
    }

    struct HeadAffine {
        std::vector<float> scale, shift;  // empty: the head has no norm
    };

    HeadAffine head_affine(const PathPlan& plan, const std::vector<NormStatistics>& statistics) const {
        if (program_.head.norm == kNone) return {};
        const PlanValue& source = value(plan, plan.head);
        HeadAffine affine{std::vector<float>(static_cast<size_t>(source.padded)),
                          std::vector<float>(static_cast<size_t>(source.padded))};
        norm_affine(program_, program_.head.norm, statistics[static_cast<size_t>(program_.head.norm)], source.channels,
                    affine.scale.data(), affine.shift.data());
        return affine;
    }

    void score_image(const PathPlan& plan, const HeadAffine& affine, int64_t image, const Arena& arena, int64_t slot,
                     float* all_logits) {
        const PlanValue& source = value(plan, plan.head);
        const ProgramHead& head = program_.head;
        std::vector<float> features(static_cast<size_t>(source.padded)), logits(static_cast<size_t>(head.classes));
        kernels_.pooled(source, arena, slot, affine.scale.empty() ? nullptr : affine.scale.data(), affine.shift.data(),
                        features.data());
        const float* weight = reinterpret_cast<const float*>(head.weight);
        const float* bias = reinterpret_cast<const float*>(head.bias);
        for (int64_t k = 0; k < head.classes; ++k) {
            float sum = bias[k];
            for (int64_t c = 0; c < source.channels; ++c) {
                sum += weight[k * head.inputs + c] * features[static_cast<size_t>(c)];
            }
            logits[static_cast<size_t>(k)] = sum;
        }
        image_scores_[static_cast<size_t>(image)] = score_of(logits, request_.labels[image]);
        if (all_logits) std::copy(logits.begin(), logits.end(), all_logits + image * head.classes);
    }

    const Program& program_;
    const ScoreRequest& request_;
    const Kernels& kernels_;
    struct Workspace {
        Buffer arena, scratch;
    };
    std::vector<Workspace> workspaces_;  // of each thread
    Buffer packed_, batch_arena_;
    std::vector<int64_t> measured_pixels_;  // of each norm, in one image
    std::vector<float> moments_;            // of a phase; of each norm [images, 2, padded]: sum, squares around mean
    std::vector<int64_t> first_moments_;    // of each norm, where its own begin
    std::vector<ImageScore> image_scores_;
};

}  // namespace

void supernet_eval_cpu(const Program& program, const ScoreRequest& request, const Scores& scores) {
    PathScorer scorer(program, request);
    for (int64_t path = 0; path < request.paths; ++path) {
        float* logits = scores.logits ? scores.logits + path * request.images.count * program.head.classes : nullptr;
        scorer.score(request.genes + path * program.decisions(), scores.loss + path, scores.correct + path, logits);
    }
}

}  // namespace nas_engine
