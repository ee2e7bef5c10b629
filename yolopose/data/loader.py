"""Batches for training and evaluation, made in worker processes and resumable at any batch.

A batch is made whole inside one worker, written straight into the tensor that the training process receives. The
workers live across epochs; what they share with the main process is flat arrays.
"""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from yolopose.config import RunConfig
from yolopose.data import before_forking
from yolopose.data.augment import augment, encode_targets, epoch_order, sample_generator
from yolopose.data.coco import CocoSplit
from yolopose.data.letterbox import Letterbox, letterbox
from yolopose.data.schema import KeypointSchema
from yolopose.data.store import SampleStore
from yolopose.errors import StudyError

WORKER_DIED = ("a data worker process died (killed, out of memory, or /dev/shm is full); free memory or set "
               "train.workers to 0 in the profile, then repeat the command, which goes on where it stopped")


class _Batches(Dataset):
    """Items are whole batches; an error travels as a value, to be raised unchanged in the main process."""

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.make(key)
        except StudyError as error:
            return error

    def make(self, key: Any) -> Any:
        raise NotImplementedError


class TrainBatches(_Batches):
    """Batch ``(epoch, number)`` of a training run; picklable, and without Python objects per image.

    Args:
        store: images and labels.
        size, batch_size, config, seed: as in the run's configuration.
        flip_indices: (K,) joint permutation of a flip.
    """

    def __init__(self, store: SampleStore, run: RunConfig, flip_indices: np.ndarray):
        self.store = store
        self.size = run.input_size
        self.epoch_images = min(run.train.epoch_images or len(store), len(store))
        self.batch_size = min(run.train.batch_size, self.epoch_images)
        self.config = run.augment
        self.seed = run.seed
        self.flip_indices = flip_indices
        self.with_area = run.experiment.loss == "oks_segment"
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.epoch_images // self.batch_size

    def order(self, epoch: int) -> np.ndarray:
        """The permutation of ``epoch``, kept until another epoch is asked for."""
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, epoch_order(self.seed, epoch, len(self.store)))
        return self._order[1]

    def make(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, number = key
        images = torch.empty((self.batch_size, 3, self.size, self.size), dtype=torch.uint8)
        first, order, rows = number * self.batch_size, self.order(epoch), []
        for slot in range(self.batch_size):
            position = first + slot
            sample = augment(self.store, int(order[position]), self.size, self.config, self.flip_indices,
                             sample_generator(self.seed, epoch, position))
            to_planes(sample.image, images[slot])
            rows.append(encode_targets(sample.boxes_xyxy, sample.keypoints, slot,
                                       sample.area_shares if self.with_area else None))
        return images, torch.from_numpy(np.concatenate(rows))


class EvalBatches(_Batches):
    """Batch ``number`` of letterboxed images in order, the last one smaller."""

    def __init__(self, store: SampleStore, size: int, batch_size: int):
        self.store, self.size, self.batch_size = store, size, batch_size

    def __len__(self) -> int:
        return -(-len(self.store) // self.batch_size)

    def make(self, key: int) -> tuple[torch.Tensor, list[tuple[int, Letterbox]]]:
        indices = range(key * self.batch_size, min((key + 1) * self.batch_size, len(self.store)))
        images = torch.empty((len(indices), 3, self.size, self.size), dtype=torch.uint8)
        boxes = []
        for slot, index in enumerate(indices):
            image, box = letterbox(self.store.load_image(index), self.size)
            to_planes(image, images[slot])
            boxes.append((index, box))
        return images, boxes


def to_planes(image: np.ndarray, out: torch.Tensor) -> None:
    """Write an (S, S, 3) uint8 image into ``out`` (3, S, S), channel first."""
    import cv2

    planes = out.numpy()
    cv2.split(image, [planes[0], planes[1], planes[2]])


class _Keys(Sampler):
    """The keys of the batches still to be made; the training loop sets them before it iterates."""

    def __init__(self) -> None:
        self.keys: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class TrainLoader:
    """Shuffled, augmented batches; every epoch and every batch of it can be asked for by number.

    Args:
        split: the training split.
        run: gives input size, batch size, augmentation and seed.
        schema: of the data set, for the flip.
        workers: processes; 0 makes the batches in this one. The batches do not depend on it.

    The last incomplete batch of an epoch is left out; a set smaller than a batch makes one batch of all its images.
    """

    def __init__(self, split: CocoSplit, run: RunConfig, schema: KeypointSchema, workers: int | None = None):
        self.data = TrainBatches(split.store, run, schema.flip_indices)
        self._loader, self._keys = _data_loader(self.data, run.train.workers if workers is None else workers)

    def __len__(self) -> int:
        return len(self.data)

    def batches(self, epoch: int, start_batch: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield batches ``start_batch`` … of ``epoch``; skipped ones cost nothing.

        Yields:
            images (B, 3, S, S) uint8 RGB and targets (n, 6 + 3K) float32 in px of the network input, with the segments'
            share of the box as one more column where the run's loss needs it.

        Raises:
            StudyError: an image cannot be read or a worker died.
        """
        self._keys.keys = [(epoch, number) for number in range(start_batch, len(self.data))]
        yield from _checked(self._loader)

    def close(self) -> None:
        """End the worker processes."""
        self._loader = None


class EvalLoader:
    """Letterboxed images of a split in order: yields images (B, 3, S, S) uint8 RGB and [(index in split, Letterbox)].

    Raises (while iterating):
        StudyError: an image cannot be read or a worker died.
    """

    def __init__(self, split: CocoSplit, input_size: int, batch_size: int, workers: int = 0):
        self.data = EvalBatches(split.store, input_size, batch_size)
        self._loader, self._keys = _data_loader(self.data, workers)
        self._keys.keys = list(range(len(self.data)))

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, list[tuple[int, Letterbox]]]]:
        yield from _checked(self._loader)


def _data_loader(data: _Batches, workers: int) -> tuple[DataLoader, _Keys]:
    keys = _Keys()
    if workers:
        before_forking()
    options = {"persistent_workers": True, "prefetch_factor": 3, "worker_init_fn": _start_worker} if workers else {}
    loader = DataLoader(data, batch_size=None, sampler=keys, num_workers=workers, collate_fn=_as_is,
                        pin_memory=torch.cuda.is_available(), **options)
    return loader, keys


def _as_is(batch: Any) -> Any:
    return batch


def _start_worker(_: int) -> None:
    """Ctrl-C is the main process's to handle; inherited objects are never collected."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()


def _checked(loader: DataLoader) -> Iterator[Any]:
    """The loader's items; a dead worker and errors that came as values are raised as ``StudyError``."""
    # torch lets a worker's death interrupt whatever the main process is doing. Without its handler the death is noticed
    # here, when the next batch is asked for.
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        iterator = iter(loader)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGCHLD) != handler:
            signal.signal(signal.SIGCHLD, handler)
        while (item := next(iterator, None)) is not None:
            if isinstance(item, StudyError):
                raise item
            yield item
    except (EOFError, ConnectionError, FileNotFoundError) as error:  # it died while handing over a batch
        raise StudyError(WORKER_DIED) from error
    except RuntimeError as error:
        if "DataLoader worker (pid" in str(error) or "shared memory" in str(error):
            raise StudyError(WORKER_DIED) from error
        raise
