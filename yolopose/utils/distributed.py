"""Several processes that train or evaluate one run together, started by torch's elastic launcher (one process a GPU).

Every process runs the same code on its share of each batch. What is pooled over a batch (the losses' normalisers, batch
norm's statistics, gradients) is summed over the processes, so that their number changes rounding and nothing else. All
state is the same in every process at every step: process 0 alone writes, and needs nobody's help for it.
"""

import contextlib
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from yolopose.utils.errors import StudyError

TIMEOUT = timedelta(minutes=30)  # of one exchange; the longest wait is for process 0 to score a validation set
ANSWER = timedelta(seconds=3)  # within which a process that is there answers


@dataclass(frozen=True)
class World:
    """This process, numbered ``rank`` of ``size``. All processes must call the same methods in the same order."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0  # the process that writes files and speaks

    def total(self, values: Tensor) -> Tensor:
        """The sum of every process's ``values``, a new tensor."""
        return values if self.size == 1 else _Sum.apply(values)

    def tell(self, value: Any) -> Any:
        """Process 0's ``value``, in every process; plain Python values."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every process's ``value`` by rank, in every process."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def collect(self, value: Any) -> list[Any] | None:
        """Every process's ``value`` by rank, in process 0 alone; ``None`` elsewhere."""
        values = [value] * self.size if self.main else None
        if self.size > 1:
            dist.gather_object(value, values, dst=0)
        return values

    def any(self, flag: bool) -> bool:
        """Whether any process's ``flag`` is set; also the moment until which all wait for each other."""
        return any(self.gather(flag))

    def agree(self, value: Any, what: str) -> None:
        """Make sure that all processes see the same; ``what`` says what differs otherwise, and how to mend it."""
        first, *others = self.gather(value)
        if any(other != first for other in others):
            raise StudyError(f"{what} (process 0: {first}, process {self.rank}: {value})")

    def same_state(self, model: nn.Module) -> None:
        """Give every process the tensors of process 0's ``model``, in place."""
        if self.size > 1:
            for value in model.state_dict().values():
                dist.broadcast(value, src=0)

    def share(self, count: int) -> range:
        """This process's part of ``range(count)``, the images of a batch: contiguous, and of equal length up to one."""
        if count < self.size:
            raise StudyError(f"train.batch_size: a batch of {count} images cannot be shared among {self.size} "
                             f"processes; start at most {count}, or raise it in yolopose/study/profiles.yaml")
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)


SINGLE = World()


def launched() -> bool:
    """Whether torch's elastic launcher started this process as one of several."""
    return dist.is_available() and dist.is_torchelastic_launched() and int(os.environ.get("WORLD_SIZE", "1")) > 1


def own_device(device: torch.device) -> torch.device:
    """The device of this process: on GPUs the one with its local number, of which this machine must have enough."""
    if device.type != "cuda" or not launched():
        return device
    local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= count:
        raise StudyError(f"process {local + 1} of this machine has no GPU: there are {count}; start one process a GPU "
                         f"(--nproc-per-node {count})")
    return torch.device("cuda", local)


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """Join the other processes of the launcher, gloo between processors and NCCL between GPUs; alone without one. After
    a failure the group is left as it is: to take it down would wait for processes that are gone."""
    if not launched():
        yield SINGLE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT,
                            store=_meeting_place(world), rank=world.rank, world_size=world.size)
    yield world
    dist.destroy_process_group()


def _meeting_place(world: World) -> dist.Store:
    """A store in which these processes find each other, and no others. The launcher's own outlives a restart and would
    tell them the addresses of the processes that are gone. Process 0 opens a new one and leaves its port there; where
    that is still the old one, nobody answers, and it is read again."""
    launchers, *_ = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
    host, deadline = os.environ["MASTER_ADDR"], time.monotonic() + TIMEOUT.total_seconds()
    if world.main:
        store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
        launchers.set("yolopose/port", str(store.port))
        return store
    while True:
        try:
            port = int(launchers.get("yolopose/port"))
            store = dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=ANSWER)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
        else:
            store.set_timeout(TIMEOUT)
            return store


class _Sum(torch.autograd.Function):
    """Sum over the processes; so is its gradient, for every process's loss depends on the sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.contiguous().clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics in training are those of all processes' images; torch's own needs GPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape; B may differ from process to process."""
        if not self.training:
            return super().forward(x)
        values = x.to(self.weight.dtype)  # of autocast's half precision
        count = values.new_tensor([x.numel() / x.shape[1]])
        sums = _Sum.apply(torch.cat((values.sum((0, 2, 3)), count)))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def wrap(model: nn.Module, world: World, device: torch.device, sync_batch_norm: bool) -> nn.Module:
    """The network whose ``backward`` averages gradients over the processes; ``model`` itself where there is one.

    With ``sync_batch_norm`` the batch norms get common statistics in place, by torch on a GPU, else by
    :class:`SharedBatchNorm2d`; without, process 0's running statistics are everybody's. Gradients are averaged after
    every backward pass, also within an accumulation: process 0 alone may write a checkpoint at any batch.
    """
    if world.size == 1:
        return model
    if sync_batch_norm and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    elif sync_batch_norm:
        for module in model.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = SharedBatchNorm2d
    with warnings.catch_warnings():  # the option's new name is not yet in every version of torch that we run on
        warnings.simplefilter("ignore", FutureWarning)
        return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None,
                                                   broadcast_buffers=not sync_batch_norm)
