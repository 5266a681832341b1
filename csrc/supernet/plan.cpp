#include "supernet/plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <stdexcept>

namespace nas_engine {

namespace {

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

int64_t padding_of(const ProgramTerm& term) {
    return term.kind == static_cast<int64_t>(TermKind::kAveragePool) ? (term.kernel - 1) / 2 : term.kernel / 2;
}

PlanKind plan_kind(const ProgramTerm& term) {
    constexpr std::array kinds{PlanKind::kConvolution, PlanKind::kDepthwise, PlanKind::kAveragePool,
                               PlanKind::kIdentity};
    return kinds[static_cast<size_t>(term.kind)];
}

// What the path makes of a node of the program.
struct NodeUse {
    std::vector<int64_t> terms;  // that exist on this path, by index in the program
    int64_t zero_of = kNone;     // there are none, and it is zero times this node
    int64_t same_as = kNone;     // the node whose feature map this one is: itself, or the one it copies
    bool exists = false;
    bool reads_raw = false;        // something needs it as it is ...
    bool reads_rectified = false;  // ... or rectified
    int64_t border = 0;
    int64_t last_reader = kNone;
    bool is_kept = false;  // for the next path: it is that of a cut
};

// How many decisions nodes 0..i depend on, for each node i; `order` gets them in the order of these nodes.
std::vector<int64_t> known_decisions(const Program& program, std::vector<int64_t>* order = nullptr) {
    std::vector<bool> is_known(program.choices.size());
    std::vector<int64_t> counts;
    int64_t count = 0;
    for (const ProgramNode& node : program.nodes) {
        for (int64_t t = node.first_term; t < node.first_term + node.terms; ++t) {
            const int64_t decision = program.terms[static_cast<size_t>(t)].decision;
            if (decision == kNone || is_known[static_cast<size_t>(decision)]) continue;
            is_known[static_cast<size_t>(decision)] = true;
            if (order) order->push_back(decision);
            ++count;
        }
        counts.push_back(count);
    }
    return counts;
}

bool is_same_place(const PlanValue& a, const PlanValue& b) {
    return a.offset == b.offset && a.padded == b.padded && a.height == b.height && a.width == b.width &&
           a.border == b.border;
}

// Multiply-accumulates of a term.
double work_of(const Program& program, const ProgramNode& node, const ProgramTerm& term) {
    if (term.weight == kNone) return 0;
    const bool depthwise = plan_kind(term) == PlanKind::kDepthwise;
    const int64_t inputs = depthwise ? 1 : program.nodes[static_cast<size_t>(term.source)].channels;
    return static_cast<double>(term.kernel * term.kernel * inputs) * static_cast<double>(node.channels) *
           static_cast<double>(node.height * node.width);
}

// That of a path on average, where all choices are equally frequent.
double expected_work(const Program& program) {
    std::vector<double> exists;  // how probable it is, of each node
    double work = 0;
    for (const ProgramNode& node : program.nodes) {
        double terms = 0;
        for (int64_t t = node.first_term; t < node.first_term + node.terms; ++t) {
            const ProgramTerm& term = program.terms[static_cast<size_t>(t)];
            const int64_t choices = term.decision == kNone ? 1 : program.choices[static_cast<size_t>(term.decision)];
            const double probability = exists[static_cast<size_t>(term.source)] / static_cast<double>(choices);
            work += probability * work_of(program, node, term);
            terms += probability;
        }
        exists.push_back(node.optional ? std::min(terms, 1.0) : 1.0);
    }
    return work;
}

// A cut comes after at least an eighth of the work of a path: less would not pay for keeping its values. All paths have
// the same limit, so that those with a common beginning have the same cuts there.
constexpr double kWorkOfCut = 8;

class PlanBuilder {
  public:
    PlanBuilder(const Program& program, const int64_t* genes, NormStyle style, const KernelRules& rules, Cuts cuts)
        : program_(program),
          style_(style),
          rules_(rules),
          cuts_(cuts),
          uses_(program.nodes.size()),
          is_measured_(program.norms.size()) {
        find_existing(genes);
        find_readers();
    }

    PathPlan build() {
        plan_.input = allocate_value(0, uses_[0].border);
        raw_values_.assign(uses_.size(), kNone);
        rectified_values_.assign(uses_.size(), kNone);
        raw_values_[0] = plan_.input;
        if (uses_[0].reads_rectified) add_rectified_image();
        const std::vector<int64_t> known = known_decisions(program_);
        const double least_work = cuts_ == Cuts::kNone ? 0 : expected_work(program_) / kWorkOfCut;
        double work = 0;
        for (int64_t i = 1; i < static_cast<int64_t>(uses_.size()); ++i) {
            if (!is_computed(i)) continue;
            add_node(i);
            for (const int64_t t : use(i).terms) work += work_of(program_, node(i), term(t));
            // Where all decisions are known only equal paths would go on from here; after little work it would not pay.
            const int64_t decisions = known[static_cast<size_t>(i)];
            if (cuts_ != Cuts::kNone && work >= least_work && decisions < known.back()) add_cut(i, decisions);
            release_read_before(i);
        }
        plan_.head = raw_values_[static_cast<size_t>(head_node())];
        if (style_ == NormStyle::kMeasured && program_.head.norm != kNone) measure_head();
        for (PlanTerm& placed : plan_.terms) {
            if (placed.weight != kNone && placed.kind != PlanKind::kTiled) placed.packed += own_;
        }
        plan_.arena_size = arena_;
        plan_.own_size = own_;
        plan_.packed_size = own_ + weights_;
        plan_.scratch_size = scratch_;
        return std::move(plan_);
    }

  private:
    const ProgramNode& node(int64_t index) const { return program_.nodes[static_cast<size_t>(index)]; }
    const ProgramTerm& term(int64_t index) const { return program_.terms[static_cast<size_t>(index)]; }
    NodeUse& use(int64_t index) { return uses_[static_cast<size_t>(index)]; }
    int64_t head_node() { return use(program_.head.node).same_as; }
    bool is_computed(int64_t index) {
        return use(index).same_as == index && (use(index).reads_raw || use(index).reads_rectified);
    }

    void find_existing(const int64_t* genes) {
        uses_[0].exists = true;
        uses_[0].same_as = 0;
        for (int64_t i = 1; i < static_cast<int64_t>(uses_.size()); ++i) {
            NodeUse& mine = use(i);
            for (int64_t t = node(i).first_term; t < node(i).first_term + node(i).terms; ++t) {
                const bool chosen = term(t).decision == kNone || genes[term(t).decision] == term(t).choice;
                if (chosen && use(term(t).source).exists) mine.terms.push_back(t);
            }
            mine.exists = !(mine.terms.empty() && node(i).optional);
            mine.same_as = i;
            const int64_t zero_of = node(i).zero_of;
            if (mine.terms.empty() && zero_of != kNone && use(zero_of).exists) mine.zero_of = use(zero_of).same_as;
            if (mine.terms.size() == 1 && !node(i).relu6) {
                const ProgramTerm& only = term(mine.terms[0]);
                const bool copies = only.kind == static_cast<int64_t>(TermKind::kIdentity) && !only.rectified;
                if (copies) mine.same_as = use(only.source).same_as;
            }
        }
    }

    void find_readers() {
        const int64_t head = head_node();
        use(head).reads_raw = true;
        use(head).last_reader = static_cast<int64_t>(uses_.size());
        for (int64_t i = static_cast<int64_t>(uses_.size()) - 1; i > 0; --i) {
            if (!is_computed(i)) continue;
            if (use(i).zero_of != kNone) {
                NodeUse& source = use(use(i).zero_of);
                source.reads_raw = true;
                source.last_reader = std::max(source.last_reader, i);
            }
            for (const int64_t t : use(i).terms) {
                NodeUse& source = use(use(term(t).source).same_as);
                (term(t).rectified ? source.reads_rectified : source.reads_raw) = true;
                source.border = std::max(source.border, term(t).kernel / 2);
                source.last_reader = std::max(source.last_reader, i);
            }
        }
    }

    // Buffers are used again for values of the same geometry only, so that their borders stay zero.
    int64_t allocate_value(int64_t node_index, int64_t border) {
        const ProgramNode& of = node(node_index);
        PlanValue value{0, of.channels, round_up(of.channels, kLane), of.height, of.width, border, 0};
        std::vector<int64_t>& free = free_[geometry(value)];
        if (free.empty()) {
            value.offset = arena_;
            value.is_first = 1;
            arena_ += round_up(value.size(), 16);  // a cache line
        } else {
            value.offset = free.back();
            free.pop_back();
        }
        plan_.values.push_back(value);
        return static_cast<int64_t>(plan_.values.size()) - 1;
    }

    static std::array<int64_t, 4> geometry(const PlanValue& value) {
        return {value.padded, value.height, value.width, value.border};
    }

    void release(int64_t value) {
        if (value == kNone) return;
        const PlanValue& released = plan_.values[static_cast<size_t>(value)];
        free_[geometry(released)].push_back(released.offset);
    }

    void add_rectified_image() {
        PlanStep step = empty_step(0);
        step.rectified = rectified_values_[0] = allocate_value(0, uses_[0].border);
        add_step(step, {PlanTerm{PlanKind::kIdentity, 1, 1, 0, plan_.input, node(0).channels, 0, kNone, kNone, kNone}});
    }

    PlanStep empty_step(int64_t node_index) {
        const ProgramNode& of = node(node_index);
        PlanStep step{0, 0,     kNone, kNone, of.channels, round_up(of.channels, kLane), of.height, of.width, 0,
                      0, false, kNone, false, false};
        step.block = rules_.block(step.padded, step.width);
        return step;
    }

    void add_step(PlanStep step, const std::vector<PlanTerm>& terms) {
        if (static_cast<int64_t>(terms.size()) > kMaxStepTerms) {
            throw std::invalid_argument("a node has " + std::to_string(terms.size()) + " terms on one path, at most " +
                                        std::to_string(kMaxStepTerms) + " are possible");
        }
        step.first_term = static_cast<int64_t>(plan_.terms.size());
        step.terms = static_cast<int64_t>(terms.size());
        step.bias = own_;
        own_ += step.padded;
        if (step.winograd) {
            int64_t channels = step.block;
            for (const PlanTerm& added : terms) channels += plan_.values[static_cast<size_t>(added.value)].padded;
            scratch_ = std::max(scratch_, kFrequencies * kTilesAtOnce * channels);
        }
        if (rules_.tiled) scratch_ = std::max(scratch_, tiled_scratch(step, terms));
        int64_t read = step.padded;
        for (PlanTerm added : terms) {
            const int64_t length = packed_length(added, step);
            int64_t& end = has_own_scales(added) ? own_ : weights_;
            added.packed = end;
            end += has_own_scales(added) ? round_up(step.padded, kTileOutputs) : length;
            read += length;
            plan_.terms.push_back(added);
        }
        constexpr int64_t kHalfOfCache = 4096;  // floats; of a first-level cache of 32 KiB
        step.by_rows = read <= kHalfOfCache;
        plan_.steps.push_back(step);
    }

    static bool has_own_scales(const PlanTerm& term) {
        return term.kind == PlanKind::kScaled || term.kind == PlanKind::kTiled;
    }

    // Floats: the maps of all tiled terms, and the sums of the rows that are computed together.
    int64_t tiled_scratch(const PlanStep& step, const std::vector<PlanTerm>& terms) const {
        const TiledShape shape(plan_.values, terms.data(), step);
        int64_t maps = 0;
        for (const PlanTerm& term : terms) {
            if (term.kind != PlanKind::kTiled) continue;
            maps += shape.map_size(plan_.values[static_cast<size_t>(term.value)]);
        }
        return maps == 0 ? 0 : maps / 2 + shape.positions * shape.outputs;
    }

    bool prefers_tiles(const ProgramTerm& term, int64_t inputs, const PlanStep& step) const {
        return rules_.tiled && plan_kind(term) == PlanKind::kConvolution && inputs >= kLane && step.channels >= kLane;
    }

    // Transforming tiles pays where they hold few pixels beyond the edge, and enough channels are multiplied.
    bool prefers_winograd(const ProgramTerm& term, int64_t inputs, const PlanStep& step) const {
        if (!rules_.winograd || plan_kind(term) != PlanKind::kConvolution) return false;
        const int64_t tiles = ((step.height + kTile - 1) / kTile) * ((step.width + kTile - 1) / kTile);
        return term.kernel == 3 && term.stride == 1 && inputs >= kLane && step.channels >= kLane &&
               step.height >= kTile && step.width >= kTile && step.height * step.width * 9 >= 2 * tiles * kFrequencies;
    }

    PlanTerm plan_term(int64_t index, const PlanStep& step) {
        const ProgramTerm& from = term(index);
        const int64_t source = use(from.source).same_as;
        const auto& values = from.rectified ? rectified_values_ : raw_values_;
        const int64_t inputs = node(source).channels;
        const PlanKind kind = prefers_tiles(from, inputs, step)      ? PlanKind::kTiled
                              : prefers_winograd(from, inputs, step) ? PlanKind::kWinograd
                                                                     : plan_kind(from);
        return {kind,
                static_cast<int32_t>(from.kernel),
                static_cast<int32_t>(from.stride),
                static_cast<int32_t>(padding_of(from)),
                values[static_cast<size_t>(source)],
                inputs,
                0,
                from.weight == kNone ? kNone : index,
                from.weight,
                from.norm};
    }

    void add_node(int64_t index) {
        PlanStep step = empty_step(index);
        std::vector<PlanTerm> terms;
        std::vector<int64_t> temporary;  // values that only this node reads
        for (const int64_t t : use(index).terms) {
            terms.push_back(plan_term(t, step));
            if (style_ == NormStyle::kMeasured && terms.back().norm != kNone) {
                temporary.push_back(add_measured(index, terms.back()));
                terms.back() = {PlanKind::kScaled, 1, 1,     0,     temporary.back(),
                                step.channels,     0, kNone, kNone, term(t).norm};
            }
        }
        if (use(index).zero_of != kNone) {
            const int64_t source = raw_values_[static_cast<size_t>(use(index).zero_of)];
            terms.push_back({PlanKind::kZero, 1, 1, 0, source, step.channels, 0, kNone, kNone, kNone});
        }
        separate_winograd(index, terms, temporary);
        step.winograd = !terms.empty() && terms[0].kind == PlanKind::kWinograd;
        step.relu6 = node(index).relu6 != 0;
        if (use(index).reads_raw) {
            step.raw = raw_values_[static_cast<size_t>(index)] = allocate_value(index, use(index).border);
        }
        if (use(index).reads_rectified) {
            step.rectified = rectified_values_[static_cast<size_t>(index)] = allocate_value(index, use(index).border);
        }
        add_step(step, terms);
        for (const int64_t value : temporary) release(value);
    }

    // Values that no node after `index` reads.
    void release_read_before(int64_t index) {
        for (int64_t i = 0; i <= index; ++i) {
            if (use(i).last_reader != index || use(i).is_kept) continue;
            release(raw_values_[static_cast<size_t>(i)]);
            release(rectified_values_[static_cast<size_t>(i)]);
        }
    }

    // A cut after node `index` if what comes after it reads no other node. Of cuts after the same decisions the last
    // one counts.
    void add_cut(int64_t index, int64_t decisions) {
        for (int64_t i = 0; i < index; ++i) {
            if (use(i).last_reader > index) return;
        }
        if (!plan_.cuts.empty() && plan_.cuts.back().decisions == decisions) {
            const PlanCut& other = plan_.cuts.back();
            use(other.node).is_kept = false;
            if (use(other.node).last_reader < index) {
                release(other.raw);
                release(other.rectified);
            }
            plan_.cuts.pop_back();
        }
        use(index).is_kept = true;
        plan_.cuts.push_back({decisions, static_cast<int64_t>(plan_.steps.size()), index,
                              raw_values_[static_cast<size_t>(index)], rectified_values_[static_cast<size_t>(index)]});
    }

    // Where a node has terms of both kinds, the sum of the Winograd ones becomes a value of its own.
    void separate_winograd(int64_t index, std::vector<PlanTerm>& terms, std::vector<int64_t>& temporary) {
        const auto is_winograd = [](const PlanTerm& term) { return term.kind == PlanKind::kWinograd; };
        const auto others = std::stable_partition(terms.begin(), terms.end(), is_winograd);
        if (others == terms.begin() || others == terms.end()) return;
        PlanStep step = empty_step(index);
        step.winograd = true;
        step.raw = allocate_value(index, 0);
        add_step(step, {terms.begin(), others});
        temporary.push_back(step.raw);
        terms.erase(terms.begin(), others);
        terms.push_back({PlanKind::kIdentity, 1, 1, 0, step.raw, step.channels, 0, kNone, kNone, kNone});
    }

    // The step that writes the head's value measures it too; a head that reads the image gets a copy to measure.
    void measure_head() {
        require_measured_once(program_.head.norm);
        const auto writes = [&](const PlanStep& step) { return step.raw == plan_.head; };
        auto step = std::find_if(plan_.steps.begin(), plan_.steps.end(), writes);
        if (step == plan_.steps.end()) {
            PlanStep copy = empty_step(0);
            copy.raw = allocate_value(0, 0);
            add_step(copy,
                     {PlanTerm{PlanKind::kIdentity, 1, 1, 0, plan_.input, copy.channels, 0, kNone, kNone, kNone}});
            plan_.head = copy.raw;
            step = plan_.steps.end() - 1;
        }
        step->measured = program_.head.norm;
    }

    void require_measured_once(int64_t norm) {
        if (is_measured_[static_cast<size_t>(norm)]) {
            throw std::invalid_argument("norm " + std::to_string(norm) + " occurs twice in one path");
        }
        is_measured_[static_cast<size_t>(norm)] = true;
    }

    int64_t add_measured(int64_t index, const PlanTerm& convolution) {
        require_measured_once(convolution.norm);
        PlanStep step = empty_step(index);
        step.raw = allocate_value(index, 0);
        step.measured = convolution.norm;
        step.winograd = convolution.kind == PlanKind::kWinograd;
        add_step(step, {convolution});
        return step.raw;
    }

    const Program& program_;
    NormStyle style_;
    const KernelRules& rules_;
    Cuts cuts_;
    std::vector<NodeUse> uses_;
    std::vector<bool> is_measured_;
    std::vector<int64_t> raw_values_, rectified_values_;
    std::map<std::array<int64_t, 4>, std::vector<int64_t>> free_;
    PathPlan plan_{};
    int64_t arena_ = 0;
    int64_t own_ = 0, weights_ = 0;  // packed numbers
    int64_t scratch_ = 0;
};

// The first weight of the centre that the term uses.
const float* centre_of(const ProgramWeight& weight, const PlanTerm& term) {
    const int64_t border = (weight.kernel - term.kernel) / 2;
    return reinterpret_cast<const float*>(weight.address) + border * (weight.strides[2] + weight.strides[3]);
}

// Weights [outputs, inputs, kernel, kernel] as blocks of output channels, each [kernel, kernel, inputs, block].
void pack_convolution(const ProgramWeight& weight, const PlanTerm& term, const PlanStep& step, const float* scale,
                      float* packed) {
    const int64_t* strides = weight.strides;
    const float* centre = centre_of(weight, term);
    for (int64_t first = 0; first < step.padded; first += step.block) {
        const int64_t block = std::min(step.block, step.padded - first), real = std::min(block, step.channels - first);
        for (int64_t y = 0; y < term.kernel; ++y) {
            for (int64_t x = 0; x < term.kernel; ++x) {
                for (int64_t input = 0; input < term.inputs; ++input, packed += block) {
                    const float* from =
                        centre + first * strides[0] + input * strides[1] + y * strides[2] + x * strides[3];
                    for (int64_t c = 0; c < real; ++c) packed[c] = scale[first + c] * from[c * strides[0]];
                    std::fill(packed + real, packed + block, 0.0f);
                }
            }
        }
    }
}

// Weights [outputs, inputs, 3, 3] as G w G^T (Lavin & Gray 2016, equation 8 and section 4.3), in blocks of output
// channels, each [36, inputs, block].
void pack_winograd(const ProgramWeight& weight, const PlanTerm& term, const PlanStep& step, const float* scale,
                   float* packed) {
    constexpr float kG[kTransformed][3] = {{1.0f / 4, 0, 0},
                                           {-1.0f / 6, -1.0f / 6, -1.0f / 6},
                                           {-1.0f / 6, 1.0f / 6, -1.0f / 6},
                                           {1.0f / 24, 1.0f / 12, 1.0f / 6},
                                           {1.0f / 24, -1.0f / 12, 1.0f / 6},
                                           {0, 0, 1}};
    const int64_t* strides = weight.strides;
    const float* centre = centre_of(weight, term);
    std::vector<float> taps(static_cast<size_t>(9 * step.block)), rows(static_cast<size_t>(18 * step.block));
    for (int64_t first = 0; first < step.padded; first += step.block) {
        const int64_t block = std::min(step.block, step.padded - first), real = std::min(block, step.channels - first);
        for (int64_t input = 0; input < term.inputs; ++input) {
            for (int64_t tap = 0; tap < 9; ++tap) {
                const float* from =
                    centre + first * strides[0] + input * strides[1] + tap / 3 * strides[2] + tap % 3 * strides[3];
                float* to = taps.data() + tap * block;
                for (int64_t c = 0; c < real; ++c) to[c] = scale[first + c] * from[c * strides[0]];
                std::fill(to + real, to + block, 0.0f);
            }
            const auto combine = [block](const float* g, const float* from, int64_t stride, float* to) {
                for (int64_t c = 0; c < block; ++c) {
                    to[c] = g[0] * from[c] + g[1] * from[c + stride] + g[2] * from[c + 2 * stride];
                }
            };
            for (int64_t i = 0; i < kTransformed; ++i) {
                for (int64_t x = 0; x < 3; ++x)
                    combine(kG[i], taps.data() + x * block, 3 * block, rows.data() + (i * 3 + x) * block);
            }
            for (int64_t i = 0; i < kTransformed; ++i) {
                for (int64_t j = 0; j < kTransformed; ++j) {
                    float* to = packed + ((i * kTransformed + j) * term.inputs + input) * block;
                    combine(kG[j], rows.data() + i * 3 * block, block, to);
                }
            }
        }
        packed += kFrequencies * term.inputs * block;
    }
}

// Weights [channels, 1, kernel, kernel] as [kernel, kernel, padded].
void pack_depthwise(const ProgramWeight& weight, const PlanTerm& term, const PlanStep& step, const float* scale,
                    float* packed) {
    const int64_t* strides = weight.strides;
    const float* centre = centre_of(weight, term);
    for (int64_t y = 0; y < term.kernel; ++y) {
        for (int64_t x = 0; x < term.kernel; ++x, packed += step.padded) {
            const float* from = centre + y * strides[2] + x * strides[3];
            for (int64_t c = 0; c < step.channels; ++c) packed[c] = scale[c] * from[c * strides[0]];
            std::fill(packed + step.channels, packed + step.padded, 0.0f);
        }
    }
}

uint16_t bfloat16_of(float x) {  // to the nearest, to even in between; NaN stays
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (std::isnan(x)) return 0x7fc0;
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Weights [outputs, inputs, kernel, kernel] as blocks of 16 output channels, each [kernel, kernel * inputs / 2, 16, 2]
// with inputs rounded up to a multiple of 16: pairs of inputs are what a tile multiplies at once.
void pack_tiled(const ProgramWeight& weight, const PlanTerm& term, const PlanStep& step, const float* /*scale*/,
                float* packed) {
    const int64_t* strides = weight.strides;
    const float* centre = centre_of(weight, term);
    const int64_t inputs = round_up(term.inputs, kTileInputs / 2);
    char* to = reinterpret_cast<char*>(packed);
    for (int64_t first = 0; first < step.padded; first += kTileOutputs) {
        for (int64_t tap = 0; tap < int64_t{term.kernel} * term.kernel; ++tap) {
            const float* from = centre + tap / term.kernel * strides[2] + tap % term.kernel * strides[3];
            for (int64_t input = 0; input < inputs; input += 2) {
                for (int64_t i = 0; i < 2 * kTileOutputs; ++i, to += sizeof(uint16_t)) {
                    const int64_t output = first + i / 2, second = input + i % 2;
                    const bool real = output < step.channels && second < term.inputs;
                    const uint16_t number = real ? bfloat16_of(from[output * strides[0] + second * strides[1]]) : 0;
                    std::memcpy(to, &number, sizeof number);
                }
            }
        }
    }
}

}  // namespace

TiledShape::TiledShape(const std::vector<PlanValue>& values, const PlanTerm* terms, const PlanStep& step)
    : border(0), stride(1), width(0), rows(1), positions(0), outputs(round_up(step.padded, kTileOutputs)) {
    for (int64_t i = 0; i < step.terms; ++i) {
        if (terms[i].kind != PlanKind::kTiled) continue;
        border = std::max<int64_t>(border, terms[i].kernel / 2);
        stride = std::max<int64_t>(stride, terms[i].stride);
    }
    for (int64_t i = 0; i < step.terms; ++i) {
        if (terms[i].kind != PlanKind::kTiled) continue;
        width = std::max(width, values[static_cast<size_t>(terms[i].value)].width + 2 * border);
    }
    constexpr int64_t kMostOutputs = 128;  // so that sums stay in a first-level cache
    const auto tiled = [&](int64_t count) { return round_up((count - 1) * width + step.width, kTileOutputs); };
    for (int64_t count = 2; count <= std::min(step.height, kMostOutputs / step.width); ++count) {
        if (count * tiled(rows) > rows * tiled(count)) rows = count;  // more of the tiles are outputs
    }
    positions = tiled(rows);
}

int64_t TiledShape::map_size(const PlanValue& source) const {
    const int64_t beyond = (kTileOutputs + 2) * stride;  // positions; the last rows may be fewer than `rows`
    return round_up(((source.height + 2 * border + rows * stride) * width + beyond) * tiled_channels(source), 32);
}

void fill_tiled_scales(const Program& program, const PathPlan& plan, const std::vector<NormStatistics>* statistics,
                       float* own) {
    for (const PlanStep& step : plan.steps) {
        std::vector<float> shift(static_cast<size_t>(step.channels));
        for (int64_t i = step.first_term; i < step.first_term + step.terms; ++i) {
            const PlanTerm& term = plan.terms[static_cast<size_t>(i)];
            if (term.kind != PlanKind::kTiled) continue;
            std::fill_n(own + term.packed, step.channels, 1.0f);
            if (!statistics || term.norm == kNone) continue;
            const NormStatistics& known = (*statistics)[static_cast<size_t>(term.norm)];
            norm_affine(program, term.norm, known, step.channels, own + term.packed, shift.data());
        }
    }
}

PathPlan make_plan(const Program& program, const int64_t* genes, NormStyle style, const KernelRules& rules, Cuts cuts) {
    return PlanBuilder(program, genes, style, rules, cuts).build();
}

std::vector<int64_t> decision_order(const Program& program) {
    std::vector<int64_t> order;
    known_decisions(program, &order);
    return order;
}

const PlanCut* shared_cut(const std::vector<int64_t>& decision_order, const PlannedPath& before,
                          const PlannedPath& path) {
    const PathPlan &one = *before.plan, &other = *path.plan;
    const auto is_same = [&](int64_t a, int64_t b) {
        if (a == kNone || b == kNone) return a == b;
        return is_same_place(one.values[static_cast<size_t>(a)], other.values[static_cast<size_t>(b)]);
    };
    const PlanCut* shared = nullptr;
    size_t decision = 0, step = 0;
    // One after the other: a cut of `path` that `before` does not have is no place that was kept.
    for (size_t i = 0; i < std::min(one.cuts.size(), other.cuts.size()); ++i) {
        const PlanCut &mine = one.cuts[i], &cut = other.cuts[i];
        if (mine.decisions != cut.decisions || mine.steps != cut.steps || mine.node != cut.node) break;
        if (!is_same(mine.raw, cut.raw) || !is_same(mine.rectified, cut.rectified)) break;
        for (; decision < static_cast<size_t>(cut.decisions); ++decision) {
            const int64_t index = decision_order[decision];
            if (before.genes[index] != path.genes[index]) return shared;
        }
        for (; step < static_cast<size_t>(cut.steps); ++step) {
            if (one.steps[step].measured != other.steps[step].measured) return shared;  // the head's norm
        }
        shared = &cut;
    }
    return shared;
}

void clear_borders(const PathPlan& plan, const PathPlan* before, const Arena& arena, int64_t first, int64_t last) {
    const auto was_there = [before](const PlanValue& value) {
        const auto is_same = [&](const PlanValue& other) { return other.is_first && is_same_place(other, value); };
        return before && std::any_of(before->values.begin(), before->values.end(), is_same);
    };
    for (const PlanValue& value : plan.values) {
        if (!value.is_first || value.border == 0 || was_there(value)) continue;
        const int64_t border = value.border * value.padded, row = value.width * value.padded;
        for (int64_t slot = first; slot < last; ++slot) {
            float* at = address_of(value, arena, slot) - value.origin();
            // The border above and left of the first pixel, right and left between rows, right and below the last.
            std::fill(at, at + value.origin(), 0.0f);
            at += value.origin() + row;
            for (int64_t y = 1; y < value.height; ++y, at += row + 2 * border) std::fill(at, at + 2 * border, 0.0f);
            std::fill(at, at + value.origin(), 0.0f);
        }
    }
}

std::vector<NormStatistics> running_statistics(const Program& program) {
    std::vector<NormStatistics> statistics;
    for (const ProgramNorm& norm : program.norms) {
        const float* mean = reinterpret_cast<const float*>(norm.mean);
        const float* variance = reinterpret_cast<const float*>(norm.variance);
        statistics.push_back({{mean, mean + norm.channels}, {variance, variance + norm.channels}});
    }
    return statistics;
}

void norm_affine(const Program& program, int64_t norm, const NormStatistics& statistics, int64_t channels, float* scale,
                 float* shift) {
    const ProgramNorm& of = program.norms[static_cast<size_t>(norm)];
    const float* weight = reinterpret_cast<const float*>(of.weight);
    const float* bias = reinterpret_cast<const float*>(of.bias);
    const double epsilon = program.epsilons[static_cast<size_t>(norm)];
    for (int64_t i = 0; i < channels; ++i) {
        const size_t c = static_cast<size_t>(i);
        const double factor = weight[c] / std::sqrt(statistics.variance[c] + epsilon);
        scale[c] = static_cast<float>(factor);
        shift[c] = static_cast<float>(bias[c] - statistics.mean[c] * factor);
    }
}

int64_t packed_length(const PlanTerm& term, const PlanStep& step) {
    const int64_t taps = int64_t{term.kernel} * term.kernel;
    if (term.kind == PlanKind::kConvolution) return taps * term.inputs * step.padded;
    if (term.kind == PlanKind::kWinograd) return kFrequencies * term.inputs * step.padded;
    if (term.kind == PlanKind::kDepthwise) return taps * step.padded;
    if (term.kind == PlanKind::kTiled) {  // two numbers in the place of a float
        return taps * round_up(term.inputs, kTileInputs / 2) / 2 * round_up(step.padded, kTileOutputs);
    }
    return term.kind == PlanKind::kScaled ? step.padded : 0;
}

void pack_weights(const Program& program, const PlanTerm& term, const PlanStep& step, const float* scale,
                  float* packed) {
    const auto pack_one = term.kind == PlanKind::kConvolution ? pack_convolution
                          : term.kind == PlanKind::kWinograd  ? pack_winograd
                          : term.kind == PlanKind::kTiled     ? pack_tiled
                                                              : pack_depthwise;
    pack_one(program.weights[static_cast<size_t>(term.weight)], term, step, scale, packed);
}

void scale_weights(const PlanTerm& term, const PlanStep& step, const float* scale, const float* unscaled,
                   float* packed) {
    const int64_t rows = packed_length(term, step) / step.padded;
    const int64_t widest = term.kind == PlanKind::kDepthwise ? step.padded : step.block;
    for (int64_t first = 0; first < step.padded; first += widest) {
        const int64_t block = std::min(widest, step.padded - first);
        for (int64_t row = 0; row < rows; ++row, unscaled += block, packed += block) {
            for (int64_t c = 0; c < block; ++c) packed[c] = scale[first + c] * unscaled[c];
        }
    }
}

}  // namespace nas_engine
