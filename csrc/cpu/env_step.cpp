// Steps environments one after another: a step is a few loads and stores, so threads would cost more than they save.
#include "ops/env_step.h"

#include <algorithm>

namespace nas_engine {
namespace {

bool is_below(int64_t value, int64_t limit) { return static_cast<uint64_t>(value) < static_cast<uint64_t>(limit); }

float* observation(const Diagram& diagram, const EnvBuffers& buffers, int64_t env) {
    return buffers.observations + env * diagram.offsets[diagram.decisions];
}

int64_t* genes(const Diagram& diagram, const EnvBuffers& buffers, int64_t env) {
    return buffers.genes + env * diagram.decisions;
}

void write_mask(const Diagram& diagram, const EnvBuffers& buffers, int64_t env) {
    const int32_t* row = diagram.transitions + buffers.states[env] * diagram.max_choices;
    uint8_t* mask = buffers.masks + env * diagram.max_choices;
    for (int64_t choice = 0; choice < diagram.max_choices; ++choice) mask[choice] = row[choice] >= 0;
}

void start_episode(const Diagram& diagram, const EnvBuffers& buffers, int64_t env) {
    buffers.states[env] = 0;
    buffers.positions[env] = 0;
    std::fill_n(genes(diagram, buffers, env), diagram.decisions, int64_t{-1});
    std::fill_n(observation(diagram, buffers, env), diagram.offsets[diagram.decisions], 0.0F);
    observation(diagram, buffers, env)[0] = 1.0F;
    write_mask(diagram, buffers, env);
}

void take_choice(const Diagram& diagram, const EnvBuffers& buffers, int64_t env, int64_t choice, int32_t next) {
    const int64_t position = buffers.positions[env]++;
    float* row = observation(diagram, buffers, env);
    row[position] = 0.0F;
    row[diagram.offsets[position] + choice] = 1.0F;
    if (position + 1 < diagram.decisions) row[position + 1] = 1.0F;
    genes(diagram, buffers, env)[position] = choice;
    buffers.states[env] = next;
    buffers.terminated[env] = position + 1 == diagram.decisions;
    write_mask(diagram, buffers, env);
}

void end_invalid(const Diagram& diagram, const EnvBuffers& buffers, int64_t env) {
    buffers.terminated[env] = buffers.invalid[env] = 1;
    std::fill_n(buffers.masks + env * diagram.max_choices, diagram.max_choices, uint8_t{0});
}

void keep_final(const Diagram& diagram, const EnvBuffers& buffers, int64_t env) {
    const int64_t size = diagram.offsets[diagram.decisions];
    std::copy_n(genes(diagram, buffers, env), diagram.decisions, buffers.final_genes + env * diagram.decisions);
    std::copy_n(observation(diagram, buffers, env), size, buffers.final_observations + env * size);
}

// -1 also for a choice that this decision does not have, which a sound diagram never opens.
int32_t next_state(const Diagram& diagram, const EnvBuffers& buffers, int64_t env, int64_t choice) {
    const int64_t position = buffers.positions[env];
    if (choice >= diagram.offsets[position + 1] - diagram.offsets[position]) return -1;
    return diagram.transitions[buffers.states[env] * diagram.max_choices + choice];
}

bool can_step(const Diagram& diagram, const EnvBuffers& buffers, int64_t env, int64_t action) {
    // Positions and states are the caller's memory too: an overwritten one must not send us outside the arrays.
    return is_below(buffers.states[env], diagram.states) && is_below(buffers.positions[env], diagram.decisions) &&
           is_below(action, diagram.max_choices);
}

}  // namespace

void env_reset(const Diagram& diagram, const EnvBuffers& buffers, const uint8_t* which) {
    for (int64_t env = 0; env < buffers.envs; ++env) {
        if (!which[env]) continue;
        buffers.terminated[env] = buffers.invalid[env] = 0;
        start_episode(diagram, buffers, env);
    }
}

int64_t env_step(const Diagram& diagram, const EnvBuffers& buffers, const int64_t* actions, Autoreset autoreset) {
    for (int64_t env = 0; env < buffers.envs; ++env) {
        const bool over = buffers.terminated[env] && autoreset != Autoreset::kSameStep;
        if (over ? autoreset == Autoreset::kDisabled : !can_step(diagram, buffers, env, actions[env])) return env;
    }
    for (int64_t env = 0; env < buffers.envs; ++env) {
        const bool over = buffers.terminated[env] && autoreset == Autoreset::kNextStep;
        buffers.terminated[env] = buffers.invalid[env] = 0;
        if (over) {
            start_episode(diagram, buffers, env);
            continue;
        }
        const int32_t next = next_state(diagram, buffers, env, actions[env]);
        if (next < 0) {
            end_invalid(diagram, buffers, env);
        } else {
            take_choice(diagram, buffers, env, actions[env], next);
        }
        if (buffers.terminated[env] && autoreset == Autoreset::kSameStep) {
            keep_final(diagram, buffers, env);
            start_episode(diagram, buffers, env);
        }
    }
    return buffers.envs;
}

}  // namespace nas_engine
