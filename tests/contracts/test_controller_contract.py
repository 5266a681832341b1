"""The learning controllers keep the promises of the controller protocol."""

from __future__ import annotations

import pytest

from nas_engine.controllers.ppo import PPOController, PPOOptions
from nas_engine.controllers.ppo_model import PPOModelController, PPOModelOptions
from nas_engine.controllers.reinforce import ReinforceController, ReinforceOptions
from nas_engine.testing.controller_contract import ControllerContract, MakeController


class TestReinforce(ControllerContract):
    @pytest.fixture
    def make_controller(self) -> MakeController:
        return lambda space, seed: ReinforceController(space, ReinforceOptions(), seed)


class TestReinforceOnRawRewards(ControllerContract):
    """Nothing tames the rewards here: the NaN guard has to."""

    @pytest.fixture
    def make_controller(self) -> MakeController:
        options = ReinforceOptions(advantages="raw", baseline="ema", free_samples=10, hidden_size=8)
        return lambda space, seed: ReinforceController(space, options, seed)


class TestPPO(ControllerContract):
    @pytest.fixture
    def make_controller(self) -> MakeController:
        return lambda space, seed: PPOController(space, PPOOptions(), seed)


class TestPPOModel(ControllerContract):
    @pytest.fixture
    def make_controller(self) -> MakeController:
        return lambda space, seed: PPOModelController(space, PPOModelOptions(), seed)


class TestPPOThatReplays(ControllerContract):
    """Replay draws from what is known: its random state must be part of what is saved."""

    @pytest.fixture
    def make_controller(self) -> MakeController:
        return lambda space, seed: PPOController(space, PPOOptions(replay=6, hidden_size=8), seed)


class TestReinforceThatReplays(ControllerContract):
    @pytest.fixture
    def make_controller(self) -> MakeController:
        return lambda space, seed: ReinforceController(space, ReinforceOptions(replay=6, hidden_size=8), seed)
