"""Several processes: same losses as one, whatever is killed; evaluation shared; one claim for a run."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tests import elastic_worker
from tests.coco_folder import make_folder
from tests.tiny import CPU, ENVIRONMENT, PRELOADED, files, forked
from yolopose.data.coco import load_dataset
from yolopose.data.synthetic.generate import SyntheticSpec, generate
from yolopose.evaluation.evaluate import evaluate_run
from yolopose.models.checkpoints import load_state
from yolopose.models.losses import LOSSES, TERMS, compute_loss, effective_gains
from yolopose.models.yolov5 import build_model
from yolopose.study.config import load_study, load_variants
from yolopose.training.launch import elastic
from yolopose.utils.distributed import SINGLE, World, launched, own_device, process_group, wrap
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_csv, read_json

pytestmark = pytest.mark.slow


def start(work: str, root: Path, folder: Path, processes: int = 2, restarts: int = 0) -> str:
    """Run ``tests.elastic_worker`` in one process, or in several under torch's elastic launcher; what they said.

    All are forks of one process that has loaded torch. A file ``term`` in the folder says that they are to fail.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    if processes == 1:
        process = forked(elastic_worker.work, work, root, folder)
        process.join()
        assert process.exitcode == 0
        return ""
    fails, logs = (folder / "term").exists(), folder.with_name(f"{folder.name}-logs")
    logs.mkdir(exist_ok=True)
    config = LaunchConfig(1, 1, processes, run_id=folder.name, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
                          max_restarts=restarts, monitor_interval=0.1, start_method="forkserver",
                          logs_specs=DefaultLogsSpecs(str(logs), redirects=Std.ERR))
    if fails:
        with pytest.raises(ChildFailedError) as failure:
            elastic_launch(config, elastic_worker.work)(work, root, folder)
        return str(failure.value)
    elastic_launch(config, elastic_worker.work)(work, root, folder)
    return "".join(path.read_text() for path in logs.rglob("stderr.log"))


def ordered(folder: Path, order: str, text: str = "") -> Path:
    """The folder with a file that orders something of the worker."""
    folder.mkdir(exist_ok=True)
    (folder / order).write_text(text)
    return folder


def losses(folder: Path, rank: int = 0) -> dict[int, torch.Tensor]:
    """Each step's losses as one process logged them; of a repeated step the last."""
    rows = [json.loads(line) for line in (folder / f"steps{rank}").read_text().splitlines()]
    return {int(row[0]): torch.tensor(row[1:], dtype=torch.float64) for row in rows}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data") / "tiny", images=18)  # 12 to train on: three batches an epoch


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory) -> Path:
    """A run of two processes that nothing interrupted, evaluated by them."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    start("train+evaluate", root, folder)
    return folder


def test_two_processes_have_the_losses_of_one(root, tmp_path):
    """In double precision, so that what differs is the computation and not what six steps make of its rounding."""
    start("train", root, ordered(tmp_path / "one", "double"), 1)
    start("parts+train", root, ordered(tmp_path / "two", "double"))
    assert read_json(tmp_path / "two" / "parts.json") == {"passed": True}
    one = losses(tmp_path / "one")
    assert list(one) == list(range(6))
    for rank in (0, 1):
        two = losses(tmp_path / "two", rank)
        assert list(two) == list(one)
        for step, terms in one.items():
            torch.testing.assert_close(two[step], terms, rtol=0, atol=1e-5)
    changes = [(one[step] - one[step + 1]).abs().max() for step in range(5)]
    assert min(changes) > 1e-3, "the losses must move by more than they may differ"


def test_evaluation_by_two_processes_counts_every_image_once(whole, root, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    dataset, threads = load_dataset(root), torch.get_num_threads()
    torch.set_num_threads(1)  # as in each of the two: the last digits, and with them equal scores, depend on it
    try:
        metrics = evaluate_run(elastic_worker.configured(), dataset, tmp_path / "copy", CPU)
    finally:
        torch.set_num_threads(threads)
    assert metrics == read_json(whole / "metrics.json")
    found = read_json(whole / "predictions.json.gz")
    assert found == read_json(tmp_path / "copy" / "predictions.json.gz")
    assert {p["image_id"] for p in found} == set(dataset.val.image_ids())
    assert not list(whole.glob(".poses*"))
    record = read_json(whole / "run.json")
    assert record["train"]["processes"] == 2 and record["train"]["hardware"][0].startswith("2 × cpu: ")
    assert record["evaluate"]["hardware"] == record["train"]["hardware"]


def test_a_worker_killed_in_an_epoch_is_replaced(whole, root, tmp_path):
    """SIGKILL of one process at step 4; the launcher starts both anew and they end in the same bytes."""
    folder = ordered(tmp_path / "killed", "kill", "4")
    start("train", root, folder, restarts=1)
    assert not (folder / "kill").exists(), "nothing was killed"
    steps = [json.loads(line)[0] for line in (folder / "steps0").read_text().splitlines()]
    assert steps == [0, 1, 2, 3, 4, 5], "it went on from its checkpoint"
    assert files(folder) == files(whole)


def test_two_processes_asked_to_end_write_one_checkpoint(whole, root, tmp_path):
    folder = ordered(tmp_path / "ended", "term", "3")
    assert "143" in start("train", root, folder)
    state = load_state(folder / "checkpoint.pt")["progress"]
    assert (state["iteration"], state["epoch"], state["batch"]) == (4, 1, 1), "both stopped after the signal's step"
    start("train", root, folder)
    assert files(folder) == files(whole)
    assert [row["images"] for row in read_csv(folder / "curve.csv")] == ["12", "24"]


def test_one_process_alone():
    values = torch.ones(2)
    assert SINGLE.total(values) is values and SINGLE.tell(3) == 3 and SINGLE.gather(4) == [4] == SINGLE.collect(4)
    SINGLE.agree(1, "nothing to differ from")
    model = torch.nn.BatchNorm2d(3)
    assert wrap(model, SINGLE, CPU, True) is model
    assert not launched() and own_device(CPU) == CPU
    with process_group(CPU) as world:
        assert world is SINGLE
    with pytest.raises(StudyError, match="a batch of 2 images cannot be shared among 3 processes"):
        World(0, 3).share(2)
    assert [i for rank in range(3) for i in World(rank, 3).share(8)] == list(range(8))


def test_shares_of_a_batch_add_up_to_its_loss():
    """The halves' losses, each with both halves' counts, against the whole; no second process is needed for that."""
    torch.manual_seed(0)
    model = build_model(load_variants()["yolov5s6_pose"], 3, 0.125, seed=0).eval()
    images = torch.rand(4, 3, 64, 64)
    targets = torch.tensor([[i, 0, 20 + 5 * i, 30, 20 + 4 * i, 30, *[22, 28, i % 3, 25, 31, 2, 0, 0, 0], 0.5]
                            for i in (0, 1, 1, 3, 3)], dtype=torch.float32)
    targets[0, [8, 11, 14]] = 0  # the first half has fewer visible joints than the second
    sigmas = torch.full((3,), 0.1)
    raw = model(images)
    for loss in LOSSES:
        gains = {"cls": 0.5} | {k: v or 0.5 for k, v in effective_gains(loss, 64).items()}
        rows = targets if loss == "oks_segment" else targets[:, :-1]
        halves = []
        for first in (0, 2):
            own = rows[(rows[:, 0] >= first) & (rows[:, 0] < first + 2)].clone()
            own[:, 0] -= first
            halves.append(([r[first:first + 2] for r in raw], own))
        counts: list[torch.Tensor] = []
        for part in halves:
            compute_loss(*part, model.detect, sigmas, loss, gains, 8.0, total=lambda c, to=counts: to.append(c) or c)
        whole = sum(counts)
        parts = [compute_loss(*part, model.detect, sigmas, loss, gains, 8.0, total=lambda _, all=whole: all)
                 for part in halves]
        expected = compute_loss(raw, rows, model.detect, sigmas, loss, gains, 8.0)
        for term in TERMS:
            torch.testing.assert_close(sum(p.items[term] for p in parts), expected.items[term], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(sum(p.total for p in parts), expected.total, rtol=1e-5, atol=1e-6)
        assert expected.items["kpt"] > 0


def test_a_bad_step_of_one_process_is_left_out_by_both(root, tmp_path):
    said = start("train", root, ordered(tmp_path, "spoil", "3"))
    assert said.count("step left out: the loss became nan") == 1, "one process speaks"
    for rank in (0, 1):
        seen = losses(tmp_path, rank)
        assert [step for step, terms in seen.items() if not terms.any()] == [3] and len(seen) == 6
        dumped = load_state(tmp_path / f"bad_step3_{rank}.pt")
        assert len(dumped["images"]) == 2, "its own part of the batch"
    assert read_json(tmp_path / "run.json")["train"]["skipped_steps"] == 1
    assert all(v.isfinite().all() for v in load_state(tmp_path / "weights.pt")["state_dict"].values())


def test_a_study_is_trained_by_the_launcher_it_starts(tmp_path, monkeypatch):
    """What a notebook does where several GPUs are visible: detector first, then the run itself, scored by both."""
    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    generate(tmp_path / "drawn", SyntheticSpec("near", 128, train=16, val=6, test_dev=1), workers=1, progress=False)
    study = load_study("smoke", data=tmp_path / "drawn", results=tmp_path / "results", device="cpu")
    elastic(study, ["s6/seed0"], 2, evaluate=True)
    folder = tmp_path / "results" / "s6" / "seed0"
    record = read_json(folder / "run.json")
    assert record["train"]["processes"] == 2 and record["train"]["tensors_from_detector"] > 100
    assert read_json(folder / "metrics.json")["val_all"]["images"] == 6
    assert (tmp_path / "results" / "s6_person" / "seed0" / "run.json").exists()
    assert not (tmp_path / "results" / "m6").exists() and not list((tmp_path / "results").glob("**/.*"))
    with open(folder / "weights.pt", "ab") as file:
        file.write(b"\0")
    (folder / "metrics.json").unlink()
    with pytest.raises(StudyError, match="is not the file that run.json describes"):
        elastic(study, ["s6/seed0"], 2, evaluate=True)
