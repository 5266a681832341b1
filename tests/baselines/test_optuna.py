from __future__ import annotations

import copy

import numpy as np
import optuna
import pytest

from nas_engine.baselines.optuna import CategoricalDistribution, OptunaController
from nas_engine.baselines.random import RandomController
from nas_engine.errors import MissingExtraError
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.testing.controller_contract import ControllerContract
from nas_engine.types import ImageShape

SHAPE = ImageShape(1, 8, 8, 10)
SAMPLERS = ["tpe", "nsga2", pytest.param("gp", marks=pytest.mark.slow)]


class OptunaContract(ControllerContract):
    sampler: str

    @pytest.fixture
    def make_controller(self):
        return lambda space, seed: OptunaController(space, OptunaController.Options(sampler=self.sampler), seed)


@pytest.mark.slow
class TestTPE(OptunaContract):
    sampler = "tpe"


class TestNSGA2(OptunaContract):
    sampler = "nsga2"


@pytest.mark.slow
class TestGP(OptunaContract):
    sampler = "gp"

    @pytest.fixture
    def make_controller(self):
        # Fitting a Gaussian process takes a good part of a second: all proposals here precede it;
        # test_gaussian_process_continues_exactly and test_gaussian_process_never_proposes_twice have the model.
        options = OptunaController.Options(sampler="gp", n_startup=200)
        return lambda space, seed: OptunaController(space, options, seed)


def test_gaussian_process_never_proposes_twice():
    """Its own suggestions repeat themselves near the optimum: the controller has to look further."""
    space = BlockSpace(SHAPE, BlockSpaceOptions(blocks=2, widths=3))
    controller = OptunaController(space, OptunaController.Options(sampler="gp", n_startup=4), seed=1)
    proposed = []
    for count in (4, 1, 1, 1, 2):
        proposed += controller.propose(count)
        controller.update(proposed[-count:], [float(sum(a.genes)) for a in proposed[-count:]])
    assert len(set(proposed)) == 9


@pytest.mark.parametrize("pattern", [(-7.5,), (1e-30, 2e-30), (0.9, 0.8, -1e9), (1.7e308, -1.7e308)], ids=str)
def test_gaussian_process_survives_odd_rewards(pattern):
    space = BlockSpace(SHAPE, BlockSpaceOptions(blocks=3, widths=3))
    controller = OptunaController(space, OptunaController.Options(sampler="gp", n_startup=4), seed=1)
    proposed = []
    for count in (5, 2, 1):
        proposed += controller.propose(count)
        told = controller.update(proposed[-count:], [pattern[index % len(pattern)] for index in range(count)])
        assert np.isfinite(list(told.values())).all()
    assert len(set(proposed)) == 8


def test_gaussian_process_continues_exactly():
    space = BlockSpace(SHAPE, BlockSpaceOptions(blocks=4, widths=4))
    options = OptunaController.Options(sampler="gp", n_startup=8)
    one = OptunaController(space, options, seed=1)
    first = one.propose(8)
    one.update(first, [float(sum(a.genes)) for a in first])
    waiting = one.propose(2)
    other = OptunaController(space, options, seed=2)
    other.load_state_dict(one.state_dict())
    rewards = [float(sum(a.genes)) for a in waiting]
    assert one.update(waiting, rewards) == other.update(waiting, rewards)
    assert one.propose(2) == other.propose(2)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_study_holds_what_was_told(blocks, sampler):
    controller = OptunaController(blocks, OptunaController.Options(sampler=sampler), seed=1)
    told = {}
    for _ in range(3):
        proposed = controller.propose(8)
        rewards = [float(sum(a.genes)) - 0.1 * a.genes[0] for a in proposed]
        told.update(zip(proposed, rewards, strict=True))
        controller.update(proposed, rewards)
    best = max(told, key=told.__getitem__)
    assert controller.study.best_value == told[best]
    # In this space every suggestion is valid and canonical, so parameters and genes are the same thing.
    names = {d.name: d.choices[gene] for d, gene in zip(blocks.decisions, best.genes, strict=True)}
    assert controller.study.best_params == names
    complete = controller.study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert sorted(trial.value for trial in complete) == sorted(told.values())


def test_masked_suggestions_are_projected_to_the_nearest_open_choice():
    space = BlockSpace(SHAPE, BlockSpaceOptions(blocks=4, widths=5, max_total_width=6))
    controller = OptunaController(space, OptunaController.Options(sampler="nsga2"), seed=3)
    rewards = {}
    for _ in range(12):
        proposed = controller.propose(10)
        rewards.update((a, float(sum(a.genes))) for a in proposed)
        controller.update(proposed, [rewards[a] for a in proposed])
    projected = 0
    for trial in controller.study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        wanted = [d.choices.index(trial.params[d.name]) for d in space.decisions]
        taken, left = [], 6
        for gene in wanted:  # here the open choices are 0 .. what is left, so the nearest is the largest open one
            taken.append(min(gene, left))
            left -= taken[-1]
        assert trial.value == rewards[space.architecture(taken)]
        projected += taken != wanted
    assert projected > 0


def test_other_spellings_of_a_known_architecture_are_told_for_free():
    space = BlockSpace(SHAPE, BlockSpaceOptions(blocks=4, widths=3, merge_skips=True))
    controller = OptunaController(space, seed=0)
    paid = 0
    for _ in range(5):
        proposed = controller.propose(5)
        told = controller.update(proposed, [float(sum(a.genes)) for a in proposed])
        paid += len(proposed)
    complete = controller.study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert len(complete) > paid
    assert told["study_trials"] == len(complete) + told["repeated_trials"]
    params = [tuple(trial.params.values()) for trial in complete]
    assert len(set(params)) == len(params)


@pytest.mark.parametrize(
    ("sampler", "evaluations", "seeds"),
    [
        pytest.param("tpe", 100, 4, marks=pytest.mark.slow),
        ("nsga2", 100, 5),
        pytest.param("gp", 40, 2, marks=pytest.mark.slow),
    ],
)
def test_beats_random_search(regret, sampler, evaluations, seeds):
    options = OptunaController.Options(sampler=sampler)
    model = [regret(lambda space, seed: OptunaController(space, options, seed), s, evaluations) for s in range(seeds)]
    random = [regret(lambda space, seed: RandomController(space, seed=seed), s, evaluations) for s in range(seeds)]
    assert np.mean(model) < 0.6 * np.mean(random)


def test_optunas_logging_is_left_as_it_was(blocks, capfd):
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        controller = OptunaController(blocks)
        proposed = controller.propose(3)
        controller.update(proposed, [1.0, 2.0, 3.0])
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(optuna.logging.INFO)
    assert "A new study created" not in capfd.readouterr().err


def test_a_sampler_whose_packages_are_missing_is_an_error_at_once(blocks, monkeypatch):
    def fail(**_):
        raise ImportError("No module named 'scipy'")

    monkeypatch.setattr(optuna.samplers, "GPSampler", fail)
    with pytest.raises(MissingExtraError, match="pip install torch scipy"):
        OptunaController(blocks, OptunaController.Options(sampler="gp"))


def test_tpe_suggests_what_a_new_sampler_for_each_trial_suggests(blocks, monkeypatch):
    def search():
        """Twelve at a time: the last two of the first are suggested before any reward is known."""
        controller, proposed = OptunaController(blocks, seed=3), []
        for _ in range(3):
            proposed += controller.propose(12)
            controller.update(proposed[-12:], [float(sum(a.genes)) for a in proposed[-12:]])
        return proposed

    reused = search()

    def new_sampler(self, trial_number=0):
        seed = int(np.random.SeedSequence([self.seed, trial_number]).generate_state(1)[0])
        return optuna.samplers.TPESampler(n_startup_trials=self.options.n_startup, seed=seed)

    monkeypatch.setattr(OptunaController, "_sampler", new_sampler)
    assert search() == reused


def test_choices_are_to_optuna_what_its_own_are():
    ours, theirs = CategoricalDistribution(("a", "b")), optuna.distributions.CategoricalDistribution(("a", "b"))
    assert ours == theirs
    assert theirs == ours
    assert ours == CategoricalDistribution(["a", "b"])
    assert hash(ours) == hash(CategoricalDistribution(["a", "b"]))
    assert ours != CategoricalDistribution(("b", "a"))
    assert ours != optuna.distributions.CategoricalDistribution(("a", "b", "c"))
    assert ours != optuna.distributions.IntDistribution(0, 1)
    assert copy.deepcopy(ours) is ours
    written = optuna.distributions.distribution_to_json(ours)
    assert written == optuna.distributions.distribution_to_json(theirs)
    assert optuna.distributions.json_to_distribution(written) == ours
