"""Both evaluators keep the promises of the protocol, on a convolutional space and on one without BatchNorm."""

from __future__ import annotations

import pytest

from nas_engine.evaluators.supernet import SupernetEvaluator, SupernetOptions
from nas_engine.evaluators.training import TrainingEvaluator, TrainingOptions
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.testing.evaluator_contract import EvaluatorContract, NetworkFaultContract


class TestTrainingKeepsTheContract(EvaluatorContract, NetworkFaultContract):
    @pytest.fixture
    def make_evaluator(self, few_digits):
        return lambda space: TrainingEvaluator(space, few_digits, TrainingOptions(epochs=1), seed=3)


class TestSupernetKeepsTheContract(EvaluatorContract, NetworkFaultContract):
    @pytest.fixture
    def make_evaluator(self, few_digits):
        options = SupernetOptions(epochs=2, batch_size=40, calibration_images=64)
        return lambda space: SupernetEvaluator(space, few_digits, options, seed=3)


@pytest.mark.parametrize(("sampling", "optimizer"), [("uniform", "sgd"), ("fair", "adamw"), ("sandwich", "sgd")])
class TestSupernetKeepsTheContractInASpaceWithRules(EvaluatorContract, NetworkFaultContract):
    @pytest.fixture
    def space(self, digits):
        return BlockSpace(digits.shape, BlockSpaceOptions(blocks=4, max_total_width=7))

    @pytest.fixture
    def make_evaluator(self, few_digits, sampling, optimizer):
        options = SupernetOptions(epochs=2, sampling=sampling, optimizer=optimizer, learning_rate=0.01)
        return lambda space: SupernetEvaluator(space, few_digits, options, seed=3)
