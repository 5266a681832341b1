// Episodes by hand in all three autoreset modes, and states and actions that must be refused.
#include "ops/env_step.h"

#include <limits>
#include <vector>

#include "check.h"

using nas_engine::Autoreset;
using nas_engine::Diagram;
using nas_engine::EnvBuffers;

namespace {

// Two decisions with 2 and 3 choices; the genes may sum to 2 at most. States: start, sum 0, sum 1, end.
const std::vector<int32_t> kTransitions{1, 2, -1, 3, 3, 3, 3, 3, -1, -1, -1, -1};
const std::vector<int64_t> kOffsets{2, 4, 7};
const Diagram kDiagram{kTransitions.data(), kOffsets.data(), 4, 2, 3};

struct Envs {
    explicit Envs(int64_t count)
        : states(count),
          positions(count),
          genes(count * 2),
          final_genes(count * 2),
          observations(count * 7),
          final_observations(count * 7),
          masks(count * 3),
          terminated(count),
          invalid(count),
          buffers{states.data(),     positions.data(), genes.data(),       observations.data(),       masks.data(),
                  terminated.data(), invalid.data(),   final_genes.data(), final_observations.data(), count} {
        const std::vector<uint8_t> all(count, 1);
        env_reset(kDiagram, buffers, all.data());
    }

    int64_t step(std::vector<int64_t> actions, Autoreset autoreset) {
        return env_step(kDiagram, buffers, actions.data(), autoreset);
    }

    std::vector<int64_t> states, positions, genes, final_genes;
    std::vector<float> observations, final_observations;
    std::vector<uint8_t> masks, terminated, invalid;
    EnvBuffers buffers;
};

void test_next_step() {
    Envs envs(2);
    CHECK((envs.masks == std::vector<uint8_t>{1, 1, 0, 1, 1, 0}));
    CHECK(envs.step({1, 0}, Autoreset::kNextStep) == 2);
    CHECK((envs.masks == std::vector<uint8_t>{1, 1, 0, 1, 1, 1}));
    CHECK(envs.step({2, 2}, Autoreset::kNextStep) == 2);
    CHECK((envs.terminated == std::vector<uint8_t>{1, 1}));
    CHECK((envs.invalid == std::vector<uint8_t>{1, 0}));
    CHECK((envs.genes == std::vector<int64_t>{1, -1, 0, 2}));
    CHECK((envs.observations == std::vector<float>{0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1}));
    CHECK((envs.masks == std::vector<uint8_t>{0, 0, 0, 0, 0, 0}));
    CHECK(envs.step({-5, 99}, Autoreset::kNextStep) == 2);  // ignored by environments that start again
    CHECK((envs.terminated == std::vector<uint8_t>{0, 0}));
    CHECK((envs.genes == std::vector<int64_t>{-1, -1, -1, -1}));
    CHECK((envs.observations == std::vector<float>{1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}));
}

void test_same_step() {
    Envs envs(1);
    CHECK(envs.step({0}, Autoreset::kSameStep) == 1);
    CHECK(envs.step({2}, Autoreset::kSameStep) == 1);
    CHECK((envs.terminated == std::vector<uint8_t>{1}));
    CHECK((envs.final_genes == std::vector<int64_t>{0, 2}));
    CHECK((envs.final_observations == std::vector<float>{0, 0, 1, 0, 0, 0, 1}));
    CHECK((envs.genes == std::vector<int64_t>{-1, -1}));
    CHECK((envs.masks == std::vector<uint8_t>{1, 1, 0}));
    CHECK(envs.step({1}, Autoreset::kSameStep) == 1);
    CHECK((envs.terminated == std::vector<uint8_t>{0}));
}

void test_disabled() {
    Envs envs(2);
    CHECK(envs.step({0, 2}, Autoreset::kDisabled) == 2);
    CHECK(envs.step({0, 0}, Autoreset::kDisabled) == 1);  // the second episode is over
    const std::vector<uint8_t> second{0, 1};
    env_reset(kDiagram, envs.buffers, second.data());
    CHECK(envs.step({0, 0}, Autoreset::kDisabled) == 2);
    CHECK((envs.terminated == std::vector<uint8_t>{1, 0}));
}

void test_refused_steps_change_nothing() {
    for (const int64_t action : {int64_t{3}, int64_t{-1}, std::numeric_limits<int64_t>::max()}) {
        Envs envs(2);
        CHECK(envs.step({0, action}, Autoreset::kNextStep) == 1);
        CHECK((envs.genes == std::vector<int64_t>{-1, -1, -1, -1}));
    }
    Envs envs(1);
    envs.states[0] = 1'000'000'000;
    CHECK(envs.step({0}, Autoreset::kNextStep) == 0);
    envs.states[0] = 0;
    envs.positions[0] = 2;
    CHECK(envs.step({0}, Autoreset::kNextStep) == 0);
}

}  // namespace

int main() {
    test_next_step();
    test_same_step();
    test_disabled();
    test_refused_steps_change_nothing();
}
