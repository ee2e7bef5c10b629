"""The estimate: hours, memory and disk by hand, what is measured and what follows from it, and the two forms of it."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from tests.coco_folder import make_folder
from yolopose.analysis import cost
from yolopose.analysis.complexity import count_macs
from yolopose.analysis.cost import COCO_COUNTS, dataset_gib, estimate, image_counts, main, measure, study_for_estimate
from yolopose.data.coco import load_dataset
from yolopose.models.yolov5 import build_model, count_parameters
from yolopose.study.config import ABLATIONS
from yolopose.study.paper import MAIN_CONVENTION
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json

CPU = torch.device("cpu")
PAPER_GMACS = {"m6": 66.3, "l6": 145.6, "s6_person": 18.8, "m6_person": 57.8, "l6_person": 131.0}


@pytest.fixture(autouse=True)
def kept_elsewhere(tmp_path_factory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is measured and counted is kept."""
    monkeypatch.setattr(cost, "CACHE", tmp_path_factory.mktemp("estimate") / "kept")
    cost._unit_counts.cache_clear()
    return cost.CACHE


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts without building a model: those of the paper's s6 for whatever is not listed, by area."""
    monkeypatch.setattr(cost, "model_counts", lambda run: {
        "gmacs": PAPER_GMACS.get(run.experiment.name, 22.8) * (run.input_size / 960) ** 2, "params_m": 15.0,
        "fixed_gib": 0.25, "image_gib": 1.0})


def both(profile: str) -> dict[str, Any]:
    return {"study": study_for_estimate(profile), ABLATIONS: study_for_estimate(profile, ablations=True)}


@pytest.fixture
def studies() -> dict[str, Any]:
    return both("paper")


def by_name(studies: dict[str, Any], images: dict[str, int], given: dict[str, float] | None = None) -> dict[Any, Any]:
    """Rows of the estimate by part and experiment."""
    return {(row.part, row.experiment): row for row in estimate(studies, images, given).itertuples()}


def test_hours_by_hand(counted: None, studies: dict[str, Any]) -> None:
    """56,599 images over 300 epochs at 400/s: 42,449 s; scoring has 30 validations of 1,000, val and test-dev at
    1,200/s; l6 is 145.6 / 22.8 times slower."""
    rows = by_name(studies, COCO_COUNTS, {"s6": 400.0})
    s6, l6, person = (rows["study", name] for name in ("s6", "l6", "s6_person"))
    assert (s6.train_images, s6.scored_images, s6.seeds, s6.source) == (16_979_700, 55_288, 1, "given")
    assert s6.train_hours == pytest.approx(11.791, abs=1e-3) and s6.score_hours == pytest.approx(55_288 / 1200 / 3600)
    assert l6.train_rate == pytest.approx(400 * 22.8 / 145.6) and l6.source == "as s6"
    assert person.scored_images == 35_000  # a person detector has no keypoints for test-dev
    ablation = rows[ABLATIONS, "s6_l1"]
    assert ablation.seeds == 3 and ablation.train_hours == pytest.approx(3 * s6.train_hours)
    assert rows[ABLATIONS, "s6_r640"].train_rate == pytest.approx(400 * 2.25)
    assert [r.experiment for r in rows.values() if r.part == "study"] == [*studies["study"].experiments]
    assert s6.memory_gib == pytest.approx(0.25 + 64 * 0.5) and s6.precision == "half precision"
    assert s6.disk_gib == pytest.approx((60e6 + 130 * (5000 * 300 + 20288 * 20)) / 2**30)
    assert s6.checkpoint_gib == pytest.approx(240e6 / 2**30)
    studies = both("mini")  # with smaller epochs of the ablations
    images, source = image_counts(studies["study"])
    assert (images, source) == ({"train": 16000, "val": 1000, "test_dev": 500}, "the profile's")
    rows = by_name(studies, images, {"s6": 200.0})
    main_row, ablation = rows["study", "s6"], rows[ABLATIONS, "s6"]
    assert (main_row.train_images, main_row.scored_images) == (48_000, 3 * 500 + 1500)
    assert (ablation.train_images, ablation.scored_images) == (10_240, 2 * 250 + 1000)  # scored on val alone


def test_measured_rates_go_to_models_of_their_depth_and_width(counted, studies, monkeypatch) -> None:
    measured = Mock(side_effect=lambda _, gmacs: {n: {
        "train": 1000 / g, "evaluate": 5000 / g, "train_batch": 8, "precision": "bfloat16", "gpu_gib": 0.25 + 8 * 0.8,
        "pushed_off": 99.0 if n == "m6" else 1.0} for n, g in gmacs.items()})
    monkeypatch.setattr(cost, "rates", measured)
    rows = {name: row for (part, name), row in by_name(studies, COCO_COUNTS).items() if part == "study"}
    assert [list(call.args[1]) for call in measured.mock_calls] == [["s6", "m6", "l6"]]
    assert {n: r.source for n, r in rows.items()} == {
        "s6_person": "as s6", "m6_person": "as m6", "l6_person": "as l6", "s6": "measured",
        "m6": "measured while busy", "l6": "measured", "s6_relu": "as s6"}
    assert rows["m6_person"].train_rate == pytest.approx(1000 / 66.3 * 66.3 / 57.8)
    assert rows["s6_relu"].image_gib == pytest.approx(0.8)  # measured 0.8 where 0.5 was computed


@pytest.mark.parametrize("profile", ["smoke", "mini", "gpu", "paper"])
def test_every_profile_has_an_estimate(counted, profile: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--profile", profile, "--images-per-second", "400"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"PROFILE={profile} with the given rates") and "total, ablations" in said
    assert "formula: hours = images / rate / 3600" in said and "no GPU was measured" not in said
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_text_and_markdown(counted: None, studies: dict[str, Any]) -> None:
    rows, report = estimate(studies, COCO_COUNTS, {"s6": 400.0}), cost.report
    machine = {"cpu": "a CPU", "cores": 2, "memory_gib": 16.0, "accelerator": None}
    text = report(studies["study"], rows, COCO_COUNTS, "COCO 2017's", 25.8, "cpu", machine)
    table = text.split("\n\n")[1].splitlines()
    assert len(table) == 1 + len(rows) + 3 and len({line.index("rate") for line in table[:1]}) == 1
    assert "these are the times of a CPU, no GPU was measured" in text
    assert "this machine has 16 GiB: s6_person fits with train.batch_size 31 at most" in text
    marked = report(studies["study"], rows, COCO_COUNTS, "COCO 2017's", 25.8, "given", machine, markdown=True)
    lines = [line for line in marked.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {11} and len(lines) < len(table)
    assert "  " not in marked and "----" not in marked  # not padded to the longest line
    assert any("s6_l1, s6_l1_scaled" in line and "(each)" in line for line in lines)
    assert "no GPU" not in marked and "- formula" in marked
    assert [cost.duration(h) for h in (0.001, 0.5, 30, 480)] == ["1 min", "30 min", "30 h", "20 days"]


def test_the_full_study_carries_the_estimate(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)  # what it keeps goes there
    assert main(["--profile", "paper", "--images-per-second", "400", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    readme = (Path(__file__).parents[1] / "results/paper/full_study.md").read_text(encoding="utf-8")
    table = [line for line in lines if line.startswith("|")]
    assert len(table) > 20 and [line for line in table if line not in readme] == []
    for words in (r"time: study (\d+ days), ablations (\d+)", r"; (\d+ GiB) in all"):
        for number in re.search(words, "\n".join(lines)).groups():
            assert number in readme


def test_counts_of_a_folder_are_those_of_its_loader_and_cocos_stand_in(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "tiny", images=7, test_dev=True)
    study = study_for_estimate("paper", str(root))
    images, source = image_counts(study, str(root))
    data = load_dataset(root)
    assert images == {"train": len(data.train), "val": len(data.val), "test_dev": len(data.test_dev)}
    assert "annotations of" in source
    assert dataset_gib(study, images, str(root)) == pytest.approx(
        sum(p.stat().st_size for p in root.rglob("*") if p.is_file() and "server" not in p.parts) / 2**30, rel=1e-3)
    listed = root / "annotations/image_info_test-dev2017.json"
    valid = listed.read_text()
    listed.write_text("[" * 9000)
    with pytest.raises(StudyError, match="nested too deeply"):
        image_counts(study, str(root))
    listed.write_text(valid)
    study = study_for_estimate("paper")  # without data
    assert image_counts(study) == (COCO_COUNTS, "COCO 2017's")
    assert dataset_gib(study, COCO_COUNTS) == pytest.approx(25.8)
    for data in (root.parent, tmp_path / "not-yet"):  # before make data
        images, source = image_counts(study_for_estimate("paper", str(data)), str(data))
        assert images == COCO_COUNTS and f"as {data} has no annotations" in source


def test_given_rates(counted: None, studies: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    number = "give a positive number"
    for first, others, wanted in (("fast", [], f"^RATE=fast: {number}.* RATE=400$"), ("0", [], number),
                                  ("nan", [], number), ("", ["l6"], f"--rate l6: {number}"), ("", ["l6=-1"], number)):
        with pytest.raises(StudyError, match=wanted):
            cost.parse_rates(first, others, studies["study"])
    assert cost.parse_rates("400", ["l6=90"], studies["study"]) == {"s6": 400.0, "l6": 90.0}
    with pytest.raises(StudyError, match="--rate x6=…: the profile paper has no such experiment; it has s6_person"):
        estimate(studies, COCO_COUNTS, {"x6": 1.0})
    assert main(["--profile", "nonsense"]) == 2
    assert "does not exist" in capsys.readouterr().err


def tiny() -> Any:
    """A model of one block a stage, as what is measured follows from the layers, not from their number."""
    run = study_for_estimate("smoke").run("s6", 0)
    return replace(run, width_factor=0.125, input_size=128, train=replace(run.train, batch_size=2),
                   variant=replace(run.variant, depth=0.1, decoder_depth=1))


def test_a_real_model_is_measured() -> None:
    found = measure(tiny(), 0.01, "cpu", seconds=0.01)
    assert found["train"] > 0 and found["evaluate"] > 0 and found["train_batch"] == 2 and found["gpu_gib"] is None
    assert found["pushed_off"] >= 0 and found["precision"] in ("float32", "bfloat16")
    assert measure(tiny(), 1e3, "cpu", seconds=0.01)["train_batch"] == 1


def test_the_longest_calls_do_not_count() -> None:
    pauses = iter([0.05, 0.03, 0.002, *[0.03] * 50])
    assert cost.timed(lambda: time.sleep(next(pauses)), CPU, 0.15) < 0.03
    pauses = iter([0.0, 0.01])
    assert cost.timed(lambda: time.sleep(next(pauses)), CPU, 0.0) >= 0.01  # one call counts, however long it is


@pytest.mark.parametrize("size", [128, 192])
def test_operations_and_memory_are_those_of_a_real_pass(size: int) -> None:
    run = replace(tiny(), input_size=size)
    model, kept = build_model(run.variant, 17, 0.125).train(), {}
    weights = {p.data_ptr() for p in (*model.parameters(), *model.buffers())}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model(torch.zeros(1, 3, size, size))
    real = sum(storage.nbytes() for storage in kept.values()) / 2**30
    found = cost.model_counts(run)
    assert found["image_gib"] == pytest.approx(real, rel=0.05)
    assert found["params_m"] == pytest.approx(count_parameters(model) / 1e6)
    assert found["gmacs"] == count_macs(model.eval(), size)[MAIN_CONVENTION] / 1e9


def test_what_was_counted_is_kept_until_the_code_changes(kept_elsewhere: Path, monkeypatch, capsys) -> None:
    """A repeated estimate counted two dozen models again, and said nothing for a minute."""
    count = Mock(side_effect=cost._count)
    monkeypatch.setattr(cost, "_count", count)
    run, found = tiny(), []
    for code in ("a", "a", "b"):
        monkeypatch.setattr(cost, "_code", lambda code=code: [code])
        cost._unit_counts.cache_clear()
        found.append(cost.model_counts(run))
    assert found[0] == found[1] == found[2] and count.call_count == 2
    assert [path.name for path in (kept_elsewhere / "counts").iterdir()] == ["yolov5s6_pose_x0.125.json"]
    study = study_for_estimate("smoke")
    estimate({"study": replace(study, experiments=("s6",))}, COCO_COUNTS, {"s6": 400.0})
    assert "counting models" in capsys.readouterr().err


def test_what_does_not_fit_the_gpu_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def train(_: Any, batch: int, *__: Any) -> dict[str, Any]:
        tried.append(batch)
        if batch > fits:
            raise torch.cuda.OutOfMemoryError
        return {"train": 1.0, "train_batch": batch}

    monkeypatch.setattr(cost, "select_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(cost, "_train_rate", train)
    monkeypatch.setattr(cost, "_evaluate_rate", lambda _, batch, *__: {"evaluate_batch": batch})
    fits, run = 16, study_for_estimate("paper").run("l6", 0)
    assert measure(run, 146, "cuda") == {"train": 1.0, "train_batch": 16, "evaluate_batch": 16}
    assert tried == [64, 32, 16]
    fits = 0
    with pytest.raises(StudyError, match="l6 at 960 px: not one image fits the GPU"):
        measure(run, 146, "cuda")


def test_rates_are_measured_once_and_a_failed_measurement_is_named(tmp_path: Path, monkeypatch) -> None:
    measured, study = Mock(side_effect=StudyError("no GPU")), study_for_estimate("smoke", device="cpu")
    monkeypatch.setattr(cost, "ProcessPoolExecutor", lambda number, _: ThreadPoolExecutor(number))
    monkeypatch.setattr(cost, "measure", measured)
    monkeypatch.setattr(cost, "CACHE", tmp_path)
    with pytest.raises(StudyError, match=r"measuring s6 failed .give its rate by --rate s6=.*no GPU"):
        cost.rates(study, {"s6": 1})
    assert not list(tmp_path.iterdir())
    measured.side_effect = lambda *_: {"train": 5.0}
    for _ in range(2):
        assert cost.rates(study, {"s6": 1, "m6": 2}) == {"s6": {"train": 5.0}, "m6": {"train": 5.0}}
    calls = [(run.experiment.name, *rest) for run, *rest in (call.args for call in measured.mock_calls[1:])]
    assert calls == [("s6", 1, "cpu"), ("m6", 2, "cpu")]
    (path,) = tmp_path.iterdir()
    assert all("torch" in key and "cpu" in key for key in read_json(path))
