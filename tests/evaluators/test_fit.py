"""The training loop: augmentation, schedule, determinism, resuming, and what it refuses."""

from __future__ import annotations

import copy
import dataclasses
import math
import time

import numpy as np
import pytest
import torch
from torch import nn

from nas_engine.errors import ConfigError, DataError
from nas_engine.evaluators.fit import FitOptions, Trainer, augmented, score, seeded, usable_device
from nas_engine.testing.evaluator_contract import assert_equal_states, saved_and_loaded

CPU = torch.device("cpu")
BLACK = torch.full((1, 1, 1, 1), -1.5)


def network(dropout=0.0):
    with seeded(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 10))


def trainer(dataset, model=None, **options):
    return Trainer(model or network(), dataset, FitOptions(**options), seed=5, device=CPU)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_it_learns_real_digits(digits, optimizer):
    rate = {"sgd": 0.1, "adamw": 0.01}[optimizer]
    fit = trainer(digits, epochs=10, optimizer=optimizer, learning_rate=rate)
    losses = [fit.run_epoch()["loss"] for _ in range(10)]
    _, correct = score(fit.model.eval(), digits.validation.images, digits.validation.labels)
    assert losses[-1] < losses[0]
    assert correct / len(digits.validation) > 0.8


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_training_ends_in_the_same_bits(few_digits, optimizer):
    options = {"epochs": 4, "optimizer": optimizer, "augmentation": "shift+flip"}
    whole, first = (trainer(few_digits, network(dropout=0.5), **options) for _ in range(2))
    for _ in range(4):
        whole.run_epoch()
    for _ in range(2):
        first.run_epoch()
    second = trainer(few_digits, network(dropout=0.5), **options)
    second.load_state_dict(saved_and_loaded(first.state_dict()))
    values = [second.run_epoch() for _ in range(2)]
    assert_equal_states(second.state_dict(), whole.state_dict())
    assert values[0] != values[1]


def test_the_rate_rises_linearly_and_falls_along_a_cosine_to_zero(few_digits):
    # One step an epoch, so that each epoch reports the rate of one step: 2 steps of warm-up, 8 of cosine.
    fit = trainer(few_digits, epochs=10, batch_size=160, learning_rate=0.3, warmup_fraction=0.2)
    rates = [fit.run_epoch()["learning_rate"] for _ in range(10)]
    cosine = [0.15 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert rates == pytest.approx([0.1, 0.2, *cosine])


def test_one_step_of_sgd_matches_its_formula(few_digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    nn.init.zeros_(model[1].weight)
    one_step = {"epochs": 1, "batch_size": 160, "warmup_fraction": 0, "augmentation": "none", "max_grad_norm": None}
    trainer(few_digits, model, learning_rate=0.2, momentum=0.9, **one_step).run_epoch()
    # Softmax of zero logits is uniform; the first Nesterov step is rate * (1 + momentum) * gradient.
    images, labels = few_digits.train.images.flatten(1), few_digits.train.labels
    gradient = (torch.full((160, 10), 0.1) - nn.functional.one_hot(labels, 10)).T @ images / 160
    torch.testing.assert_close(model[1].weight.detach(), -0.2 * 1.9 * gradient)


def test_gradients_are_cut_to_the_longest_norm_allowed(few_digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = [p.detach().clone() for p in model.parameters()]
    options = {"epochs": 1, "batch_size": 160, "warmup_fraction": 0, "momentum": 0, "weight_decay": 0}
    trainer(few_digits, model, learning_rate=0.5, max_grad_norm=1e-3, **options).run_epoch()
    step = torch.cat([(p.detach() - old).flatten() for p, old in zip(model.parameters(), before, strict=True)])
    assert float(step.norm()) == pytest.approx(0.5e-3, rel=1e-3)


@pytest.mark.parametrize("max_grad_norm", [None, 0.5, 5.0])
@pytest.mark.parametrize(("optimizer", "momentum"), [("sgd", 0.9), ("sgd", 0.0), ("adamw", 0.9)])
def test_steps_are_those_of_the_plain_optimizers_though_paths_come_and_go(
    few_digits, space, optimizer, momentum, max_grad_norm
):
    with seeded(1):
        supernet = space.supernet().double()  # in float32 rounding alone makes trainings with adamw part ways
    reference = copy.deepcopy(supernet).to(memory_format=torch.channels_last).train()
    batches = []

    def backward(images, labels, rng):
        batches.append((images.double(), labels, space.sample(rng).genes))
        loss = nn.functional.cross_entropy(supernet(batches[-1][0], batches[-1][2]), labels)
        loss.backward()
        return loss.detach()

    values = {"optimizer": optimizer, "momentum": momentum, "max_grad_norm": max_grad_norm, "learning_rate": 0.02}
    options = FitOptions(**values, epochs=3, warmup_fraction=0, batch_size=16, weight_decay=0.01)
    fit = Trainer(supernet, few_digits, options, seed=5, device=CPU, backward=backward)
    losses = [fit.run_epoch()["loss"] for _ in range(3)]

    decayed, others = ([p for p in reference.parameters() if (p.ndim > 1) == more] for more in (True, False))
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    plain = {
        "sgd": lambda: torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, foreach=False),
        "adamw": lambda: torch.optim.AdamW(groups, betas=(momentum, 0.999), foreach=False),
    }[optimizer]()
    expected, late = [], 0
    for step, (images, labels, genes) in enumerate(batches):
        for group in plain.param_groups:
            group["lr"] = 0.01 * (1 + math.cos(math.pi * step / len(batches)))
        plain.zero_grad()
        loss = nn.functional.cross_entropy(reference(images, genes), labels)
        loss.backward()
        late += step > 0 and any(p.grad is not None and not plain.state[p] for p in reference.parameters())
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(reference.parameters(), max_grad_norm, foreach=False)
        plain.step()
        expected.append(float(loss.detach()))
    assert late > 1
    np.testing.assert_allclose(losses, np.reshape(expected, (3, -1)).mean(1), rtol=1e-9)
    for (name, found), value in zip(supernet.state_dict().items(), reference.state_dict().values(), strict=True):
        torch.testing.assert_close(found, value, rtol=1e-6, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


def test_biases_and_norms_do_not_decay(few_digits):
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10))
    groups = trainer(few_digits, model, weight_decay=0.1).state_dict()["optimizer"]["param_groups"]
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.1, 1), (0.0, 3)]


def test_only_training_images_are_used(few_digits):
    lost = dataclasses.replace(few_digits.test, images=few_digits.test.images * math.nan)
    dataset = dataclasses.replace(few_digits, validation=lost, test=lost)
    assert trainer(dataset, epochs=1).run_epoch() == trainer(few_digits, epochs=1).run_epoch()


def test_a_smaller_subset_lies_within_a_larger_one(few_digits):
    def seen(count):
        images = set()

        def remember(batch, labels, rng):
            images.update(image.numpy().tobytes() for image in batch)
            return torch.zeros(())

        options = FitOptions(batch_size=4, augmentation="none")
        Trainer(network(), few_digits, options, seed=5, device=CPU, backward=remember, images=count).run_epoch()
        return images

    assert len(seen(64)) == 64
    assert seen(64) < seen(120) < seen(None)


def test_fewer_images_than_a_batch_are_refused(few_digits):
    with pytest.raises(DataError, match="160 training images of 'digits' do not fill one batch of 256"):
        trainer(few_digits, batch_size=256)


def test_a_diverged_loss_is_an_error(few_digits):
    with pytest.raises(FloatingPointError, match="loss became nan in epoch 1"):
        trainer(few_digits, learning_rate=1e30, max_grad_norm=None).run_epoch()


def test_time_runs_out(few_digits):
    with pytest.raises(TimeoutError, match="out of time in epoch 1 of 20"):
        trainer(few_digits).run_epoch(deadline=time.perf_counter())


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="device 'cuda:99' cannot be used here; allowed: cpu"):
        usable_device("cuda:99")
    with pytest.raises(ConfigError, match="device 'gpu' cannot be used here"):
        usable_device("gpu")
    assert usable_device("cpu") == CPU


def test_shifted_images_are_crops_of_the_padded_image(digits):
    images = digits.train.images[:300]
    shifted = augmented(images, "shift", BLACK, np.random.default_rng(0))
    padded = torch.full((300, 1, 10, 10), -1.5)
    padded[:, :, 1:9, 1:9] = images
    crops = [padded[:, :, top : top + 8, left : left + 8] for top in range(3) for left in range(3)]
    matches = torch.stack([(crop - shifted).abs().amax((1, 2, 3)) < 1e-6 for crop in crops])
    assert matches.any(0).all()
    assert matches.any(1).all()


def test_flipping_mirrors_about_half_of_the_images(digits):
    images = digits.train.images[:400]
    flipped = augmented(images, "flip", BLACK, np.random.default_rng(0))
    kept = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert (kept | mirrored).all()
    assert 150 < int(mirrored.sum()) < 250


def test_shifting_and_flipping_both_happen(digits):
    images = digits.train.images[:300]
    both = augmented(images, "shift+flip", BLACK, np.random.default_rng(0))
    shifted = augmented(images, "shift", BLACK, np.random.default_rng(0))
    mirrored = (both == shifted.flip(-1)).flatten(1).all(1)
    assert ((both == shifted).flatten(1).all(1) | mirrored).all()
    assert 100 < int(mirrored.sum()) < 200


def test_without_augmentation_images_are_untouched(digits):
    assert augmented(digits.train.images, "none", BLACK, np.random.default_rng(0)) is digits.train.images


def test_score_does_not_depend_on_the_batch_size(digits):
    model, split = network().eval(), digits.validation
    loss, correct = score(model, split.images, split.labels)
    assert score(model, split.images, split.labels, batch_size=7) == (pytest.approx(loss), correct)
    logits = model(split.images)
    assert loss == pytest.approx(nn.functional.cross_entropy(logits, split.labels).item())
    assert correct == int((logits.argmax(1) == split.labels).sum())


def test_score_is_nan_where_a_logit_is_not_finite(digits):
    def network(images):
        logits = torch.zeros(len(images), 10)
        logits[-1, 3] = -math.inf
        return logits

    split = digits.validation
    assert math.isnan(score(network, split.images[:9], torch.zeros(9, dtype=torch.int64))[0])
