"""Three Stable-Baselines3 agents behind one face: what to choose next, and how a rollout buffer is filled."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from torch import Tensor

from nas_engine.types import StateDict

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Transitions:
    """One step of `n` episodes side by side, before it is taken.

    Attributes:
        observations: [n, observation].
        masks: bool [n, choices]; the open choices.
        starts: float32 [n]; 1 where an episode begins with this step.
    """

    observations: FloatArray
    masks: BoolArray
    starts: FloatArray


class PPOAgent:
    """SB3's PPO. It knows no masks: they are applied where actions are drawn, not in its loss.

    Huang & Ontañón 2022, "A Closer Look at Invalid Action Masking in Policy Gradient Algorithms", call this naive
    invalid action masking.
    """

    algorithm: Any = PPO
    policy = "MlpPolicy"

    def __init__(self, env: gym.Env[Any, Any], settings: dict[str, Any]) -> None:
        """Build agent and networks; weights come from torch's global generator.

        Args:
            env: gives observation and action space; the agent never steps it.
            settings: keyword arguments of the algorithm.
        """
        self.model = self.algorithm(self.policy, env, device="cpu", **settings)
        self._logger = Logger(folder=None, output_formats=[])
        self.model.set_logger(self._logger)

    def begin(self, episodes: int) -> None:
        """Start `episodes` episodes side by side."""

    @torch.no_grad()
    def probabilities(self, step: Transitions) -> Tensor:
        """Probability of each choice, [n, choices]; closed choices have 0."""
        closed = ~torch.as_tensor(step.masks)
        probabilities = torch.softmax(self._logits(step).masked_fill(closed, -torch.inf), dim=-1)
        self._advance(step)
        return probabilities

    @torch.no_grad()
    def add(self, buffer: RolloutBuffer, step: Transitions, actions: IntArray, rewards: FloatArray) -> None:
        """Append one step to `buffer`, with what the policy thinks of it.

        Args:
            buffer: as `buffer` makes it, for n episodes.
            step: before the actions.
            actions: [n].
            rewards: [n], after the actions.
        """
        values, log_probs = self._evaluate(step, torch.as_tensor(actions))
        buffer.add(step.observations, actions, rewards, step.starts, values, log_probs, **self._extra(step))
        self._advance(step)

    def buffer(self, steps: int, episodes: int) -> RolloutBuffer:
        """An empty rollout buffer for `episodes` complete episodes of `steps` steps each."""
        return RolloutBuffer(steps, **self._buffer_settings(episodes))

    def train(self, buffer: RolloutBuffer) -> dict[str, float]:
        """Train on a buffer full of complete episodes; each epoch is one gradient step on all of it.

        Uses the global generators of torch and NumPy.

        Returns:
            What SB3 logs, by name without the prefix ``train/``; nothing where there is but one step to learn from.
        """
        if buffer.buffer_size * buffer.n_envs < 2:  # the deviation of one advantage, which SB3 divides by, is NaN
            return {}
        nothing_follows = torch.zeros(buffer.n_envs)
        buffer.compute_returns_and_advantage(nothing_follows, dones=np.ones(buffer.n_envs, dtype=np.bool_))
        self.model.rollout_buffer = buffer
        self.model.batch_size = buffer.buffer_size * buffer.n_envs
        self.model.train()
        self.model.policy.set_training_mode(False)
        logged = {name.removeprefix("train/"): float(value) for name, value in self._logger.name_to_value.items()}
        self._logger.name_to_value.clear()
        return logged

    def is_finite(self) -> bool:
        """Whether all weights are."""
        return all(bool(weight.isfinite().all()) for weight in self.model.policy.parameters())

    def state_dict(self) -> StateDict:
        """Weights and optimiser."""
        return copy.deepcopy(dict(self.model.get_parameters()))

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        # A copy, because the optimiser goes on to work in the very tensors it is given.
        self.model.set_parameters(copy.deepcopy(state), device="cpu")

    def _logits(self, step: Transitions) -> Tensor:
        logits: Tensor = self.model.policy.get_distribution(torch.as_tensor(step.observations)).distribution.logits
        return logits

    def _evaluate(self, step: Transitions, actions: Tensor) -> tuple[Tensor, Tensor]:
        values, log_probs, _ = self.model.policy.evaluate_actions(torch.as_tensor(step.observations), actions)
        return values, log_probs

    def _extra(self, step: Transitions) -> dict[str, Any]:
        """What the algorithm's buffer stores beyond what every buffer does."""
        return {}

    def _advance(self, step: Transitions) -> None:
        """Remember what the next step of the same episodes needs."""

    def _buffer_settings(self, episodes: int) -> dict[str, Any]:
        model = self.model
        return {
            "observation_space": model.observation_space,
            "action_space": model.action_space,
            "device": "cpu",
            "gamma": model.gamma,
            "gae_lambda": model.gae_lambda,
            "n_envs": episodes,
        }


class MaskablePPOAgent(PPOAgent):
    """sb3-contrib's MaskablePPO: masks count in its loss too."""

    algorithm = MaskablePPO

    def buffer(self, steps: int, episodes: int) -> RolloutBuffer:
        """As `PPOAgent.buffer`; it stores the masks."""
        return MaskableRolloutBuffer(steps, **self._buffer_settings(episodes))

    def _evaluate(self, step: Transitions, actions: Tensor) -> tuple[Tensor, Tensor]:
        observations, masks = torch.as_tensor(step.observations), torch.as_tensor(step.masks)
        values, log_probs, _ = self.model.policy.evaluate_actions(observations, actions, action_masks=masks)
        return values, log_probs

    def _extra(self, step: Transitions) -> dict[str, Any]:
        return {"action_masks": step.masks}


class RecurrentPPOAgent(PPOAgent):
    """sb3-contrib's RecurrentPPO with an LSTM each for actor and critic; masks as in `PPOAgent`."""

    algorithm = RecurrentPPO
    policy = "MlpLstmPolicy"

    def begin(self, episodes: int) -> None:
        """Start `episodes` episodes side by side; both LSTMs are reset."""
        lstm = self.model.policy.lstm_actor
        zeros = torch.zeros(lstm.num_layers, episodes, lstm.hidden_size)
        self._memory = RNNStates((zeros, zeros), (zeros, zeros))

    def buffer(self, steps: int, episodes: int) -> RolloutBuffer:
        """As `PPOAgent.buffer`; it stores the states of the LSTMs."""
        lstm = self.model.policy.lstm_actor
        shape = (steps, lstm.num_layers, episodes, lstm.hidden_size)
        return RecurrentRolloutBuffer(steps, hidden_state_shape=shape, **self._buffer_settings(episodes))

    def _logits(self, step: Transitions) -> Tensor:
        observations, starts = torch.as_tensor(step.observations), torch.as_tensor(step.starts)
        distribution, _ = self.model.policy.get_distribution(observations, self._memory.pi, starts)
        logits: Tensor = distribution.distribution.logits
        return logits

    def _evaluate(self, step: Transitions, actions: Tensor) -> tuple[Tensor, Tensor]:
        observations, starts = torch.as_tensor(step.observations), torch.as_tensor(step.starts)
        values, log_probs, _ = self.model.policy.evaluate_actions(observations, actions, self._memory, starts)
        return values, log_probs

    def _extra(self, step: Transitions) -> dict[str, Any]:
        return {"lstm_states": self._memory}

    def _advance(self, step: Transitions) -> None:
        observations, starts = torch.as_tensor(step.observations), torch.as_tensor(step.starts)
        # Deterministic, so that choosing the action, which nobody looks at, draws no random number.
        _, _, _, self._memory = self.model.policy.forward(observations, self._memory, starts, deterministic=True)
