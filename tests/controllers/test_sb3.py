from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from nas_envs import ArchitectureEnv
from sb3_contrib import MaskablePPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates

from nas_engine.controllers.sb3 import SB3Controller
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.testing.controller_contract import ControllerContract
from nas_engine.types import ImageShape

SHAPE = ImageShape(1, 8, 8, 10)
ALGORITHMS = ["maskable-ppo", "ppo", "recurrent-ppo"]


class SB3Contract(ControllerContract):
    algorithm: str

    @pytest.fixture
    def make_controller(self):
        # One gradient step an update: the promises do not depend on how much is learnt.
        options = SB3Controller.Options(algorithm=self.algorithm, n_epochs=1, hidden_size=16)
        return lambda space, seed: SB3Controller(space, options, seed)


class TestMaskablePPO(SB3Contract):
    algorithm = "maskable-ppo"


@pytest.mark.slow
class TestPPO(SB3Contract):
    algorithm = "ppo"


@pytest.mark.slow
class TestRecurrentPPO(SB3Contract):
    algorithm = "recurrent-ppo"


@pytest.fixture
def masked_space() -> BlockSpace:
    return BlockSpace(SHAPE, BlockSpaceOptions(blocks=4, widths=4, max_total_width=6))


def score(architectures) -> list[float]:
    return [sum((i + 1) * gene for i, gene in enumerate(a.genes)) / 30 for a in architectures]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rollout_buffer_is_what_collect_rollouts_would_record(masked_space, algorithm):
    options = SB3Controller.Options(algorithm=algorithm, advantages="raw", gae_lambda=0.9, gamma=0.95, n_epochs=1)
    controller = SB3Controller(masked_space, options, seed=4)
    proposed = controller.propose(5)
    rewards = score(proposed)
    agent = controller.agent
    parameters = {name: weight.clone() for name, weight in agent.model.policy.named_parameters()}
    controller.update(proposed, rewards)
    buffer = agent.model.rollout_buffer
    # Training flattens the buffer, episode after episode.
    observations = buffer.observations.reshape(5, 4, -1)
    actions, log_probs = buffer.actions.reshape(5, 4), buffer.log_probs.reshape(5, 4)
    values, advantages = buffer.values.reshape(5, 4), buffer.advantages.reshape(5, 4)
    assert any(not torch.equal(parameters[name], weight) for name, weight in agent.model.policy.named_parameters())
    agent.model.policy.load_state_dict(parameters, strict=False)
    for row, (architecture, reward) in enumerate(zip(proposed, rewards, strict=True)):
        assert tuple(actions[row].astype(int)) == architecture.genes
        env = ArchitectureEnv(masked_space, score)
        observation, _ = env.reset()
        state, returned = [], 0.0
        for step, gene in enumerate(architecture.genes):
            assert np.array_equal(observations[row, step], observation)
            state.append((observation, env.action_masks()))
            observation, returned, *_ = env.step(gene)
        assert returned == pytest.approx(reward)
        expected_values, expected_log_probs = evaluate(agent.model, state, architecture.genes, algorithm)
        assert values[row] == pytest.approx(expected_values, abs=1e-5)
        assert log_probs[row] == pytest.approx(expected_log_probs, abs=1e-5)
        assert advantages[row] == pytest.approx(gae(reward, values[row], 0.95, 0.9), abs=1e-5)


@torch.no_grad()
def evaluate(model, state, genes, algorithm):
    """Values and log-probabilities of one episode, from the whole of it at once."""
    observations = torch.as_tensor(np.stack([observation for observation, _ in state]))
    actions = torch.tensor(genes)
    if algorithm == "maskable-ppo":
        masks = np.stack([mask for _, mask in state])
        values, log_probs, _ = model.policy.evaluate_actions(observations, actions, action_masks=masks)
    elif algorithm == "ppo":
        values, log_probs, _ = model.policy.evaluate_actions(observations, actions)
    else:
        lstm = model.policy.lstm_actor
        zeros = torch.zeros(lstm.num_layers, 1, lstm.hidden_size)
        states = RNNStates((zeros, zeros), (zeros, zeros))
        starts = torch.tensor([1.0, 0.0, 0.0, 0.0])
        values, log_probs, _ = model.policy.evaluate_actions(observations, actions, states, starts)
    return values.flatten().numpy(), log_probs.numpy()


def gae(reward: float, values, gamma: float, gae_lambda: float) -> list[float]:
    """Schulman et al. 2016, equation 16, for an episode whose only reward is its last."""
    following = [*values[1:], 0.0]
    earned = [*[0.0] * (len(values) - 1), reward]
    errors = [r + gamma * after - before for r, before, after in zip(earned, values, following, strict=True)]
    steps = range(len(values))
    return [sum((gamma * gae_lambda) ** (k - t) * errors[k] for k in steps if k >= t) for t in steps]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_draws_follow_the_masked_policy(masked_space, algorithm):
    controller = SB3Controller(masked_space, SB3Controller.Options(algorithm=algorithm), seed=2)
    drawn = controller.walker.sample(400, torch.Generator().manual_seed(0)).tolist()
    assert all(masked_space.diagram.contains(genes) for genes in drawn)
    # SB3 starts with nearly uniform logits, so each choice of the first decision has about a quarter.
    shares = np.bincount([genes[0] for genes in drawn], minlength=4) / 400
    assert shares == pytest.approx([0.25] * 4, abs=0.11)


def test_all_global_generators_are_left_alone(masked_space):
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    controller = SB3Controller(masked_space, SB3Controller.Options(algorithm="recurrent-ppo"))
    proposed = controller.propose(3)
    controller.update(proposed, score(proposed))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert before == after


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the overflow that this is about
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_update_that_breaks_the_weights_is_undone(masked_space, algorithm):
    controller = SB3Controller(masked_space, SB3Controller.Options(algorithm=algorithm, advantages="raw"))
    proposed = controller.propose(4)
    controller.update(proposed, score(proposed))
    before = controller.state_dict()["agent"]["policy"]
    proposed = controller.propose(4)
    told = controller.update(proposed, [1e300, -1e300, 1e300, 0.0])
    assert told["nan_guard"] == 1.0
    after = controller.state_dict()["agent"]["policy"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    proposed = controller.propose(4)
    assert controller.update(proposed, score(proposed))["nan_guard"] == 0.0


def test_one_step_is_not_trained_on():
    # SB3 divides by the standard deviation of the advantages, which a single one does not have.
    space = BlockSpace(SHAPE, BlockSpaceOptions(blocks=1, widths=5))
    controller = SB3Controller(space)
    proposed = controller.propose(1)
    assert controller.update(proposed, [1.0])["nan_guard"] == 0.0


def test_the_agent_is_an_ordinary_sb3_agent(masked_space, tmp_path):
    controller = SB3Controller(masked_space, seed=1)
    proposed = controller.propose(4)
    controller.update(proposed, score(proposed))
    controller.agent.model.save(tmp_path / "agent")
    env = ArchitectureEnv(masked_space, score)
    loaded = MaskablePPO.load(tmp_path / "agent", env=env, device="cpu")
    observation, _ = env.reset()
    terminated = False
    while not terminated:
        action, _ = loaded.predict(observation, action_masks=env.action_masks(), deterministic=True)
        observation, _, terminated, _, info = env.step(int(action))
    assert masked_space.from_key(info["architecture"])


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_learns_a_separable_problem(algorithm):
    space = BlockSpace(SHAPE, BlockSpaceOptions(blocks=4, widths=5))
    options = SB3Controller.Options(algorithm=algorithm)
    gained, found = [], []
    for seed in range(2):
        terms = np.random.default_rng(1000 + seed).random((4, 5))
        controller = SB3Controller(space, options, seed)
        rewards: list[float] = []
        for _ in range(12):
            proposed = controller.propose(10)
            told = [float(terms[range(4), list(a.genes)].sum()) for a in proposed]
            controller.update(proposed, told)
            rewards += told
        # The policy itself, not what fills up where it repeats known architectures.
        genes = controller.walker.sample(200, torch.Generator().manual_seed(seed)).tolist()
        policy = np.mean([terms[range(4), row].sum() for row in genes])
        deviation = np.sqrt(terms.var(axis=1).sum())
        gained.append((policy - terms.mean(axis=1).sum()) / deviation)
        found.append(max(rewards) - terms.max(axis=1).sum())
    # A random policy gains 0; the optimum lies 2.5 and 3.3 deviations above the mean.
    assert min(gained) > 1.5
    assert np.mean(found) > -0.1
