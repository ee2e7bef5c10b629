"""Optimizer groups, learning-rate schedule with warm-up, and the moving average of weights (reference §5)."""

import copy
import math

import torch
from torch import nn

from yolopose.study.config import TrainConfig

BIAS, NORM, WEIGHT = 0, 1, 2  # parameter groups


def build_optimizer(model: nn.Module, cfg: TrainConfig, accumulate: int) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW, over biases, batch-norm weights and other weights; only the last decay.

    For SGD the decay grows with the number of images per step, as officially: decay·batch·accumulate/nominal batch.
    """
    biases, norms, weights = [], [], []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias":
                biases.append(parameter)
            elif isinstance(module, nn.BatchNorm2d):
                norms.append(parameter)
            else:
                weights.append(parameter)
    images = cfg.batch_size * accumulate / cfg.nominal_batch if cfg.optimizer == "sgd" else 1
    decay = cfg.weight_decay * images
    groups = [{"params": p, "weight_decay": d} for p, d in ((biases, 0.0), (norms, 0.0), (weights, decay))]
    if cfg.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=cfg.lr, betas=(cfg.momentum, 0.999))
    return torch.optim.SGD(groups, lr=cfg.lr, momentum=cfg.momentum, nesterov=True)


class Schedule:
    """Half a cosine from ``lr`` to ``lr·lr_final`` over all iterations, after a linear warm-up.

    During warm-up the biases' rate falls from ``warmup_bias_lr``, the others' rises from 0, momentum rises from 0.8 and
    accumulation from 1 batch to the nominal one. The paper's cosine moves once an epoch; this one every iteration.
    """

    def __init__(self, cfg: TrainConfig, batches: int):  # of one epoch
        self.cfg = cfg
        self.total = max(cfg.epochs * batches, 1)
        self.warmup = max(round(cfg.warmup_epochs * batches), cfg.warmup_iterations)
        self.full_accumulation = max(round(cfg.nominal_batch / cfg.batch_size), 1)

    def factor(self, iteration: int) -> float:
        """Share of ``lr`` at an iteration, warm-up apart."""
        done = min(iteration / self.total, 1.0)
        return (1 - math.cos(math.pi * done)) / 2 * (self.cfg.lr_final - 1) + 1

    def accumulate(self, iteration: int) -> int:
        """Batches per optimizer step at an iteration."""
        if iteration >= self.warmup:
            return self.full_accumulation
        return max(1, round(1 + (self.cfg.nominal_batch / self.cfg.batch_size - 1) * iteration / self.warmup))

    def apply(self, optimizer: torch.optim.Optimizer, iteration: int) -> float:
        """Set rates and momentum for an iteration; returns the weights' learning rate."""
        lr = self.cfg.lr * self.factor(iteration)
        warm = min(iteration / self.warmup, 1.0) if self.warmup else 1.0
        momentum = 0.8 + warm * (self.cfg.momentum - 0.8)
        for index, group in enumerate(optimizer.param_groups):
            start = self.cfg.warmup_bias_lr if index == BIAS else 0.0
            group["lr"] = start + warm * (lr - start)
            if "momentum" in group:
                group["momentum"] = momentum
            else:
                group["betas"] = (momentum, group["betas"][1])
        return optimizer.param_groups[WEIGHT]["lr"]


class ExponentialMovingAverage:
    """Moving average of all floating state, batch-norm statistics included.

    After u updates the decay is ``decay·(1 − exp(−u/tau))``, so that the average follows closely at first.
    """

    def __init__(self, model: nn.Module, decay: float, tau: float):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.tau, self.updates = decay, tau, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards ``model``'s present state."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self.tau))
        source, pairs = model.state_dict(), []
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                pairs.append((value, source[name]))
            else:
                value.copy_(source[name])
        torch._foreach_lerp_([v for v, _ in pairs], [s for _, s in pairs], 1 - decay)
