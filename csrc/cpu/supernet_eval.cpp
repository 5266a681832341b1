// Scores paths on the CPU. Folded plans go depth first, image by image, so that activations stay in cache; measured
// plans go step by step, because batch statistics need all images before the next step can start. Paths come in the
// order of their genes, and each goes on from where the path before it was still the same.
#include "ops/supernet_eval.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "parallel.h"
#include "supernet/buffer.h"
#include "supernet/kernels.h"
#include "supernet/packed_weights.h"
#include "supernet/plan.h"

namespace nas_engine {

namespace {

constexpr size_t kPathsAtOnce = 64;
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

// Scale and shift of the norm before the classifier; empty: there is none.
struct HeadAffine {
    std::vector<float> scale, shift;
};

// A path whose norms have become part of its weights.
struct FoldedPath {
    int64_t path;  // index in the request
    PathPlan plan;
    std::vector<float> own;             // biases
    std::vector<const float*> weights;  // of each term
    HeadAffine head;
    Buffer scaled;  // weights that no other path has
};

// The path whose feature maps lie in the arena of a batch, and the statistics that it found.
struct MeasuredPath {
    Images images{nullptr, 0};  // of the batch; null: there are none
    const int64_t* genes = nullptr;
    PathPlan plan;
    std::vector<NormStatistics> statistics;  // of each norm of the program, empty where the path does not meet it
};

class PathScorer {
  public:
    PathScorer(const Program& program, const ScoreRequest& request)
        : program_(program),
          request_(request),
          kernels_(kernels_of(request.level)),
          decision_order_(decision_order(program)),
          paths_(in_order()),
          workspaces_(static_cast<size_t>(request.threads)),
          unscaled_(program, nullptr),
          measured_pixels_(program.norms.size()),
          first_moments_(program.norms.size()) {}

    void score(const Scores& scores) {
        if (request_.statistics == Statistics::kRunning) return score_running(scores);
        if (request_.statistics == Statistics::kRecalibrated) return score_recalibrated(scores);
        for (const int64_t path : paths_) score_measured(path, scores);
    }

  private:
    const PlanValue& value(const PathPlan& plan, int64_t index) const {
        return plan.values[static_cast<size_t>(index)];
    }

    const int64_t* genes_of(int64_t path) const { return request_.genes + path * program_.decisions(); }

    // Indices of the paths, those whose first decisions are the same next to each other.
    std::vector<int64_t> in_order() const {
        std::vector<int64_t> paths(static_cast<size_t>(request_.paths));
        std::iota(paths.begin(), paths.end(), 0);
        std::stable_sort(paths.begin(), paths.end(), [&](int64_t a, int64_t b) {
            const auto differs = [&](int64_t decision) { return genes_of(a)[decision] != genes_of(b)[decision]; };
            const auto first = std::find_if(decision_order_.begin(), decision_order_.end(), differs);
            return first != decision_order_.end() && genes_of(a)[*first] < genes_of(b)[*first];
        });
        return paths;
    }

    // Images that go through the network together: enough to use weights again while they are in cache, few enough
    // that their activations stay there too.
    static int64_t group_size(int64_t arena_size) {
        constexpr int64_t kMost = 12;
        return std::clamp<int64_t>(kGroupFloats / arena_size, 1, kMost);
    }

    int64_t groups_of(int64_t arena_size) const {
        const int64_t group = group_size(arena_size);
        return (request_.images.count + group - 1) / group;
    }

    // The statistics are the same for all paths, and so are the folded weights: they are packed once.
    void score_running(const Scores& scores) {
        const std::vector<NormStatistics> statistics = running_statistics(program_);
        PackedWeights weights(program_, &statistics);
        for (size_t first = 0; first < paths_.size(); first += kPathsAtOnce) {
            const size_t count = std::min(kPathsAtOnce, paths_.size() - first);
            std::vector<PathPlan> plans(count);
            parallel_for(static_cast<int64_t>(count), request_.threads, [&](int64_t i, int64_t /*thread*/) {
                const size_t index = static_cast<size_t>(i);
                plans[index] = plan_of(paths_[first + index], NormStyle::kFolded);
            });
            weights.add(plans, request_.threads);
            std::vector<FoldedPath> paths(count);
            for (size_t i = 0; i < count; ++i) {
                paths[i] = {paths_[first + i], std::move(plans[i]), {}, {}, head_affine(statistics), {}};
                paths[i].own = folded_biases(paths[i].plan, statistics);
                paths[i].weights = weights.terms_of(paths[i].plan);
            }
            score_folded(paths, scores);
        }
    }

    // Paths are scored together as long as their weights are few.
    void score_recalibrated(const Scores& scores) {
        constexpr int64_t kFloatsAtOnce = int64_t{1} << 24;
        std::vector<FoldedPath> paths;
        int64_t floats = 0;
        for (const int64_t path : paths_) {
            paths.push_back(recalibrated_path(path));
            floats += paths.back().plan.packed_size;
            if (paths.size() < kPathsAtOnce && floats < kFloatsAtOnce && path != paths_.back()) continue;
            score_folded(paths, scores);
            paths.clear();
            floats = 0;
        }
    }

    FoldedPath recalibrated_path(int64_t path) {
        const std::vector<NormStatistics> statistics = recalibrated(path);
        FoldedPath folded{path, plan_of(path, NormStyle::kFolded), {}, {}, head_affine(statistics), {}};
        folded.own = folded_biases(folded.plan, statistics);
        folded.weights = scaled_weights(folded.plan, statistics, folded.scaled.floats(folded.plan.packed_size));
        return folded;
    }

    PathPlan plan_of(int64_t path, NormStyle style) const {
        // Each calibration batch takes the arena from the one before.
        const bool one_batch = style == NormStyle::kFolded || request_.calibration.size() <= 1;
        const Cuts cuts = request_.paths > 1 && one_batch ? Cuts::kWhereTheyPay : Cuts::kNone;
        return make_plan(program_, genes_of(path), style, kernels_.rules, cuts);
    }

    // All biases of a path: sums of its norms' shifts.
    std::vector<float> folded_biases(const PathPlan& plan, const std::vector<NormStatistics>& statistics) const {
        std::vector<float> own(static_cast<size_t>(plan.own_size)), scale, shift;
        for (const PlanStep& step : plan.steps) {
            scale.resize(static_cast<size_t>(step.channels));
            shift.resize(static_cast<size_t>(step.channels));
            for (int64_t i = step.first_term; i < step.first_term + step.terms; ++i) {
                const int64_t norm = plan.terms[static_cast<size_t>(i)].norm;
                if (norm == kNone) continue;
                norm_affine(program_, norm, statistics[static_cast<size_t>(norm)], step.channels, scale.data(),
                            shift.data());
                for (size_t c = 0; c < shift.size(); ++c) own[static_cast<size_t>(step.bias) + c] += shift[c];
            }
        }
        fill_tiled_scales(program_, plan, &statistics, own.data());
        return own;
    }

    // The weights of each term of a path times the scales of its own norms.
    std::vector<const float*> scaled_weights(const PathPlan& plan, const std::vector<NormStatistics>& statistics,
                                             float* scaled) {
        unscaled_.add({plan}, request_.threads);
        std::vector<const float*> weights = unscaled_.terms_of(plan);
        const int64_t count = static_cast<int64_t>(plan.steps.size());
        parallel_for<Schedule::kTurns>(count, request_.threads, [&](int64_t index, int64_t /*thread*/) {
            const PlanStep& step = plan.steps[static_cast<size_t>(index)];
            std::vector<float> scale(static_cast<size_t>(step.padded), 1.0f), shift(scale.size());
            for (int64_t i = step.first_term; i < step.first_term + step.terms; ++i) {
                const PlanTerm& term = plan.terms[static_cast<size_t>(i)];
                if (term.weight == kNone || term.norm == kNone || term.kind == PlanKind::kTiled) continue;
                norm_affine(program_, term.norm, statistics[static_cast<size_t>(term.norm)], step.channels,
                            scale.data(), shift.data());
                const float*& place = weights[static_cast<size_t>(i)];
                scale_weights(term, step, scale.data(), place, scaled + term.packed);
                place = scaled + term.packed;
            }
        });
        return weights;
    }

    // Paths in a row, each of which goes on from the one before; a group of images takes all of them in one task.
    struct Family {
        int64_t first, last;  // of the paths
        int64_t arena_size;   // of the largest one
        int64_t first_task;
    };

    // Families as large as they can be, but for about `wanted` tasks if there are so many. Ends with an empty one.
    std::vector<Family> families_of(const std::vector<FoldedPath>& paths, int64_t wanted) const {
        const int64_t count = static_cast<int64_t>(paths.size());
        int64_t largest = 1;
        for (const FoldedPath& path : paths) largest = std::max(largest, path.plan.arena_size);
        const int64_t most = std::max<int64_t>(count * groups_of(largest) / wanted, 1);
        std::vector<Family> families;
        for (int64_t i = 0; i < count; ++i) {
            const FoldedPath& path = paths[static_cast<size_t>(i)];
            const bool joins = i > 0 && i - families.back().first < most && shared_cut_of(&path - 1, path);
            if (!joins) families.push_back({i, i, 1, 0});
            families.back().last = i + 1;
            families.back().arena_size = std::max(families.back().arena_size, path.plan.arena_size);
        }
        families.push_back({count, count, 1, 0});
        for (size_t i = 1; i < families.size(); ++i) {
            families[i].first_task = families[i - 1].first_task + groups_of(families[i - 1].arena_size);
        }
        return families;
    }

    // The cut from which `path` can go on after `before`; null: none.
    const PlanCut* shared_cut_of(const FoldedPath* before, const FoldedPath& path) const {
        return shared_cut(decision_order_, {genes_of(before->path), &before->plan}, {genes_of(path.path), &path.plan});
    }

    // Whoever is free takes the next task.
    void score_folded(const std::vector<FoldedPath>& paths, const Scores& scores) {
        constexpr int64_t kTasksOfThread = 4;  // so that all threads end at about the same time
        const int64_t images = request_.images.count;
        const std::vector<Family> families = families_of(paths, kTasksOfThread * request_.threads);
        int64_t floats = 0, scratch = 0;
        for (const Family& family : families) {
            floats = std::max(floats, family.arena_size * group_size(family.arena_size));
        }
        for (const FoldedPath& path : paths) scratch = std::max(scratch, path.plan.scratch_size);
        image_scores_.resize(paths.size() * static_cast<size_t>(images));
        for (Workspace& workspace : workspaces_) workspace.last = nullptr;
        parallel_for<Schedule::kTurns>(families.back().first_task, request_.threads, [&](int64_t task, int64_t thread) {
            const auto is_before = [](int64_t index, const Family& family) { return index < family.first_task; };
            const Family& family = *(std::upper_bound(families.begin(), families.end(), task, is_before) - 1);
            const int64_t group = group_size(family.arena_size), first = (task - family.first_task) * group;
            Workspace& workspace = workspaces_[static_cast<size_t>(thread)];
            const Arena arena{workspace.arena.floats(floats), group, workspace.scratch.floats(scratch)};
            if (workspace.slots != group) workspace.last = nullptr;
            workspace.slots = group;
            for (int64_t i = family.first; i < family.last; ++i) {
                const FoldedPath& path = paths[static_cast<size_t>(i)];
                clear_borders(path.plan, workspace.last ? &workspace.last->plan : nullptr, arena, 0, group);
                const PlanCut* shared = i == family.first ? nullptr : shared_cut_of(workspace.last, path);
                score_group(path, shared, arena, first, scores, image_scores_.data() + i * images);
                workspace.last = &path;
            }
        });
        for (size_t i = 0; i < paths.size(); ++i) {
            add_up(image_scores_.data() + static_cast<int64_t>(i) * images, paths[i].path, scores);
        }
    }

    // `shared`: what the arena already holds of these images on this path; null: nothing.
    void score_group(const FoldedPath& path, const PlanCut* shared, const Arena& arena, int64_t first,
                     const Scores& scores, ImageScore* image_scores) const {
        const PathPlan& plan = path.plan;
        const int64_t size = std::min(arena.slots, request_.images.count - first);
        if (!shared) {
            for (int64_t slot = 0; slot < size; ++slot) load_image(plan, request_.images, first + slot, arena, slot);
        }
        const PackedPath packed{path.own.data(), path.weights.data()};
        for (size_t i = shared ? static_cast<size_t>(shared->steps) : 0; i < plan.steps.size(); ++i) {
            kernels_.run_step(plan, plan.steps[i], packed, arena, 0, size);
        }
        for (int64_t slot = 0; slot < size; ++slot) {
            image_scores[first + slot] =
                score_image(plan, path.head, first + slot, arena, slot, logits_of(scores, path.path));
        }
    }

    float* logits_of(const Scores& scores, int64_t path) const {
        return scores.logits ? scores.logits + path * request_.images.count * program_.head.classes : nullptr;
    }

    // In order: the sum does not depend on the threads.
    void add_up(const ImageScore* image_scores, int64_t path, const Scores& scores) const {
        double total = 0;
        int64_t correct = 0;
        for (int64_t image = 0; image < request_.images.count; ++image) {
            total += image_scores[image].loss;
            correct += image_scores[image].correct;
        }
        scores.loss[path] = total / static_cast<double>(request_.images.count);
        scores.correct[path] = correct;
    }

    void score_measured(int64_t path, const Scores& scores) {
        image_scores_.resize(static_cast<size_t>(request_.images.count));
        if (request_.images.count > 0) {
            const Arena arena = run_measured(path, request_.images);
            const PathPlan& plan = measured_.plan;
            const HeadAffine affine = head_affine(measured_.statistics);
            parallel_for(request_.images.count, request_.threads, [&](int64_t image, int64_t /*thread*/) {
                image_scores_[static_cast<size_t>(image)] =
                    score_image(plan, affine, image, arena, image, logits_of(scores, path));
            });
        }
        add_up(image_scores_.data(), path, scores);
    }

    // What the norms of the path hold after all calibration batches: averages of the batches' means and unbiased
    // variances (momentum=None in PyTorch).
    std::vector<NormStatistics> recalibrated(int64_t path) {
        std::vector<NormStatistics> averages(program_.norms.size());
        float weight = 1.0f;
        for (const Images& batch : request_.calibration) {
            run_measured(path, batch);
            const std::vector<NormStatistics>& statistics = measured_.statistics;
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

    // All images through the path in training mode: `measured_` is this path then. Returns the arena, with as many
    // slots as images.
    Arena run_measured(int64_t path, const Images& images) {
        PathPlan plan = plan_of(path, NormStyle::kMeasured);
        unscaled_.add({plan}, request_.threads);
        const std::vector<const float*> weights = unscaled_.terms_of(plan);
        std::vector<float> own(static_cast<size_t>(plan.own_size));
        fill_tiled_scales(program_, plan, nullptr, own.data());
        const PackedPath packed{own.data(), weights.data()};
        const int64_t floats = plan.arena_size * images.count;
        const bool is_same = measured_.images.pixels == images.pixels && measured_.images.count == images.count;
        if (!is_same || floats > batch_floats_) measured_ = {};  // nothing to go on from
        batch_floats_ = std::max(batch_floats_, floats);
        const Arena all{batch_arena_.floats(batch_floats_), images.count, nullptr};
        const bool is_first = measured_.images.pixels == nullptr;
        const PlanCut* shared =
            is_first ? nullptr
                     : shared_cut(decision_order_, {measured_.genes, &measured_.plan}, {genes_of(path), &plan});
        parallel_for(images.count, request_.threads, [&](int64_t image, int64_t /*thread*/) {
            clear_borders(plan, is_first ? nullptr : &measured_.plan, all, image, image + 1);
            if (!shared) load_image(plan, images, image, all, image);
        });
        const int64_t first_step = shared ? shared->steps : 0;
        std::vector<NormStatistics> statistics(program_.norms.size());
        for (int64_t i = 0; i < first_step; ++i) {
            const int64_t norm = plan.steps[static_cast<size_t>(i)].measured;
            if (norm == kNone) continue;
            statistics[static_cast<size_t>(norm)] = std::move(measured_.statistics[static_cast<size_t>(norm)]);
        }
        measured_ = {images, genes_of(path), std::move(plan), std::move(statistics)};
        run_phases(first_step, packed, own.data(), all);
        return all;
    }

    // The steps of `measured_` from the first one on that is not done.
    void run_phases(int64_t first_step, const PackedPath& packed, float* own, const Arena& all) {
        const PathPlan& plan = measured_.plan;
        for (const Phase& phase : phases_of(plan, first_step)) {
            for (const PlanStep& step : phase) apply_norms(plan, step, measured_.statistics, own);
            start_moments(plan, phase, all.slots);
            const int64_t group = phase_group(plan, phase);
            parallel_for((all.slots + group - 1) / group, request_.threads, [&](int64_t index, int64_t thread) {
                float* scratch = workspaces_[static_cast<size_t>(thread)].scratch.floats(plan.scratch_size);
                const Arena arena{all.base, all.slots, scratch};
                const int64_t first = index * group, last = std::min(first + group, all.slots);
                for (const PlanStep& step : phase) {
                    kernels_.run_step(plan, step, packed, arena, first, last);
                    for (int64_t image = first; image < last; ++image) add_moments(plan, step, all, image);
                }
            });
            join_moments(phase, all.slots, measured_.statistics);
        }
    }

    // Steps in a row that need no statistics of one another: a group of images goes through all of them in one go.
    struct Phase {
        const PlanStep* first;
        const PlanStep* last;

        const PlanStep* begin() const { return first; }
        const PlanStep* end() const { return last; }
    };

    static std::vector<Phase> phases_of(const PathPlan& plan, int64_t first_step) {
        std::vector<Phase> phases;
        const PlanStep* const end = plan.steps.data() + plan.steps.size();
        std::vector<int64_t> measured;  // by the phase
        for (const PlanStep* step = plan.steps.data() + first_step; step != end; ++step) {
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
                     float* own) {
        std::vector<float> shift(static_cast<size_t>(step.channels));
        for (int64_t i = step.first_term; i < step.first_term + step.terms; ++i) {
            const PlanTerm& term = plan.terms[static_cast<size_t>(i)];
            if (term.kind != PlanKind::kScaled) continue;
            norm_affine(program_, term.norm, statistics[static_cast<size_t>(term.norm)], step.channels,
                        own + term.packed, shift.data());
            for (size_t c = 0; c < shift.size(); ++c) own[step.bias + static_cast<int64_t>(c)] += shift[c];
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

    HeadAffine head_affine(const std::vector<NormStatistics>& statistics) const {
        if (program_.head.norm == kNone) return {};
        const int64_t channels = program_.nodes[static_cast<size_t>(program_.head.node)].channels;
        const size_t padded = static_cast<size_t>((channels + kLane - 1) / kLane * kLane);
        HeadAffine affine{std::vector<float>(padded), std::vector<float>(padded)};
        norm_affine(program_, program_.head.norm, statistics[static_cast<size_t>(program_.head.norm)], channels,
                    affine.scale.data(), affine.shift.data());
        return affine;
    }

    ImageScore score_image(const PathPlan& plan, const HeadAffine& affine, int64_t image, const Arena& arena,
                           int64_t slot, float* all_logits) const {
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
        if (all_logits) std::copy(logits.begin(), logits.end(), all_logits + image * head.classes);
        return score_of(logits, request_.labels[image]);
    }

    const Program& program_;
    const ScoreRequest& request_;
    const Kernels& kernels_;
    const std::vector<int64_t> decision_order_, paths_;
    struct Workspace {
        Buffer arena, scratch;
        const FoldedPath* last = nullptr;  // that went through the arena: the borders of its values are zero
        int64_t slots = 0;                 // into which the arena was divided then
    };
    std::vector<Workspace> workspaces_;  // of each thread
    PackedWeights unscaled_;             // of measured plans, and to be scaled for each recalibrated path
    MeasuredPath measured_;
    Buffer batch_arena_;
    int64_t batch_floats_ = 0;              // of the arena
    std::vector<int64_t> measured_pixels_;  // of each norm, in one image
    std::vector<float> moments_;            // of a phase; of each norm [images, 2, padded]: sum, squares around mean
    std::vector<int64_t> first_moments_;    // of each norm, where its own begin
    std::vector<ImageScore> image_scores_;
};

}  // namespace

void supernet_eval_cpu(const Program& program, const ScoreRequest& request, const Scores& scores) {
    PathScorer(program, request).score(scores);
}

}  // namespace nas_engine
