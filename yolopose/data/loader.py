"""Batches for training and evaluation, made in worker processes and resumable at any batch.

A batch is made whole inside one worker, written straight into the tensor that the training process receives. The
workers live across epochs; what they share with the main process is flat arrays. A worker that dies is replaced, and
the batches that it owed are made again: they do not depend on who makes them.
"""

import gc
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from yolopose.data.augment import Sample, augment, encode_targets, epoch_order, sample_generator
from yolopose.data.coco import CocoSplit, SampleStore
from yolopose.data.letterbox import Letterbox, letterbox
from yolopose.data.schema import KeypointSchema
from yolopose.study.config import RunConfig
from yolopose.utils.cli import say
from yolopose.utils.distributed import SINGLE, World
from yolopose.utils.errors import DamagedImage, StudyError

WORKER_RESTARTS = 3  # of one loader; after that the machine has a lasting problem
SUBSTITUTES = 50  # tries to make a sample (of four images in a mosaic) without a damaged one
WORKER_DIED = ("a data worker process died (killed, out of memory, or /dev/shm is full); free memory or set "
               "train.workers to 0 in the profile, then repeat the command, which goes on where it stopped")


class _Batches:
    """What the workers share: item ``key`` is a whole batch; an error travels as a value, to be raised unchanged."""

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.make(key)
        except StudyError as error:
            return error


class TrainBatches(_Batches):
    """Batch ``(epoch, number)`` of a run: of a batch that is shared by the processes of ``world``, this one's part."""

    def __init__(self, store: SampleStore, run: RunConfig, flip_indices: np.ndarray, world: World):
        self.store, self.run, self.flip_indices = store, run, flip_indices
        self.epoch_images = min(run.train.epoch_images or len(store), len(store))
        self.batch_size = min(run.train.batch_size, self.epoch_images)
        self.share = world.share(self.batch_size)
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.epoch_images // self.batch_size

    def positions(self, number: int) -> list[int]:
        return [number * self.batch_size + place for place in self.share]

    def order(self, epoch: int) -> np.ndarray:
        """The permutation of ``epoch``, kept until another epoch is asked for."""
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, epoch_order(self.run.seed, epoch, len(self.store)))
        return self._order[1]

    def make(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, dict[str, str]]:
        """Images, targets, and the damaged files that were met, with what is wrong with them."""
        images = torch.empty((len(self.share), 3, self.run.input_size, self.run.input_size), dtype=torch.uint8)
        rows, damaged = [], {}
        for slot, position in enumerate(self.positions(key[1])):
            sample = self._sample(key[0], position, damaged)
            to_planes(sample.image, images[slot])
            rows.append(encode_targets(sample.boxes_xyxy, sample.keypoints, slot,
                                       sample.area_shares if self.run.experiment.loss == "oks_segment" else None))
        return images, torch.from_numpy(np.concatenate(rows)), damaged

    def _sample(self, epoch: int, position: int, damaged: dict[str, str]) -> Sample:
        """The sample at ``position``; where it needs a damaged image, one of the images that follow in the order."""
        run, order = self.run, self.order(epoch)
        generator = sample_generator(run.seed, epoch, position)
        for attempt in range(1, SUBSTITUTES + 1):
            index = int(order[(position + attempt - 1) % len(order)])
            try:
                return augment(self.store, index, run.input_size, run.augment, self.flip_indices, generator)
            except DamagedImage as error:
                damaged[error.path] = str(error)
                generator = np.random.default_rng((run.seed, epoch, position, attempt))
        raise StudyError("\n".join([f"{SUBSTITUTES} times in a row a damaged image:", *list(damaged.values())[:10]]))

    def files(self, epoch: int, number: int) -> list[str]:
        """The main images of this process's part of a batch."""
        return [self.store.path(i) for i in self.order(epoch)[self.positions(number)]]


class EvalBatches(_Batches):
    """Batch ``number`` of letterboxed images in order, the last one smaller."""

    def __init__(self, store: SampleStore, size: int, batch_size: int):
        self.store, self.size, self.batch_size = store, size, batch_size

    def __len__(self) -> int:
        return -(-len(self.store) // self.batch_size)

    def make(self, key: int) -> tuple[torch.Tensor, list[tuple[int, Letterbox]]]:
        indices = range(len(self.store))[key * self.batch_size:(key + 1) * self.batch_size]
        images, boxes = torch.empty((len(indices), 3, self.size, self.size), dtype=torch.uint8), []
        for slot, index in enumerate(indices):
            image, box = letterbox(self.store.load_image(index), self.size)
            to_planes(image, images[slot])
            boxes.append((index, box))
        return images, boxes


def to_planes(image: np.ndarray, out: torch.Tensor) -> None:
    """Write an (S, S, 3) uint8 image into ``out`` (3, S, S), channel first."""
    cv2.split(image, list(out.numpy()))


class _Loader:
    """Batches by key from workers that are replaced, a bounded number of times, when they die."""

    def __init__(self, data: _Batches, workers: int):
        self.data, self.workers, self.restarts = data, workers, 0
        self._start()

    def _start(self) -> None:
        if self.workers:
            cv2.setNumThreads(1)  # for good: a forked child inherits OpenCV's locks but not its threads
        self._keys: list[Any] = []  # of the batches still to be made
        self._loader = DataLoader(self.data, batch_size=None, sampler=self._keys, num_workers=self.workers,
                                  collate_fn=_as_is, pin_memory=torch.cuda.is_available(),
                                  worker_init_fn=_start_worker, persistent_workers=self.workers > 0,
                                  prefetch_factor=3 if self.workers else None)

    def _stream(self, keys: Sequence[Any]) -> Iterator[Any]:
        made = 0
        while made < len(keys):
            self._keys[:] = keys[made:]
            try:
                for item in _undisturbed(self._loader):
                    if isinstance(item, StudyError):
                        raise item
                    made += 1
                    yield item
            except (EOFError, ConnectionError, FileNotFoundError, RuntimeError) as error:  # also while handing one over
                if isinstance(error, RuntimeError) and not any(
                        words in str(error) for words in ("DataLoader worker (pid", "shared memory")):
                    raise
                self.restarts += 1
                if self.restarts > WORKER_RESTARTS:
                    raise StudyError(WORKER_DIED) from error
                say(f"a data worker died; the workers are started again ({self.restarts} of {WORKER_RESTARTS} times)")
                self._start()


def _undisturbed(loader: DataLoader) -> Iterator[Any]:
    """The loader's items, without torch's handler, by which a worker's death interrupts whatever the main process does:
    it is noticed when the next batch is asked for."""
    handler = signal.getsignal(signal.SIGCHLD)
    items = iter(loader)
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGCHLD) != handler:
        signal.signal(signal.SIGCHLD, handler)
    return items


def _start_worker(_: int) -> None:
    """Ctrl-C is the main process's to handle; inherited objects are never collected."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()


def _as_is(batch: Any) -> Any:
    return batch


class TrainLoader(_Loader):
    """Shuffled, augmented batches; every epoch and every batch of it can be asked for by number.

    They do not depend on the number of ``workers``; 0 makes them in this process. The last incomplete batch of an epoch
    is left out; a set smaller than a batch makes one batch of all its images. ``damaged`` holds what is wrong with
    every unreadable image: another takes its place, until they are more than ``train.damaged_share`` of the set (one is
    always allowed).
    """

    def __init__(self, split: CocoSplit, run: RunConfig, schema: KeypointSchema, workers: int, world: World = SINGLE):
        super().__init__(TrainBatches(split.store, run, schema.flip_indices, world), workers)
        self.damaged: dict[str, str] = {}
        self.damaged_limit = max(1, int(run.train.damaged_share * len(split)))

    def __len__(self) -> int:
        return len(self.data)

    def batches(self, epoch: int, start_batch: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield batches ``start_batch`` … of ``epoch``; skipped ones cost nothing.

        Images (B, 3, S, S) uint8 RGB and targets as of :func:`encode_targets`, with area shares where the run's loss
        needs them. A StudyError where too many images cannot be read, or workers died again and again.
        """
        for images, targets, damaged in self._stream([(epoch, n) for n in range(start_batch, len(self.data))]):
            self.leave_out(damaged)
            yield images, targets

    def leave_out(self, damaged: dict[str, str]) -> None:
        """Note damaged images, by path; each is named once, and too many are a StudyError."""
        for path, problem in damaged.items():
            if path not in self.damaged:
                self.damaged[path] = problem
                say(f"left out: {problem}")
        if len(self.damaged) > self.damaged_limit:
            raise StudyError(f"{len(self.damaged)} of {len(self.data.store)} training images cannot be used, more than "
                             f"train.damaged_share of the profile allows ({self.damaged_limit}):\n"
                             + "\n".join(list(self.damaged.values())[:10]))

    def close(self) -> None:
        self._loader = None  # which ends the worker processes


class EvalLoader(_Loader):
    """Letterboxed images of a split in order: yields images (B, 3, S, S) uint8 RGB and [(index in split, Letterbox)].

    Of several processes each gets every so-manieth batch, so that the batches are the same however many there are. A
    StudyError where an image cannot be read, or workers died again and again.
    """

    def __init__(self, split: CocoSplit, input_size: int, batch_size: int, workers: int = 0, world: World = SINGLE):
        super().__init__(EvalBatches(split.store, input_size, batch_size), workers)
        self.numbers = range(world.rank, len(self.data), world.size)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, list[tuple[int, Letterbox]]]]:
        yield from self._stream(self.numbers)
