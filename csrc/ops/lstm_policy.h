// An LSTM that takes the decisions of an architecture in order: log-probabilities, their gradient, and draws.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nas_engine {

struct PolicySize {
    int64_t decisions;
    int64_t choices;  // most choices of a decision
    int64_t embedding;
    int64_t hidden;
    int64_t states;  // of the decision diagram
};

// The weights, or their gradients, one after the other in one array. Gates are in the order of PyTorch: input, forget,
// cell, output.
template <typename T>
struct PolicyTensors {
    T* decision_embedding;  // [decisions, embedding]
    T* logit_weight;        // [decisions, hidden, choices]
    T* logit_bias;          // [decisions, choices]
    T* choice_embedding;    // [1 + decisions * choices, embedding]: "nothing yet", then each choice of each decision
    T* input_weight;        // [4 * hidden, embedding]
    T* state_weight;        // [4 * hidden, hidden]
    T* input_bias;          // [4 * hidden]
    T* state_bias;          // [4 * hidden]
    T* value_weight;        // [hidden]
    T* value_bias;          // [1]

    PolicyTensors(const PolicySize& of, T* start)
        : decision_embedding(start),
          logit_weight(decision_embedding + of.decisions * of.embedding),
          logit_bias(logit_weight + of.decisions * of.hidden * of.choices),
          choice_embedding(logit_bias + of.decisions * of.choices),
          input_weight(choice_embedding + (1 + of.decisions * of.choices) * of.embedding),
          state_weight(input_weight + 4 * of.hidden * of.embedding),
          input_bias(state_weight + 4 * of.hidden * of.hidden),
          state_bias(input_bias + 4 * of.hidden),
          value_weight(state_bias + 4 * of.hidden),
          value_bias(value_weight + of.hidden) {}
};

struct Policy {
    PolicySize size;
    const float* weights;        // as PolicyTensors
    const int32_t* transitions;  // [states, choices]: the next state, or below 0 where the choice is closed
    float temperature;
    float tanh_constant;  // 0: no squashing
    std::string level;    // one of `policy_levels`; empty: the last
};

// What a policy says about samples, or the gradient with respect to it: [3, samples, decisions].
template <typename T>
struct PolicyOutputs {
    T *log_probs, *entropies, *values;

    PolicyOutputs(const PolicySize& of, int64_t samples, T* start)
        : log_probs(start), entropies(log_probs + samples * of.decisions), values(entropies + samples * of.decisions) {}
};

struct PolicySamples {
    const int64_t* genes;  // [samples, decisions]
    int64_t count;
};

// Instruction sets that this processor runs, from the slowest to the fastest.
std::vector<std::string> policy_levels();

// Floats that `lstm_policy_evaluate` keeps for `lstm_policy_gradient`.
int64_t policy_tape_size(const PolicySize& size, int64_t samples);

// Fills `outputs` (as PolicyOutputs), `open` [samples, decisions] (1 where a decision had more than one choice) and
// `tape`. Returns a sample that is no path of the diagram, and then nothing of use; else the number of samples.
int64_t lstm_policy_evaluate(const Policy& policy, const PolicySamples& samples, float* outputs, uint8_t* open,
                             float* tape);

// Fills `gradient` (as PolicyTensors), which starts as zeros, from `upstream` (as PolicyOutputs). `tape` is of the same
// policy and samples. Returns a sample with a gene outside the choices, and then has done nothing; else their number.
int64_t lstm_policy_gradient(const Policy& policy, const PolicySamples& samples, const float* tape,
                             const float* upstream, float* gradient);

// Draws `samples` paths by inversion: the first choice whose cumulative probability is above the uniform number.
// `uniforms` [samples, decisions] lie in [0, 1); `bonus` [decisions, choices] is added to the logits, or null. Returns
// false where the diagram leads outside its states.
bool lstm_policy_sample(const Policy& policy, const float* uniforms, const float* bonus, int64_t samples,
                        int64_t* genes);

}  // namespace nas_engine
