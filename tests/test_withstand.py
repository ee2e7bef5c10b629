"""What runs withstand: damaged images, steps that are not finite, SIGTERM, dead data workers, each other."""

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import yolopose.data.loader as loaders
from tests.coco_folder import make_folder
from tests.official_files import write_container
from tests.test_loader import same
from tests.test_scoring import peak_bytes
from tests.tiny import CPU, ENVIRONMENT, REPO, at_step, files, tiny_run, train_elsewhere, wait_for
from yolopose.data.coco import CocoDataset, load_dataset
from yolopose.data.loader import TrainLoader
from yolopose.evaluation.predictions import PoseSpool, as_coco_results, written_through
from yolopose.models.checkpoints import load_state, save_state
from yolopose.models.decode import Poses
from yolopose.study.config import load_study
from yolopose.training.launch import number_of_processes, study_options
from yolopose.training.runs import chosen_runs, claimed
from yolopose.training.state import Terminated, mend_statistics
from yolopose.training.trainer import Trainer
from yolopose.utils.errors import DamagedFile, StudyError
from yolopose.utils.files import write_json
from yolopose.utils.provenance import mixed_hardware

TERM = partial(os.kill, os.getpid(), signal.SIGTERM)


@pytest.fixture
def dataset(tmp_path) -> CocoDataset:
    """As ``tiny_data``, eight images to train on, but one's own to damage."""
    return load_dataset(make_folder(tmp_path / "tiny", images=12))


def damage(dataset: CocoDataset, count: int) -> list[str]:
    """Paths of the first ``count`` training images, which are cut off."""
    paths = [dataset.train.store.path(i) for i in range(count)]
    for path in paths:
        Path(path).write_bytes(Path(path).read_bytes()[:-20])
    return paths


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_replaced_and_counted(dataset, capfd, workers):
    run = tiny_run()
    intact = list(TrainLoader(dataset.train, run, dataset.schema, 0).batches(0))
    (path,) = damage(dataset, 1)
    loader = TrainLoader(dataset.train, run, dataset.schema, workers)
    first, second = list(loader.batches(0)), list(loader.batches(0))
    loader.close()
    assert list(loader.damaged) == [path] and "truncated" in loader.damaged[path]
    assert capfd.readouterr().err.count(f"left out: {path}") == 1, "named once, not in every batch"
    assert len(first) == len(intact) and all(images.shape[0] == 2 for images, _ in first)
    assert same(first, second) and not same(first, intact), "the damaged image was in some batch"


def test_too_many_damaged_images_stop_the_run(dataset):
    paths, run = damage(dataset, 2), tiny_run()
    with pytest.raises(StudyError, match=r"2 of 8 training images cannot be used, .*train.damaged_share.*\(1\)") as e:
        list(TrainLoader(dataset.train, run, dataset.schema, 0).batches(0))
    assert all(path in str(e.value) for path in paths)
    run = replace(run, train=replace(run.train, damaged_share=0.25))
    assert len(list(TrainLoader(dataset.train, run, dataset.schema, 0).batches(0))) == 4


def test_a_run_with_a_damaged_image_records_it_and_resumes_exactly(dataset, tmp_path):
    (path,), run = damage(dataset, 1), tiny_run(1)
    record = Trainer(run, dataset, tmp_path / "whole", CPU).fit()
    assert record["train"]["damaged_images"] == [Path(path).name]
    trainer = Trainer(run, dataset, tmp_path / "cut", CPU, checkpoint_seconds=0)
    at_step(trainer, 3, TERM)
    with pytest.raises(Terminated):
        trainer.fit()
    resumed = Trainer(run, dataset, tmp_path / "cut", CPU)
    assert list(resumed.loader.damaged) == [path], "it is not named twice"
    resumed.fit()
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def spoil(trainer: Trainer, at: set[int], what: str) -> None:
    """Make the loss (by its input: running statistics become NaN too) or a gradient not finite at some iterations."""
    def spoiled(values: torch.Tensor) -> torch.Tensor:
        return values * float("nan") if trainer.progress.iteration in at else values

    if what == "loss":
        trainer.network.register_forward_pre_hook(lambda _, images: spoiled(images[0]))
    else:
        next(trainer.model.parameters()).register_hook(spoiled)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_left_out(tiny_data, tmp_path, what, capsys):
    run, losses = tiny_run(nominal_batch=2, warmup_iterations=0), []
    spoil(trainer := Trainer(run, tiny_data, tmp_path, CPU), {1, 5}, what)
    step = trainer.step
    trainer.step = lambda *batch: losses.append(step(*batch)) or losses[-1]
    assert trainer.fit()["train"]["skipped_steps"] == 2
    losses = [terms[-1].item() for terms in losses]
    for epoch, good in enumerate(((0, 2, 3), (4, 6, 7))):
        assert trainer.progress.curve[epoch]["loss"] == pytest.approx(sum(losses[i] for i in good) / 3, abs=1e-6)
    for state in (load_state(tmp_path / "weights.pt")["state_dict"], trainer.model.state_dict()):
        assert all(v.isfinite().all() for v in state.values())
    assert trainer.average.updates == 6
    dumped = load_state(tmp_path / "bad_step5.pt")
    assert dumped["images"].dtype == torch.uint8 and dumped["images"].shape == (2, 3, 64, 64)
    assert (dumped["epoch"], dumped["batch"]) == (1, 1) and len(dumped["files"]) == 2
    assert all(Path(path).is_file() for path in dumped["files"])
    again = list(TrainLoader(tiny_data.train, run, tiny_data.schema, 0).batches(1))[1]
    assert same([(dumped["images"], dumped["targets"])], [again])
    said = capsys.readouterr().err
    assert all(words in said for words in ("step left out", "in epoch 2, batch 2", "bad_step5.pt"))


def test_the_gradient_of_an_accumulation_outlives_a_bad_loss(tiny_data, tmp_path):
    """Two batches a step: the one whose loss is bad is left out, the other one's gradient is not lost."""
    spoil(trainer := Trainer(tiny_run(nominal_batch=4, warmup_iterations=0), tiny_data, tmp_path, CPU), {1}, "loss")
    for batch, updates in zip(trainer.loader.batches(0), (0, 0, 1), strict=False):
        trainer.step(*batch)
        trainer.progress.iteration += 1
        gradients = [q.grad for q in trainer.model.parameters() if q.grad is not None]
        assert trainer.average.updates == updates
        assert updates or 0 < torch.nn.utils.get_total_norm(gradients) < float("inf")


def test_too_many_bad_steps_end_the_run_with_the_cause(tiny_data, tmp_path):
    for options, at, said in (
            ({}, {2, 3, 4}, r"3 steps in a row were skipped; the last: the loss became nan .*obj nan.* "
                            r"in epoch 2, batch 1, its images in bad_step4.pt; .*lower train.lr"),
            ({"max_skipped_steps": 1}, {0, 2}, "2 steps of the run were skipped")):
        spoil(trainer := Trainer(tiny_run(4, **options), tiny_data, tmp_path / f"{len(at)}", CPU), at, "loss")
        with pytest.raises(StudyError, match=said):
            trainer.fit()


def test_only_statistics_that_are_not_finite_are_mended():
    model, average = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)
    average.running_mean.fill_(5.0)
    average.running_var.fill_(7.0)
    model.running_mean[0] = float("nan")
    mend_statistics(model, average)
    assert model.running_mean.tolist() == [5, 5] and model.running_var.tolist() == [1, 1]


@pytest.mark.parametrize("steps", [1, 3, 4])  # four batches an epoch, two a step
def test_sigterm_writes_a_checkpoint_and_other_hardware_resumes_exactly(tiny_data, whole, tmp_path, steps, monkeypatch,
                                                                        capsys):
    trainer, before = Trainer(tiny_run(), tiny_data, tmp_path, CPU), signal.getsignal(signal.SIGTERM)
    at_step(trainer, steps, TERM)
    with pytest.raises(Terminated) as ended:
        trainer.fit()
    assert ended.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
    assert load_state(tmp_path / "checkpoint.pt")["progress"]["iteration"] == steps, "no step was lost"
    monkeypatch.setattr("yolopose.training.trainer.device_words", lambda device, world: "cuda: NVIDIA H200")
    used = Trainer(tiny_run(), tiny_data, tmp_path, CPU).fit()["train"]["hardware"]
    assert files(tmp_path) == files(whole)
    assert "goes on on cuda: NVIDIA H200; run.json names both" in capsys.readouterr().out
    assert len(used) == 2 and used[0].startswith("cpu: ") and used[1] == "cuda: NVIDIA H200"


def of(name: str, value: Any) -> Any:
    def change(path: Path) -> None:
        save_state(path, load_state(path) | {name: value})
    return change


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""), "folder": lambda path: (path.unlink(), path.mkdir()),
    "half": lambda path: path.write_bytes(path.read_bytes()[:path.stat().st_size // 2]),
    "no keys": lambda path: save_state(path, {}), "progress": of("progress", {"epoch": "two"}),
    "group": of("optimizer", {"state": {}, "param_groups": []}), "updates": of("updates", None),
    "momentum": of("optimizer", {"state": {0: {"momentum_buffer": torch.zeros(1)}}, "param_groups": []}),
    "tensor": of("average", {"model.0.conv.conv.weight": torch.zeros(1)}), "optimizer": of("optimizer", {"state": 1}),
    "gradients": of("gradients", {"nowhere": torch.zeros(1)})}


@pytest.fixture(scope="module")
def fresh(tiny_data, tmp_path_factory) -> Trainer:
    return Trainer(tiny_run(), tiny_data, tmp_path_factory.mktemp("fresh"), CPU)


@pytest.fixture(scope="module")
def stopped(tiny_data, tmp_path_factory) -> Path:
    """A checkpoint in the middle."""
    folder = tmp_path_factory.mktemp("stopped")
    trainer = Trainer(tiny_run(), tiny_data, folder, CPU)
    at_step(trainer, 3, TERM)
    with pytest.raises(Terminated):
        trainer.fit()
    return folder / "checkpoint.pt"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_run_begins_anew(tiny_data, stopped, fresh, tmp_path, damage,
                                                                             capsys):
    path = Path(shutil.copy(stopped, tmp_path))
    DAMAGES[damage](path)
    anew = Trainer(tiny_run(), tiny_data, tmp_path, CPU)
    assert vars(anew.progress) == vars(fresh.progress) and not anew.optimizer.state and anew.average.updates == 0
    for ours, theirs in ((anew.model, fresh.model), (anew.average.model, fresh.average.model)):
        assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))
        assert all(q.grad is None for q in ours.parameters())
    assert not path.exists() and path.with_name("checkpoint.pt.damaged").exists()
    said = capsys.readouterr().err
    assert said.startswith(f"{path}: ") and "kept as checkpoint.pt.damaged, and the run is trained anew" in said


@pytest.mark.parametrize("content", [b"<html>", b"PK\5\6" + bytes(18), "list", "compressed", "bit"])
def test_other_files_are_no_states(stopped, tmp_path, content):
    path = Path(shutil.copy(stopped, tmp_path))
    if content == "list":
        save_state(path, [1])
    elif content == "compressed":  # two megabytes were two and a half gigabytes
        write_container(path, b"\x80\x02}.", {"data/0": bytes(1 << 20)}, compression=zipfile.ZIP_DEFLATED)
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[:50_000] + b"\x55" + whole[50_001:] if content == "bit" else content)
    with pytest.raises(DamagedFile, match=f"^{path}: is not a file of plain tensors"):
        load_state(path)


def test_a_checkpoint_that_the_disk_does_not_give_is_no_damaged_one(tiny_data, stopped, tmp_path, monkeypatch):
    path = Path(shutil.copy(stopped, tmp_path))
    monkeypatch.setattr("zipfile.ZipFile.testzip", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
    with pytest.raises(StudyError, match=f"{path}: cannot be read \\(Input/output error"):
        Trainer(tiny_run(), tiny_data, tmp_path, CPU)
    assert path.exists()


def test_a_process_ends_with_143(tiny_data, tmp_path):
    process = train_elsewhere(tiny_data, tmp_path / "run", tiny_run(400, workers=1))
    wait_for(tmp_path / "run" / "progress.json", process.is_alive)
    os.killpg(process.pid, signal.SIGTERM)  # as a cluster's scheduler does it: data workers too
    process.join(60)
    assert process.exitcode == 143
    assert load_state(tmp_path / "run" / "checkpoint.pt")["progress"]["iteration"] >= 10


def test_in_a_thread_signals_are_left_alone(tiny_data, tmp_path):
    """Python takes signals in its main thread only."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(Trainer(tiny_run(1), tiny_data, tmp_path, CPU).fit).result()["train"]["images_seen"] == 8


def test_killed_data_workers_are_replaced_and_nothing_is_lost_until_there_are_too_many(tiny_data, monkeypatch, capfd):
    monkeypatch.setattr(loaders, "WORKER_RESTARTS", 2)
    iterator = "torch.utils.data.dataloader._MultiProcessingDataLoaderIter"  # it looks for dead workers every 5 s
    monkeypatch.setattr(f"{iterator}._try_get_data.__defaults__", (0.2,))
    run, found = tiny_run(batch_size=1), []
    expected = list(TrainLoader(tiny_data.train, run, tiny_data.schema, 0).batches(0))
    loader = TrainLoader(tiny_data.train, run, tiny_data.schema, 1)
    for batch in loader.batches(0):
        found.append(batch)
        if len(found) in (1, 5):
            os.kill(loader._loader._iterator._workers[0].pid, signal.SIGKILL)
    assert loader.restarts == 2 and "started again (2 of 2 times)" in capfd.readouterr().err
    assert len(found) == 8 and same(found, expected)
    with pytest.raises(StudyError, match="a data worker process died .* then repeat the command"):
        for _ in loader.batches(1):
            os.kill(loader._loader._iterator._workers[0].pid, signal.SIGKILL)
    assert loader.restarts == 3


def some_poses(generator: np.random.Generator, people: int) -> Poses:
    draw = generator.uniform(0, 640, (people, 56)).astype(np.float32)  # tracemalloc sees this memory
    return Poses(*map(torch.from_numpy, (draw[:, :4], draw[:, 4] / 640, draw[:, 5:].reshape(people, 17, 3))))


def test_a_spool_gives_back_what_a_list_would(tmp_path):
    generator = np.random.default_rng(0)
    poses = {index: some_poses(generator, people) for index, people in ((2, 3), (0, 0), (1, 2))}
    with PoseSpool(tmp_path, [30, 10, 20], 1) as spool:
        for index, one in poses.items():
            spool.add(index, one)
        spool.finish()
        expected = [e for i, name in enumerate([30, 10, 20]) for e in as_coco_results(poses[i], name, 1)]
        assert list(spool) == expected == list(spool), "in the order of the images, as often as wanted"
        assert json.loads(json.dumps(expected)) == expected, "plain numbers"
    assert not list(tmp_path.glob(".poses*"))
    boxes = Poses(torch.rand(2, 4), torch.rand(2), torch.empty(2, 0, 3))
    with PoseSpool(tmp_path / "new", [7], 1) as spool:
        spool.add(0, boxes)
        spool.finish()
        assert list(spool) == as_coco_results(boxes, 7, 1) and list(spool)[0]["keypoints"] == [], "a person detector"
    for indices in ([0], [0, 0], [0, 1, 1]):
        with PoseSpool(tmp_path, [7, 8], 1) as spool, pytest.raises(ValueError, match="not one for each"):
            for index in indices:
                spool.add(index, boxes)
            spool.finish()


def test_memory_does_not_grow_with_the_images(tmp_path):
    """Peak of Python's and numpy's memory for 100 and for 500 images of 20 people; as a list these take 24 MiB."""
    def spooled(images: int) -> None:
        generator = np.random.default_rng(0)
        with PoseSpool(tmp_path, range(images), 1) as spool:
            for index in range(images):
                spool.add(index, some_poses(generator, 20))
            spool.finish()
            some = (entry for number, entry in enumerate(spool) if number % 20 == 0)
            assert sum(1 for _ in written_through(tmp_path / "predictions.json.gz", some)) == images

    few, many = (peak_bytes(partial(spooled, images)) for images in (100, 500))
    assert many - few < 100_000, f"{(many - few) / 400:.0f} bytes an image"


def test_a_set_of_results_from_a_gpu_and_a_cpu_is_called_so(tmp_path):
    folders = [tmp_path / name / "seed0" for name in ("s6", "m6", "l6")]
    for folder, device in zip(folders, ("cuda:0", "cuda:0", "cpu"), strict=True):
        write_json(folder / "run.json", {"train": {"device": device}, "evaluate": {"device": "cuda:0"}})
    assert mixed_hardware(folders[:2]) is None and mixed_hardware([tmp_path / "absent"]) is None
    assert mixed_hardware(folders) == "mixed hardware: l6/seed0 was trained on a CPU, others were not"
    write_json(folders[0] / "run.json", {"train": {"device": "cpu", "hardware": ["cuda: NVIDIA H200", "cpu: x"]}})
    assert "s6/seed0" in mixed_hardware(folders[:2]), "one run on both"


def test_runs_are_named_listed_and_come_after_their_detector(tmp_path):
    study = load_study("smoke", results=tmp_path, seeds="0 1")
    assert chosen_runs(study, ["all"]) == study.runs()
    assert [run.name for run in chosen_runs(study, ["s6/seed1"])] == ["s6_person/seed1", "s6/seed1"]
    with pytest.raises(StudyError, match=r"s6/seed7: no such run in .*; did you mean"):
        chosen_runs(study, ["s6/seed7"])


def test_number_of_processes(monkeypatch):
    monkeypatch.delenv("YOLOPOSE_PROCESSES", raising=False)
    assert number_of_processes("cpu") == 1 and number_of_processes("cpu", 3) == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert [number_of_processes(d) for d in ("auto", "cuda", "cuda:1", "cpu")] == [8, 8, 1, 1]
    monkeypatch.setenv("YOLOPOSE_PROCESSES", "2")
    assert number_of_processes("auto") == 2 == number_of_processes("cpu")
    monkeypatch.setenv("YOLOPOSE_PROCESSES", "none")
    with pytest.raises(StudyError, match="PROCESSES= of make"):
        number_of_processes("cpu")


def test_other_processes_load_the_same_study_or_none(tmp_path):
    for study in (load_study("smoke", results=tmp_path / "a", seeds="1 2", device="cpu"),
                  load_study("smoke", results=tmp_path / "a", ablations=True)):
        options = iter(option for option in study_options(study) if option != "--ablations")
        given = {name.removeprefix("--"): value for name, value in zip(options, options, strict=True)}
        assert load_study(**given, ablations=study.ablations) == study
    with pytest.raises(StudyError, match="was changed in this process"):
        study_options(replace(study, profile=replace(study.profile, width_factor=0.5)))


def test_a_claimed_run_is_waited_for(tmp_path):
    first, order = ExitStack(), ["begins"]
    first.enter_context(claimed(tmp_path / "seed0", "first"))
    first.callback(order.append, "ends")
    Timer(0.6, first.close).start()
    with claimed(tmp_path / "seed0", "second"):
        assert order == ["begins", "ends"]
    assert not (tmp_path / "seed0" / ".lock").exists()


@pytest.mark.slow
def test_make_never_runs_one_experiment_twice(tmp_path):
    """Two ``make -j2`` of the same three runs at once: each, and the detector of all, is trained and scored once."""
    log, results = tmp_path / "log", tmp_path / "smoke"
    command = ["make", "--no-print-directory", "-j2", "-f", str(REPO / "fanout.mk"), f"FANOUT={sys.executable} -m "
               "tests.fanout_stub", f"OPTIONS=--profile smoke --results {results} --device cpu",
               "RUNS=s6/seed0 s6_faithful/seed0 s6_l1/seed0", "LAUNCH=env LAUNCHED=1"]
    makes = [subprocess.Popen(command, cwd=REPO, env=ENVIRONMENT | {"FANOUT_LOG": str(log)}, text=True,
                              stderr=subprocess.PIPE) for _ in range(2)]
    said = [make.communicate(timeout=200)[1] for make in makes]
    assert [make.returncode for make in makes] == [0, 0], said
    lines = log.read_text().splitlines()
    expected = itertools.product(("begin", "end", "score"), ("s6", "s6_faithful", "s6_l1", "s6_person"))
    assert sorted(lines) == [f"{what} {name}/seed0" for what, name in expected]
    assert lines[:2] == ["begin s6_person/seed0", "end s6_person/seed0"], "the detector comes first"
    begun = [line for line in lines if line.startswith(("begin", "end"))]
    assert any(a[:5] == b[:5] == "begin" for a, b in itertools.pairwise(begun)), "different runs go side by side"
    assert not list(results.glob("**/.lock*")) and "waiting" in "".join(said)


def test_make_runs_lists_every_run(tmp_path):
    done = subprocess.run(["make", "-n", "-f", REPO / "fanout.mk", f"PY={sys.executable}", "LAUNCH=srun --gres=gpu:1",
                           f"OPTIONS=--profile smoke --results {tmp_path}"], cwd=REPO, env=ENVIRONMENT,
                          capture_output=True, text=True, check=True)
    commands = [line for line in done.stdout.splitlines() if line.startswith("exec env srun --gres=gpu:1 ")]
    assert len(commands) == len(load_study("smoke", results=tmp_path).runs())
    assert sum("-m yolopose.training.launch run s6/seed0 --profile smoke" in command for command in commands) == 1
