"""BatchNorm recalibration on real digits: exact statistics of one path within, everything as before afterwards."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from nas_engine.nn.nasbench201_supernet import NASBench201Supernet
from nas_engine.nn.supernet import recalibrated

PATH = (3, 2, 1, 0, 3, 4)
OTHER_PATH = (2, 3, 3, 3, 2, 2)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return (pixels - pixels.mean()) / pixels.std(), torch.tensor(labels)


@pytest.fixture
def supernet(digits) -> NASBench201Supernet:
    """A supernet whose statistics are a mixture of paths, as they are after training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NASBench201Supernet(4, 1, 1, 10)
    with torch.no_grad():
        for genes in (OTHER_PATH, PATH, network.smallest(), network.largest()):
            network.train()(digits[0][:64], genes)
    return network


def state_of(supernet: nn.Module) -> tuple[dict[str, Tensor], list[float | None], list[bool]]:
    tensors = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    norms = [module for module in supernet.modules() if isinstance(module, nn.BatchNorm2d)]
    return tensors, [norm.momentum for norm in norms], [module.training for module in supernet.modules()]


def assert_same_state(before, after) -> None:
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)
    assert after[1:] == before[1:]


def test_statistics_are_those_of_the_path_on_the_calibration_images(supernet, digits):
    batches = list(digits[0][:96].split(32))
    inputs: list[Tensor] = []
    norm = supernet.head[0]
    hook = norm.register_forward_hook(lambda module, arguments, output: inputs.append(arguments[0].clone()))
    with recalibrated(supernet, PATH, batches):
        hook.remove()
        assert len(inputs) == len(batches)
        mean = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
        variance = torch.stack([x.var((0, 2, 3), unbiased=True) for x in inputs]).mean(0)
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, variance)


def test_scores_do_not_depend_on_what_was_trained_before(supernet, digits):
    images = digits[0][:64]
    with recalibrated(supernet, PATH, [images]), torch.no_grad():
        expected = supernet(images, PATH)
    with torch.no_grad():
        supernet.train()(10 * digits[0][64:128], OTHER_PATH)
        stale = supernet.eval()(images, PATH)
    with recalibrated(supernet, PATH, [images]), torch.no_grad():
        torch.testing.assert_close(supernet(images, PATH), expected, rtol=0, atol=0)
    assert not torch.allclose(stale, expected, atol=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_everything_is_as_before_afterwards(supernet, digits, training):
    supernet.train(training)
    before = state_of(supernet)
    with recalibrated(supernet, PATH, [digits[0][:32]]):
        assert not supernet.training
        assert not torch.equal(supernet.stem[1].running_mean, before[0]["stem.1.running_mean"])
    assert_same_state(before, state_of(supernet))


def test_everything_is_as_before_after_a_failing_score(supernet, digits):
    before = state_of(supernet)
    with pytest.raises(RuntimeError, match="score failed"), recalibrated(supernet, PATH, [digits[0][:32]]):
        raise RuntimeError("score failed")
    assert_same_state(before, state_of(supernet))


def test_everything_is_as_before_after_a_failing_calibration(supernet, digits):
    before = state_of(supernet)
    with pytest.raises(RuntimeError), recalibrated(supernet, PATH, [digits[0][:32], torch.zeros(2, 5, 8, 8)]):
        pytest.fail("images with five channels must not pass")
    assert_same_state(before, state_of(supernet))


def test_calibration_leaves_no_gradients(supernet, digits):
    with recalibrated(supernet, PATH, [digits[0][:32]]):
        pass
    assert all(parameter.grad is None for parameter in supernet.parameters())


@pytest.mark.slow
def test_recalibration_recovers_the_accuracy_of_a_trained_path(digits):
    images, labels = digits
    with torch.random.fork_rng():
        torch.manual_seed(0)
        supernet = NASBench201Supernet(4, 1, 1, 10)
    optimizer = torch.optim.AdamW(supernet.parameters(), lr=1e-2)
    paths = (PATH, OTHER_PATH, (1, 1, 1, 1, 1, 3), (4, 4, 4, 4, 4, 3))
    for epoch in range(3):
        for start in range(0, 1024, 128):
            for genes in paths:
                optimizer.zero_grad()
                logits = supernet(images[start : start + 128], genes)
                functional.cross_entropy(logits, labels[start : start + 128]).backward()
                optimizer.step()
        assert torch.isfinite(logits).all(), epoch
    held_out = slice(1200, 1797)
    accuracies = []
    with torch.no_grad():
        for genes in paths:
            stale = supernet.eval()(images[held_out], genes)
            with recalibrated(supernet, genes, list(images[:512].split(128))):
                fresh = supernet(images[held_out], genes)
            accuracies.append([float((x.argmax(1) == labels[held_out]).float().mean()) for x in (stale, fresh)])
    stale_mean, fresh_mean = torch.tensor(accuracies).mean(0).tolist()
    assert fresh_mean > 0.8
    assert fresh_mean > stale_mean
