// Back through the decisions: the gradient of a loss of log-probabilities, entropies and values.
#pragma once

#include "policy/policy_forward_impl.h"

namespace nas_engine {
namespace {

class GradientPass {
  public:
    GradientPass(const Policy& policy, float* gradient)
        : policy_(policy),
          size_(policy.size),
          weights_(size_, policy.weights),
          to_(size_, gradient),
          width_(PolicyTape::padded(size_.hidden)),
          gate_rows_(4 * size_.hidden),
          choice_blocks_(policy_blocks(size_.choices)),
          of_gates_(size_.decisions * gate_rows_ * kPolicyBlock),
          of_logits_(size_.decisions * size_.choices * kPolicyBlock),
          of_values_(size_.decisions * kPolicyBlock),
          of_hidden_(size_.hidden * kPolicyBlock),
          of_cells_(size_.hidden * kPolicyBlock),
          of_inputs_(size_.decisions * choice_blocks_ * gate_rows_ * kPolicyBlock),
          state_weight_(gate_rows_ * width_),
          logit_weight_(size_.decisions * size_.choices * width_),
          value_weight_(width_) {}

    // Adds what one block contributes; `tape` is the block's.
    void add(const PolicySamples& samples, int64_t first, const float* tape,
             const PolicyOutputs<const float>& upstream) {
        std::fill(of_cells_.begin(), of_cells_.end(), 0.0F);
        for (int64_t decision = size_.decisions - 1; decision >= 0; --decision) {
            start_hidden(decision);
            run_logits(samples, first, decision, tape + decision * PolicyTape(size_).size, upstream);
            run_cell(decision, tape + decision * PolicyTape(size_).size,
                     decision ? tape + (decision - 1) * PolicyTape(size_).size : nullptr);
            add_inputs(samples, first, decision);
        }
        add_weights(tape);
    }

    // Writes the sums to the tensors of the gradient.
    void finish() {
        unpad(state_weight_.data(), gate_rows_, to_.state_weight);
        unpad(value_weight_.data(), 1, to_.value_weight);
        for (int64_t decision = 0; decision < size_.decisions; ++decision)
            for (int64_t h = 0; h < size_.hidden; ++h)
                for (int64_t choice = 0; choice < size_.choices; ++choice)
                    to_.logit_weight[(decision * size_.hidden + h) * size_.choices + choice] =
                        logit_weight_[(decision * size_.choices + choice) * width_ + h];
        for (int64_t decision = 0; decision < size_.decisions; ++decision)
            for (int64_t block = 0; block < (decision ? choice_blocks_ : 1); ++block) finish_inputs(decision, block);
        std::copy_n(to_.input_bias, gate_rows_, to_.state_bias);
    }

  private:
    float* gates(int64_t decision) { return of_gates_.data() + decision * gate_rows_ * kPolicyBlock; }
    float* logits(int64_t decision) { return of_logits_.data() + decision * size_.choices * kPolicyBlock; }
    float* inputs(int64_t decision, int64_t block) {
        return of_inputs_.data() + (decision * choice_blocks_ + block) * gate_rows_ * kPolicyBlock;
    }

    // With respect to the hidden state after `decision`, as the next decision sees it.
    void start_hidden(int64_t decision) {
        std::fill(of_hidden_.begin(), of_hidden_.end(), 0.0F);
        if (decision + 1 < size_.decisions)
            multiply(of_hidden_.data(), {weights_.state_weight, 1, size_.hidden}, size_.hidden, gate_rows_,
                     gates(decision + 1));
    }

    void run_logits(const PolicySamples& samples, int64_t first, int64_t decision, const float* tape,
                    const PolicyOutputs<const float>& upstream) {
        Column of_log_prob{}, of_entropy{};
        Lane genes{};
        float* of_value = &of_values_[decision * kPolicyBlock];
        std::fill_n(of_value, kPolicyBlock, 0.0F);
        for (int64_t s = 0; s < std::min(kPolicyBlock, samples.count - first); ++s) {
            const int64_t at = (first + s) * size_.decisions + decision;
            genes[s] = samples.genes[at];
            of_log_prob[s] = upstream.log_probs[at];
            of_entropy[s] = upstream.entropies[at];
            of_value[s] = upstream.values[at];
            *to_.value_bias += of_value[s];
        }
        for (int64_t p = 0; p < kPolicyBlock; p += kLanes)
            run_softmax(tape, p, load<8>(&of_log_prob[p]), load<8>(&of_entropy[p]), logits(decision));
        const float* slopes = tape + PolicyTape(size_).slopes;
        for (int64_t s = 0; s < kPolicyBlock; ++s) {
            const int64_t at = genes[s] * kPolicyBlock + s;
            logits(decision)[at] += of_log_prob[s] * slopes[at];
        }
        add_heads(decision);
    }

    // d log p(gene) / d logit = [gene] - p, of which this is the second part; d entropy / d logit = -p (log p +
    // entropy).
    void run_softmax(const float* tape, int64_t p, Pack of_log_prob, Pack of_entropy, float* out) const {
        const float* log_probs = tape + PolicyTape(size_).log_probs + p;
        const float* slopes = tape + PolicyTape(size_).slopes + p;
        const int64_t end = size_.choices * kPolicyBlock;
        Pack entropy{};
        for (int64_t i = 0; i < end; i += kPolicyBlock)
            entropy -= exponential(load<8>(log_probs + i)) * load<8>(log_probs + i);
        for (int64_t i = 0; i < end; i += kPolicyBlock) {
            const Pack log_prob = load<8>(log_probs + i);
            const Pack down = of_log_prob + of_entropy * (log_prob + entropy);
            store<8>(out + p + i, -exponential(log_prob) * down * load<8>(slopes + i));
        }
    }

    void add_heads(int64_t decision) {
        const float* of_logits = logits(decision);
        multiply(of_hidden_.data(), {weights_.logit_weight + decision * size_.hidden * size_.choices, size_.choices, 1},
                 size_.hidden, size_.choices, of_logits);
        multiply(of_hidden_.data(), {weights_.value_weight, 1, 1}, size_.hidden, 1,
                 &of_values_[decision * kPolicyBlock]);
        for (int64_t choice = 0; choice < size_.choices; ++choice)
            for (int64_t s = 0; s < kPolicyBlock; ++s)
                to_.logit_bias[decision * size_.choices + choice] += of_logits[choice * kPolicyBlock + s];
    }

    void run_cell(int64_t decision, const float* tape, const float* before) {
        const PolicyTape at(size_);
        const int64_t size = size_.hidden * kPolicyBlock;
        for (int64_t i = 0; i < size; i += kLanes) {
            const float* gate = tape + at.gates + i;
            const Pack input = load<8>(gate), forget = load<8>(gate + size);
            const Pack candidate = load<8>(gate + 2 * size), output = load<8>(gate + 3 * size);
            const Pack cell_tanh = load<8>(tape + at.cell_tanhs + i), hidden = load<8>(&of_hidden_[i]);
            const Pack cell_before = before ? load<8>(before + at.cells + i) : Pack{};
            const Pack cell = load<8>(&of_cells_[i]) + hidden * output * (1.0F - cell_tanh * cell_tanh);
            float* to = gates(decision) + i;
            store<8>(to, cell * candidate * input * (1.0F - input));
            store<8>(to + size, cell * cell_before * forget * (1.0F - forget));
            store<8>(to + 2 * size, cell * input * (1.0F - candidate * candidate));
            store<8>(to + 3 * size, hidden * cell_tanh * output * (1.0F - output));
            store<8>(&of_cells_[i], cell * forget);
        }
    }

    void add_inputs(const PolicySamples& samples, int64_t first, int64_t decision) {
        for (int64_t s = 0; s < std::min(kPolicyBlock, samples.count - first); ++s) {
            const int64_t before = decision ? samples.genes[(first + s) * size_.decisions + decision - 1] : 0;
            float* column = inputs(decision, before / kPolicyBlock) + before % kPolicyBlock;
            const float* of_gate = gates(decision) + s;
            for (int64_t i = 0; i < gate_rows_ * kPolicyBlock; i += kPolicyBlock) column[i] += of_gate[i];
        }
    }

    void add_weights(const float* tape) {
        const PolicyTape at(size_);
        const float* states = tape + at.states;
        if (size_.decisions > 1)
            correlate(state_weight_.data(), gate_rows_, width_, {gates(1), gate_rows_ * kPolicyBlock},
                      {states, at.size}, size_.decisions - 1);
        correlate(value_weight_.data(), 1, width_, {of_values_.data(), kPolicyBlock}, {states, at.size},
                  size_.decisions);
        for (int64_t decision = 0; decision < size_.decisions; ++decision)
            correlate(&logit_weight_[decision * size_.choices * width_], size_.choices, width_, {logits(decision), 0},
                      {states + decision * at.size, 0}, 1);
    }

    // The columns of `inputs` were summed over samples with the same input; now through the embeddings.
    void finish_inputs(int64_t decision, int64_t block) {
        const int64_t first = block * kPolicyBlock, width = PolicyTape::padded(size_.embedding);
        const float* of_gate = inputs(decision, block);
        Floats embedded(size_.embedding * kPolicyBlock), rows(width * kPolicyBlock);
        InputGates::embed(policy_, decision, block, embedded);
        for (int64_t e = 0; e < size_.embedding; ++e)
            for (int64_t c = 0; c < kPolicyBlock; ++c) rows[c * width + e] = embedded[e * kPolicyBlock + c];
        Floats of_weight(gate_rows_ * width);
        correlate(of_weight.data(), gate_rows_, width, {of_gate, 0}, {rows.data(), 0}, 1);
        for (int64_t gate = 0; gate < gate_rows_; ++gate) {
            for (int64_t e = 0; e < size_.embedding; ++e)
                to_.input_weight[gate * size_.embedding + e] += of_weight[gate * width + e];
            for (int64_t c = 0; c < kPolicyBlock; ++c) to_.input_bias[gate] += of_gate[gate * kPolicyBlock + c];
        }
        std::fill(embedded.begin(), embedded.end(), 0.0F);
        multiply(embedded.data(), {weights_.input_weight, 1, size_.embedding}, size_.embedding, gate_rows_, of_gate);
        const int64_t last = decision ? std::min(first + kPolicyBlock, size_.choices) : 1;
        for (int64_t e = 0; e < size_.embedding; ++e) {
            for (int64_t choice = first; choice < last; ++choice) {
                const float of_input = embedded[e * kPolicyBlock + choice - first];
                to_.choice_embedding[InputGates::row(size_, decision, choice) * size_.embedding + e] = of_input;
                to_.decision_embedding[decision * size_.embedding + e] += of_input;
            }
        }
    }

    void unpad(const float* from, int64_t rows, float* to) const {
        for (int64_t row = 0; row < rows; ++row)
            std::copy_n(from + row * width_, size_.hidden, to + row * size_.hidden);
    }

    const Policy& policy_;
    const PolicySize& size_;
    PolicyTensors<const float> weights_;
    PolicyTensors<float> to_;
    int64_t width_, gate_rows_, choice_blocks_;
    Floats of_gates_, of_logits_, of_values_, of_hidden_, of_cells_, of_inputs_;
    Floats state_weight_, logit_weight_, value_weight_;
};

int64_t gradient(const Policy& policy, const PolicySamples& samples, const float* tape, const float* upstream,
                 float* gradient) {
    const int64_t decisions = policy.size.decisions, step = decisions * PolicyTape(policy.size).size;
    for (int64_t i = 0; i < samples.count * decisions; ++i)
        if (samples.genes[i] < 0 || samples.genes[i] >= policy.size.choices) return i / decisions;
    const PolicyOutputs<const float> given(policy.size, samples.count, upstream);
    GradientPass pass(policy, gradient);
    for (int64_t first = 0; first < samples.count; first += kPolicyBlock, tape += step)
        pass.add(samples, first, tape, given);
    pass.finish();
    return samples.count;
}

}  // namespace
}  // namespace nas_engine
