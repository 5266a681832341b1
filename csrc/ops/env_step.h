// Steps many architecture environments at once through the decision diagram of their space.
#pragma once

#include <cstdint>

namespace nas_engine {

// The arrays of nas_engine.spaces.diagram.DecisionDiagram; state 0 is the start.
struct Diagram {
    const int32_t* transitions;  // [states, max_choices]; the next state, or -1 where the choice is closed
    const int64_t* offsets;      // [decisions + 1]: where the one-hot gene of a decision starts in an observation
    int64_t states;
    int64_t decisions;
    int64_t max_choices;
};

// One row for each environment, owned by the caller. Flags are bytes, 0 or 1.
struct EnvBuffers {
    int64_t* states;            // [envs]
    int64_t* positions;         // [envs]: number of decisions taken
    int64_t* genes;             // [envs, decisions]: -1 where not taken yet
    float* observations;        // [envs, offsets[decisions]]: one-hot position, then a one-hot gene of each decision
    uint8_t* masks;             // [envs, max_choices]
    uint8_t* terminated;        // [envs]
    uint8_t* invalid;           // [envs]: terminated by an action that was masked
    int64_t* final_genes;       // [envs, decisions]: written by kSameStep where an episode ends
    float* final_observations;  // [envs, offsets[decisions]]: likewise
    int64_t envs;
};

// When an environment whose episode has ended starts again; the names are Gymnasium's AutoresetMode.
enum class Autoreset : int64_t { kNextStep = 0, kSameStep = 1, kDisabled = 2 };

// Starts new episodes in the environments with which[env] != 0.
void env_reset(const Diagram& diagram, const EnvBuffers& buffers, const uint8_t* which);

// Takes one action in each environment. Returns the first environment that cannot be stepped (its action is outside
// 0..max_choices-1, its episode is over under kDisabled, or its state was overwritten) and then has changed nothing;
// else returns `envs`.
int64_t env_step(const Diagram& diagram, const EnvBuffers& buffers, const int64_t* actions, Autoreset autoreset);

}  // namespace nas_engine
