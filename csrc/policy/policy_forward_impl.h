// From genes to log-probabilities, and draws: both go through the decisions of a block of samples in the same steps.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "policy/policy_math_impl.h"

namespace nas_engine {
namespace {

constexpr float kClosed = -1e9F;  // logit of a closed choice: its probability is 0 in float, and 0 * log 0 no NaN

using Lane = std::array<int64_t, kPolicyBlock>;  // a number for each sample of a block
using Column = std::array<float, kPolicyBlock>;

// What the input of each decision, the choice before it, adds to the gates. There are few different inputs, so that
// this is a look-up: blocks with a column for each of up to 16 choices, [decisions, blocks of choices, 4 * hidden].
class InputGates {
  public:
    explicit InputGates(const Policy& policy)
        : blocks_(policy_blocks(policy.size.choices)),
          gates_(4 * policy.size.hidden),
          values_(policy.size.decisions * blocks_ * gates_ * kPolicyBlock) {
        const PolicySize& size = policy.size;
        const PolicyTensors<const float> weights(size, policy.weights);
        Floats embedded(size.embedding * kPolicyBlock);
        for (int64_t decision = 0; decision < size.decisions; ++decision) {
            for (int64_t block = 0; block < (decision ? blocks_ : 1); ++block) {
                embed(policy, decision, block, embedded);
                float* out = values_.data() + at(decision, block);
                for (int64_t gate = 0; gate < gates_; ++gate)
                    std::fill_n(out + gate * kPolicyBlock, kPolicyBlock,
                                weights.input_bias[gate] + weights.state_bias[gate]);
                multiply(out, {weights.input_weight, size.embedding, 1}, gates_, size.embedding, embedded.data());
            }
        }
    }

    // Starts the gates of a block of samples, which chose `before`.
    void gather(int64_t decision, const Lane& before, float* out) const {
        std::array<const float*, kPolicyBlock> column;
        for (int64_t s = 0; s < kPolicyBlock; ++s)
            column[s] = values_.data() + at(decision, before[s] / kPolicyBlock) + before[s] % kPolicyBlock;
        for (int64_t gate = 0; gate < gates_; ++gate)
            for (int64_t s = 0; s < kPolicyBlock; ++s) out[gate * kPolicyBlock + s] = column[s][gate * kPolicyBlock];
    }

    // Row of the choice embedding that is the input where `choice` was taken before `decision`.
    static int64_t row(const PolicySize& size, int64_t decision, int64_t choice) {
        return decision ? 1 + (decision - 1) * size.choices + choice : 0;
    }

    // Sums of both embeddings, [embedding] with a column a choice; 0 beyond the last choice.
    static void embed(const Policy& policy, int64_t decision, int64_t block, Floats& out) {
        const PolicySize& size = policy.size;
        const PolicyTensors<const float> weights(size, policy.weights);
        std::fill(out.begin(), out.end(), 0.0F);
        const int64_t first = block * kPolicyBlock;
        const int64_t last = decision ? std::min(first + kPolicyBlock, size.choices) : 1;
        for (int64_t choice = first; choice < last; ++choice)
            for (int64_t e = 0; e < size.embedding; ++e)
                out[e * kPolicyBlock + choice - first] =
                    weights.choice_embedding[row(size, decision, choice) * size.embedding + e] +
                    weights.decision_embedding[decision * size.embedding + e];
    }

  private:
    int64_t at(int64_t decision, int64_t block) const { return (decision * blocks_ + block) * gates_ * kPolicyBlock; }

    int64_t blocks_, gates_;
    Floats values_;
};

// A block of samples on its way through the decisions.
class BlockPass {
  public:
    BlockPass(const Policy& policy, const InputGates& inputs)
        : policy_(policy),
          weights_(policy.size, policy.weights),
          inputs_(inputs),
          hidden_(policy.size.hidden * kPolicyBlock),
          cells_(policy.size.hidden * kPolicyBlock),
          mask_(policy.size.choices * kPolicyBlock) {}

    void start() {
        std::fill(cells_.begin(), cells_.end(), 0.0F);
        states_.fill(0);
        choices_.fill(0);
        decision_ = 0;
    }

    // The LSTM cell and the distribution of the next choice, written to `tape`.
    void advance(float* tape, const float* bonus) {
        const PolicyTape at(policy_.size);
        inputs_.gather(decision_, choices_, tape + at.gates);
        if (decision_)
            multiply(tape + at.gates, {weights_.state_weight, policy_.size.hidden, 1}, 4 * policy_.size.hidden,
                     policy_.size.hidden, hidden_.data());
        run_cell(tape);
        for (int64_t choice = 0; choice < policy_.size.choices; ++choice)
            for (int64_t s = 0; s < kPolicyBlock; ++s)
                mask_[choice * kPolicyBlock + s] = policy_.transitions[states_[s] * policy_.size.choices + choice] >= 0;
        run_logits(tape, bonus);
    }

    // Takes a choice in each sample. Returns the first sample whose choice is none, or the number of samples.
    int64_t take(const Lane& choices) {
        for (int64_t s = 0; s < kPolicyBlock; ++s) {
            if (choices[s] < 0 || choices[s] >= policy_.size.choices) return s;
            states_[s] = policy_.transitions[states_[s] * policy_.size.choices + choices[s]];
            if (states_[s] < 0 || states_[s] >= policy_.size.states) return s;
        }
        choices_ = choices;
        ++decision_;
        return kPolicyBlock;
    }

    Column entropies(const float* tape) const {
        const float* log_probs = tape + PolicyTape(policy_.size).log_probs;
        Column found;
        for (int64_t p = 0; p < kPolicyBlock; p += kLanes) {
            Pack sum{};
            for (int64_t i = p; i < policy_.size.choices * kPolicyBlock; i += kPolicyBlock)
                sum -= load<8>(&mask_[i]) * exponential(load<8>(log_probs + i)) * load<8>(log_probs + i);
            store<8>(&found[p], sum);
        }
        return found;
    }

    Column values() const {
        Column found;
        found.fill(*weights_.value_bias);
        multiply(found.data(), {weights_.value_weight, policy_.size.hidden, 1}, 1, policy_.size.hidden, hidden_.data());
        return found;
    }

    bool is_open(int64_t sample) const {
        float choices = 0;
        for (int64_t choice = 0; choice < policy_.size.choices; ++choice)
            choices += mask_[choice * kPolicyBlock + sample];
        return choices > 1;
    }

    // The first choice whose cumulative probability is above `uniform`; the last open one where rounding hides it.
    int64_t drawn(const float* tape, int64_t sample, float uniform) const {
        const float* log_probs = tape + PolicyTape(policy_.size).log_probs;
        float sum = 0;
        int64_t last = 0;
        for (int64_t choice = 0; choice < policy_.size.choices; ++choice) {
            if (mask_[choice * kPolicyBlock + sample] == 0) continue;
            last = choice;
            sum += std::exp(log_probs[choice * kPolicyBlock + sample]);
            if (sum > uniform) break;
        }
        return last;
    }

  private:
    void run_cell(float* tape) {
        const PolicyTape at(policy_.size);
        const int64_t size = policy_.size.hidden * kPolicyBlock;
        for (int64_t i = 0; i < size; i += kLanes) {
            float* gates = tape + at.gates + i;
            const Pack input = sigmoid(load<8>(gates)), forget = sigmoid(load<8>(gates + size));
            const Pack candidate = hyperbolic_tangent(load<8>(gates + 2 * size));
            const Pack output = sigmoid(load<8>(gates + 3 * size));
            const Pack cell = forget * load<8>(&cells_[i]) + input * candidate;
            const Pack cell_tanh = hyperbolic_tangent(cell);
            store<8>(gates, input);
            store<8>(gates + size, forget);
            store<8>(gates + 2 * size, candidate);
            store<8>(gates + 3 * size, output);
            store<8>(&cells_[i], cell);
            store<8>(tape + at.cells + i, cell);
            store<8>(tape + at.cell_tanhs + i, cell_tanh);
            store<8>(&hidden_[i], output * cell_tanh);
        }
        const int64_t width = PolicyTape::padded(policy_.size.hidden);
        for (int64_t s = 0; s < kPolicyBlock; ++s)
            for (int64_t h = 0; h < width; ++h)
                tape[at.states + s * width + h] = h < policy_.size.hidden ? hidden_[h * kPolicyBlock + s] : 0.0F;
    }

    void run_logits(float* tape, const float* bonus) {
        const PolicyTape at(policy_.size);
        const PolicySize& size = policy_.size;
        float* logits = tape + at.log_probs;
        const int64_t first = decision_ * size.choices;
        for (int64_t choice = 0; choice < size.choices; ++choice)
            std::fill_n(logits + choice * kPolicyBlock, kPolicyBlock, weights_.logit_bias[first + choice]);
        multiply(logits, {weights_.logit_weight + first * size.hidden, 1, size.choices}, size.choices, size.hidden,
                 hidden_.data());
        for (int64_t p = 0; p < kPolicyBlock; p += kLanes)
            normalise(logits + p, tape + at.slopes + p, &mask_[p], bonus);
    }

    // Temperature, squashing, mask and log-softmax of eight samples; `slopes` are those of the first three.
    void normalise(float* logits, float* slopes, const float* mask, const float* bonus) const {
        const float limit = policy_.tanh_constant, scale = 1 / policy_.temperature;
        const int64_t choices = policy_.size.choices;
        Pack largest = broadcast<8>(kClosed), sum{};
        for (int64_t choice = 0, i = 0; choice < choices; ++choice, i += kPolicyBlock) {
            Pack logit = load<8>(logits + i) * scale, slope = broadcast<8>(scale);
            if (limit > 0) {
                const Pack squashed = hyperbolic_tangent(logit / limit);
                slope *= 1.0F - squashed * squashed;
                logit = limit * squashed;
            }
            if (bonus) logit += bonus[decision_ * choices + choice];
            const auto closed = load<8>(mask + i) == 0.0F;
            logit = closed ? broadcast<8>(kClosed) : logit;
            store<8>(slopes + i, closed ? Pack{} : slope);
            store<8>(logits + i, logit);
            largest = logit > largest ? logit : largest;
        }
        for (int64_t i = 0; i < choices * kPolicyBlock; i += kPolicyBlock)
            sum += load<8>(mask + i) * exponential(load<8>(logits + i) - largest);
        for (int64_t lane = 0; lane < kLanes; ++lane) sum[lane] = std::log(sum[lane]);
        for (int64_t i = 0; i < choices * kPolicyBlock; i += kPolicyBlock)
            store<8>(logits + i, load<8>(logits + i) - largest - sum);
    }

    const Policy& policy_;
    PolicyTensors<const float> weights_;
    const InputGates& inputs_;
    Floats hidden_, cells_, mask_;
    Lane states_{}, choices_{};
    int64_t decision_ = 0;
};

// The sample at position `s` of a block; beyond the last sample, the block's first one.
int64_t sample_at(int64_t first, int64_t s, int64_t count) { return first + s < count ? first + s : first; }

int64_t evaluate(const Policy& policy, const PolicySamples& samples, float* to, uint8_t* open, float* tape) {
    const PolicyOutputs<float> outputs(policy.size, samples.count, to);
    const InputGates inputs(policy);
    BlockPass pass(policy, inputs);
    const int64_t decisions = policy.size.decisions, tape_step = PolicyTape(policy.size).size;
    const int64_t log_probs = PolicyTape(policy.size).log_probs;
    for (int64_t first = 0; first < samples.count; first += kPolicyBlock) {
        pass.start();
        for (int64_t decision = 0; decision < decisions; ++decision, tape += tape_step) {
            pass.advance(tape, nullptr);
            const Column entropies = pass.entropies(tape), values = pass.values();
            Lane genes;
            for (int64_t s = 0; s < kPolicyBlock; ++s)
                genes[s] = samples.genes[sample_at(first, s, samples.count) * decisions + decision];
            for (int64_t s = 0; s < std::min(kPolicyBlock, samples.count - first); ++s) {
                const int64_t to = (first + s) * decisions + decision;
                const bool is_choice = genes[s] >= 0 && genes[s] < policy.size.choices;
                outputs.log_probs[to] = is_choice ? tape[log_probs + genes[s] * kPolicyBlock + s] : 0.0F;
                outputs.entropies[to] = entropies[s];
                outputs.values[to] = values[s];
                open[to] = pass.is_open(s);
            }
            const int64_t taken = pass.take(genes);
            if (taken < kPolicyBlock) return sample_at(first, taken, samples.count);
        }
    }
    return samples.count;
}

bool sample(const Policy& policy, const float* uniforms, const float* bonus, int64_t samples, int64_t* genes) {
    const InputGates inputs(policy);
    BlockPass pass(policy, inputs);
    const int64_t decisions = policy.size.decisions;
    Floats tape(PolicyTape(policy.size).size);
    for (int64_t first = 0; first < samples; first += kPolicyBlock) {
        pass.start();
        for (int64_t decision = 0; decision < decisions; ++decision) {
            pass.advance(tape.data(), bonus);
            Lane drawn;
            for (int64_t s = 0; s < kPolicyBlock; ++s) {
                const int64_t at = sample_at(first, s, samples) * decisions + decision;
                drawn[s] = pass.drawn(tape.data(), first + s < samples ? s : 0, uniforms[at]);
                genes[at] = drawn[s];
            }
            if (pass.take(drawn) < kPolicyBlock) return false;
        }
    }
    return true;
}

}  // namespace
}  // namespace nas_engine
