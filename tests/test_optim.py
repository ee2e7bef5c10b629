"""Optimizer, schedule and moving average against numbers worked out by hand."""

import math

import pytest
import torch

from yolopose.models.yolov5 import build_model
from yolopose.study.config import TrainConfig, load_variants
from yolopose.training.optim import BIAS, NORM, WEIGHT, ExponentialMovingAverage, Schedule, build_optimizer

CFG = TrainConfig(epochs=10, batch_size=16, lr=0.01, lr_final=0.2, warmup_epochs=0, warmup_iterations=20)


def config(**changes: object) -> TrainConfig:
    return TrainConfig(**{**vars(CFG), **changes})


def test_groups_are_biases_batch_norm_weights_and_other_weights():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2), torch.nn.Conv2d(2, 1, 1, bias=False))
    groups = [[id(p) for p in group["params"]] for group in build_optimizer(model, CFG, 1).param_groups]
    expected = {BIAS: [model[0].bias, model[1].bias], NORM: [model[1].weight],
                WEIGHT: [model[0].weight, model[2].weight]}
    assert groups == [[id(p) for p in expected[n]] for n in range(3)]
    whole = build_model(load_variants()["yolov5s6_pose"], 3, 0.125)
    optimizer = build_optimizer(whole, CFG, 4)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(whole.parameters()))


@pytest.mark.parametrize(("optimizer", "batch", "accumulate", "times"), [
    ("sgd", 16, 4, 1), ("sgd", 16, 8, 2), ("sgd", 16, 1, 1 / 4), ("sgd", 128, 1, 2), ("sgd", 24, 3, 9 / 8),
    ("adamw", 16, 8, 1), ("adamw", 16, 1, 1)])
def test_decay_of_sgd_grows_with_the_images_of_a_step(optimizer, batch, accumulate, times):
    cfg = config(optimizer=optimizer, batch_size=batch, weight_decay=0.001, momentum=0.85)
    built = build_optimizer(torch.nn.Conv2d(1, 1, 1), cfg, accumulate)
    assert [group["weight_decay"] for group in built.param_groups] == pytest.approx([0, 0, 0.001 * times])
    assert {group["lr"] for group in built.param_groups} == {0.01}
    moving = {(g["momentum"], g["nesterov"]) if optimizer == "sgd" else g["betas"] for g in built.param_groups}
    assert moving == {(0.85, True) if optimizer == "sgd" else (0.85, 0.999)}


@pytest.mark.parametrize(("iteration", "share"), [
    (0, 1), (25, 1 - 0.8 * (1 - math.sqrt(0.5)) / 2), (50, 0.6), (75, 1 - 0.8 * (1 + math.sqrt(0.5)) / 2), (100, 0.2),
    (150, 0.2)])  # never below the end
def test_rate_falls_by_half_a_cosine(iteration, share):
    assert Schedule(CFG, batches=10).factor(iteration) == pytest.approx(share)


@pytest.mark.parametrize(("changes", "batches", "expected"), [
    ({}, 10, {0: 1, 10: 2, 15: 3, 19: 4, 20: 4, 99: 4}),  # 1 + 3·i/20, rounded
    ({"warmup_epochs": 3}, 10, {10: 2, 15: 2, 20: 3, 30: 4}),  # 30 iterations are more than 20
    ({"warmup_epochs": 2.57}, 10, {13: 2}),  # 26: 2.5 to the even
    ({"warmup_epochs": 0.25}, 10, {19: 4}),  # at least 20
    ({"warmup_iterations": 0}, 10, {0: 4}),
    ({"batch_size": 24}, 10, {0: 1, 20: 3}),  # 64 / 24 is nearest to 3
    ({"batch_size": 1024}, 10, {0: 1, 19: 1, 20: 1}),  # never none
])
def test_accumulation_grows_to_the_nominal_batch(changes, batches, expected):
    schedule = Schedule(config(**changes), batches)
    assert {i: schedule.accumulate(i) for i in expected} == expected


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("iteration", "warm"), [(0, 0.0), (5, 0.25), (20, 1.0), (60, 1.0)])
def test_warm_up_of_rates_and_momentum(optimizer, iteration, warm):
    cfg = config(optimizer=optimizer, momentum=0.9, warmup_bias_lr=0.1)
    schedule, built = Schedule(cfg, 10), build_optimizer(torch.nn.Conv2d(1, 1, 1), cfg, 4)
    lr = 0.01 * schedule.factor(iteration)
    returned = schedule.apply(built, iteration)
    assert [group["lr"] for group in built.param_groups] == pytest.approx(
        [0.1 + warm * (lr - 0.1), warm * lr, warm * lr])
    assert returned == built.param_groups[WEIGHT]["lr"]
    for group in built.param_groups:
        assert (group["momentum"] if optimizer == "sgd" else group["betas"][0]) == pytest.approx(0.8 + warm * 0.1)
        assert optimizer == "sgd" or group["betas"][1] == 0.999


def test_without_warm_up_and_without_epochs():
    cfg = config(warmup_iterations=0, epochs=0)
    built = build_optimizer(torch.nn.Conv2d(1, 1, 1), cfg, 4)
    assert Schedule(cfg, 10).apply(built, 0) == 0.01 and built.param_groups[BIAS]["lr"] == pytest.approx(0.01)
    assert Schedule(cfg, 10).factor(1) == pytest.approx(0.2)


def test_moving_average_by_hand():
    model = torch.nn.BatchNorm2d(1)
    torch.nn.init.zeros_(model.weight)
    average = ExponentialMovingAverage(model, decay=0.9, tau=2)
    assert not average.model.training and not any(p.requires_grad for p in average.model.parameters())
    expected = 0.0
    for updates in (1, 2, 3):
        model.weight.data.fill_(10.0 * updates)
        model.running_mean.fill_(10.0 * updates)
        model.num_batches_tracked.fill_(updates)
        average.update(model)
        decay = 0.9 * (1 - math.exp(-updates / 2))
        expected = decay * expected + (1 - decay) * 10 * updates
        assert average.model.weight.item() == pytest.approx(expected)
        assert average.model.running_mean.item() == pytest.approx(expected), "statistics are averaged too"
        assert average.model.num_batches_tracked.item() == updates, "counts are not"
    assert average.updates == 3 and model.weight.item() == 30 and model.weight.requires_grad
