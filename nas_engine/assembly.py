"""From checked settings to working components: the one place where a search is put together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from nas_engine.config import Component, SearchConfig
from nas_engine.costs.analytic import AnalyticCost
from nas_engine.costs.base import CostModel
from nas_engine.costs.measured import MeasuredLatency
from nas_engine.data.base import ImageDataset
from nas_engine.errors import ConfigError
from nas_engine.evaluators.fit import check_images, usable_device
from nas_engine.limits import Constraint
from nas_engine.objectives import FeasibilityReport, feasibility_report
from nas_engine.options import Options
from nas_engine.proxies.scoring import NetworkProxies
from nas_engine.search_loop import SearchParts, price
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture

# Distinct streams from one seed, so that changing one phase leaves the draws of the others alone.
CONTROLLER_STREAM, EVALUATOR_STREAM, RANDOM_STREAM, FEASIBILITY_STREAM, PROXY_STREAM = range(5)
_SMALL_BATCH_MACS = 1e8
_SAMPLES, _MEASURED_SAMPLES = 2000, 64  # a measured latency takes some 50 ms an architecture


def assemble(config: SearchConfig, dataset: ImageDataset) -> SearchParts:
    """Build the components of a search.

    Raises:
        DataError: there are fewer training images than a batch of the supernet or of a training holds.
        ConfigError: the device is absent, a component refuses its options or the images, or nothing measures a metric
            that the objective or a constraint names.
    """
    usable_device(config.device)
    check_images(dataset, config.training)
    space: SearchSpace = config.space.factory(dataset.shape, config.space.options)
    constraints = tuple(Constraint.parse(text) for text in config.constraints)
    objective = config.objective.factory(config.objective.options)
    cost_models = _cost_models(config, space, {*objective.needs, *(c.metric for c in constraints)})
    controller_seed = seed_of(config.seed, CONTROLLER_STREAM)
    evaluator_seed = seed_of(config.seed, EVALUATOR_STREAM)
    proxies = _proxies(config, space, dataset)
    return SearchParts(
        space=space,
        controller=config.controller.factory(space, config.controller.options, controller_seed, *proxies),
        evaluator=config.evaluator.factory(space, dataset, config.evaluator.options, evaluator_seed, config.device),
        cost_models=cost_models,
        objective=objective,
        constraints=constraints,
        controller_name=config.controller.name,
        proxies=proxies[0] if proxies else None,
    )


def check_feasibility(parts: SearchParts, seed: int) -> FeasibilityReport | None:
    """How much of the space meets the constraints, before anything is paid for; None where there are none.

    Raises:
        InfeasibleError: nothing does; the message says what is reachable.
    """
    if not parts.constraints:
        return None

    def estimate(architectures: Sequence[Architecture]) -> dict[str, npt.NDArray[np.float64]]:
        rows = price(parts.cost_models, architectures)
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    measured = any(isinstance(model, MeasuredLatency) for model in parts.cost_models)
    return feasibility_report(
        parts.space,
        parts.constraints,
        estimate=estimate,
        rng=np.random.default_rng([seed, FEASIBILITY_STREAM]),
        samples=_MEASURED_SAMPLES if measured else _SAMPLES,
    )


def choose_threads(config: SearchConfig, space: SearchSpace) -> int:
    """CPU threads for a run: as set, else 1 where a batch through the largest network is too little work to share.

    Below about 1e8 multiply-accumulates a forward pass spends more time waking threads than computing; on a busy
    machine waiting threads cost many times the work itself.
    """
    if config.threads is not None:
        return config.threads
    largest = space.canonical(space.architecture(space.supernet().largest()))
    macs = price([AnalyticCost(space, with_memory=False)], [largest])[0]["macs"]
    return 1 if macs * config.training.batch_size < _SMALL_BATCH_MACS else torch.get_num_threads()


def seed_of(seed: int, stream: int) -> int:
    """An independent seed for one of the streams of a run."""
    return int(np.random.SeedSequence([seed, stream]).generate_state(1)[0])


def _proxies(config: SearchConfig, space: SearchSpace, dataset: ImageDataset) -> list[NetworkProxies]:
    """What a controller is handed besides, where its options name zero-cost proxies."""
    names = getattr(config.controller.options, "proxies", ())
    seed = seed_of(config.seed, PROXY_STREAM)
    return [NetworkProxies(space, dataset, names, seed, config.device)] if names else []


def _cost_models(config: SearchConfig, space: SearchSpace, needed: set[str]) -> tuple[CostModel, ...]:
    models: list[CostModel] = [AnalyticCost(space)]
    models += [_cost_model(config, space, cost) for cost in config.costs]
    names = [name for model in models for name in model.names] + ["accuracy", "loss"]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"costs give {', '.join(twice)} twice: map the columns of the table to other names")
    known = set(names)
    if "latency_ms" in needed - known:
        models.append(MeasuredLatency(space, config.latency, config.device))
        known.add("latency_ms")
    if needed - known:
        raise ConfigError(
            f"nothing measures {', '.join(sorted(needed - known))}: known are "
            f"{', '.join(sorted({*known, 'latency_ms'}))}; add a table under 'costs' (name: lookup or device)"
        )
    return tuple(models)


def _cost_model(config: SearchConfig, space: SearchSpace, cost: Component) -> CostModel:
    if cost.factory is not MeasuredLatency:
        model: CostModel = cost.factory(space, cost.options)
        return model
    if cost.options != config.latency:
        raise ConfigError(
            f"latency is set twice, as {_settings(cost.options)} under 'costs' and as {_settings(config.latency)} "
            "under 'latency', which the final table goes by: give both the same values"
        )
    return MeasuredLatency(space, config.latency, config.device)


def _settings(options: Options) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.model_dump().items())
