"""Batches: same from any number of workers, resumable, and clear when something breaks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.coco_folder import decode_targets, make_folder
from yolopose.data.augment import epoch_order
from yolopose.data.coco import CocoDataset, SampleStore, load_dataset
from yolopose.data.letterbox import letterbox
from yolopose.data.loader import EvalLoader, TrainLoader
from yolopose.study.config import RunConfig, load_study
from yolopose.utils.errors import StudyError


def configured(batch_size: int = 4, size: int = 64, seed: int = 0) -> RunConfig:
    run = load_study("smoke").run("s6", seed)
    return replace(run, input_size=size, train=replace(run.train, batch_size=batch_size))


def same(first: list, second: list) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))


def test_shapes(tiny_data: CocoDataset):
    loader = TrainLoader(tiny_data.train, configured(batch_size=64), tiny_data.schema, 0)
    assert len(loader) == 1 and next(loader.batches(0))[0].shape[0] == 8, "a set smaller than a batch makes one"
    batches = list(TrainLoader(tiny_data.train, configured(batch_size=3), tiny_data.schema, 0).batches(0))
    assert len(batches) == 2, "the incomplete third batch is left out"
    for images, targets in batches:
        assert images.shape == (3, 3, 64, 64) and images.dtype == torch.uint8 and images.is_contiguous()
        assert targets.shape[1] == 6 + 3 * 3 and targets.dtype == torch.float32
        assert set(targets[:, 0].tolist()) <= {0, 1, 2}


def test_workers_epochs_and_seeds(tiny_data: CocoDataset):
    alone, helped = (TrainLoader(tiny_data.train, configured(), tiny_data.schema, workers) for workers in (0, 2))
    for epoch in (0, 1):
        assert same(list(alone.batches(epoch)), list(helped.batches(epoch)))
    assert not same(list(alone.batches(0)), list(alone.batches(1)))
    other = TrainLoader(tiny_data.train, configured(seed=1), tiny_data.schema, 0)
    assert not same(list(alone.batches(0)), list(other.batches(0)))
    helped.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_resuming_gives_the_rest(tiny_data: CocoDataset, workers: int):
    loader = TrainLoader(tiny_data.train, configured(batch_size=2), tiny_data.schema, workers)
    whole = list(loader.batches(3))
    assert len(whole) == len(loader) == 4
    assert same(list(loader.batches(3, start_batch=2)), whole[2:])
    assert list(loader.batches(3, start_batch=4)) == []
    abandoned = loader.batches(3)
    next(abandoned)
    abandoned.close()
    assert same(list(loader.batches(3)), whole), "an epoch left in the middle must not leak into the next"
    loader.close()


def test_an_epoch_shows_every_image_once_and_skipped_batches_are_not_made(tiny_data: CocoDataset, monkeypatch):
    decoded, load, run = [], SampleStore.load_image, configured(batch_size=4)
    run = replace(run, augment=replace(run.augment, mosaic=0.0, scale=0.0, translate=0.0, flip=0.0))
    loader, order = TrainLoader(tiny_data.train, run, tiny_data.schema, 0), epoch_order(0, 0, 8).tolist()
    counts = [len(decode_targets(targets, i)[0]) for _, targets in loader.batches(0) for i in range(4)]
    assert counts == [len(tiny_data.train.boxes_xyxy(i)) for i in order]
    monkeypatch.setattr(SampleStore, "load_image", lambda self, i, *a: decoded.append(i) or load(self, i, *a))
    list(loader.batches(0, start_batch=1))
    assert decoded == order[4:]


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_batches_in_order(tiny_data: CocoDataset, workers: int):
    loader = EvalLoader(tiny_data.val, 96, 5, workers)
    batches = list(loader)
    assert len(batches) == len(loader) == 3 and [len(images) for images, _ in batches] == [5, 5, 2]
    assert [index for _, boxes in batches for index, _ in boxes] == list(range(12))
    image, box = letterbox(tiny_data.val.load_image(6), 96)
    images, boxes = batches[1]
    np.testing.assert_array_equal(images[1].numpy(), image.transpose(2, 0, 1))
    assert boxes[1] == (6, box)
    assert len(list(loader)) == 3, "it can be iterated again"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(tmp_path: Path, workers: int):
    data = load_dataset(make_folder(tmp_path / "tiny"))
    for path in (tmp_path / "tiny" / "train2017").iterdir():
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StudyError, match="truncated; download or copy it again") as caught:
        list(TrainLoader(data.train, configured(), data.schema, workers).batches(0))
    assert ".png" in str(caught.value) and "Traceback" not in str(caught.value)
