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
        return lambda space: TrainingEvaluator(space, few_digits, TrainingOptions(epochs=2), seed=3)


@pytest.mark.parametrize("sampling", ["uniform", "fair", "sandwich"])
class TestSupernetKeepsTheContract(EvaluatorContract, NetworkFaultContract):
    @pytest.fixture
    def make_evaluator(self, few_digits, sampling):
        options = SupernetOptions(epochs=3, sampling=sampling, calibration_images=64)
        return lambda space: SupernetEvaluator(space, few_digits, options, seed=3)


class TestSupernetKeepsTheContractInASpaceWithRules(EvaluatorContract, NetworkFaultContract):
    @pytest.fixture
    def space(self, digits):
        return BlockSpace(digits.shape, BlockSpaceOptions(blocks=4, max_total_width=7))

    @pytest.fixture(params=["sgd", "adamw"])
    def make_evaluator(self, few_digits, request):
        options = SupernetOptions(epochs=3, sampling="fair", optimizer=request.param, learning_rate=0.01)
        return lambda space: SupernetEvaluator(space, few_digits, options, seed=3)
