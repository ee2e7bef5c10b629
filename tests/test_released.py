"""The list of released checkpoints, fetching them once from a server on this machine, and their runs."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.file_server import serving
from tests.official_files import random_state, write_checkpoint, write_container
from yolopose.data.prepare import prepare_data
from yolopose.evaluation.evaluate import evaluate_study, predict_split
from yolopose.models.checkpoints import load_weights
from yolopose.released import catalogue, runs
from yolopose.released.catalogue import BASE, GROUPS, chosen, get_checkpoints, load_released
from yolopose.report.compare import released_rows
from yolopose.report.verdicts import NOT_COMPARABLE, NOT_REPRODUCED, NOT_RUN, REPRODUCED
from yolopose.study.config import load_experiments, load_study, load_variants
from yolopose.study.paper import PAPER_DIR
from yolopose.training.launch import train_study
from yolopose.utils.errors import StudyError
from yolopose.utils.files import file_sha256, read_csv, read_json, write_csv, write_json

NOWHERE = "http://127.0.0.1:9/"  # where nothing listens
NAMES = ("s6_960", "s6_960_retrained", "s6_640_ti_lite")


@pytest.fixture(scope="module")
def official(shared, tmp_path_factory) -> dict[str, bytes]:
    """What the server has: two small pose models and a ti_lite one, by name."""
    folder, found = tmp_path_factory.mktemp("official"), {}
    for seed, name in enumerate(NAMES):
        lite = name.endswith("lite")
        state = random_state(shared, "yolov5s6_pose_ti_lite" if lite else "yolov5s6_pose", seed=seed)
        found[name] = write_checkpoint(folder / f"{name}.pt", state, act=torch.nn.ReLU if lite else torch.nn.SiLU,
                                       contract=name != "s6_960").read_bytes()
    return found


@pytest.fixture
def server(official):
    """A server of those files at the addresses of the list; every other file of it is gone."""
    with serving() as files:
        files.files = {"/" + load_released()[name].url(""): content for name, content in official.items()}
        files.address += "/"
        yield files


def test_the_list_is_the_references(shared):
    text = (shared / "reference" / "yolo-pose-official.md").read_text(encoding="utf-8")
    assert f"`{BASE}`" in text
    block = re.search(r"```csv\n(group,model,input,GMACS.*?)```", text, re.DOTALL)
    theirs = [row for row in csv.DictReader(block[1].splitlines()) if row["checkpoint folder (relative)"]]
    ours = {row.folder: row for row in load_released().values()}
    for row in theirs:
        folder, _, file = row["checkpoint folder (relative)"].partition(" ")
        mine = ours.pop(folder)
        assert (mine.file, str(mine.input_size)) == (file.strip("()") or "last.pt", row["input"])
        assert (mine.AP_readme, mine.AP50_readme) == (float(row["AP"]), float(row["AP50"]))
        assert mine.model == row["model"].replace(" (sic)", "")
    assert all(f"`{folder}`" in text or f"`{folder.rsplit('/')[-1]}`" in text for folder in ours) and len(ours) == 2


def test_the_numbers_of_the_path_are_in_the_path_and_in_the_papers_tables():
    for row in load_released().values():
        ap, ap50 = re.search(r"_(\d\dp\d)_(\d\dp\d)", row.folder).groups()
        assert (row.AP_path, row.AP50_path) == (float(ap.replace("p", ".")), float(ap50.replace("p", ".")))
        assert row.group in GROUPS
        assert (row.AP_path != row.AP_readme) == (row.group == "retrained" or row.AP_readme is None)
    # each experiment of the list prints the README's AP somewhere in the paper's tables, to 0.1
    printed = {row["experiment"]: float(row["AP"]) for n in (1, 4) for row in read_csv(PAPER_DIR / f"table{n}.csv")
               if row["experiment"]}
    rows = [row for row in load_released().values() if row.experiment]
    assert {row.experiment for row in rows} == {"s6", "m6", "l6", "s6_r640"}
    assert all(row.group == "paper" for row in rows)
    for row in rows:
        assert abs(printed[row.experiment] - row.AP_path) < 0.1001
        assert load_experiments()[row.experiment].input_size == row.input_size
        assert f"{load_experiments()[row.experiment].variant}_faithful" in load_variants()


def test_names_and_groups_choose():
    assert [row.name for row in chosen(["ti_lite", "s6_960"])][0] == "s6_960"
    assert len(chosen(["ti_lite", "s6_960"])) == 6 and len(chosen([])) == len(load_released()) == 25
    with pytest.raises(StudyError, match="did you mean 's6_960'"):
        chosen(["s6_96"])


def test_files_are_fetched_imported_and_never_asked_for_again(server, official, tmp_path, capsys):
    rows = chosen(NAMES)
    report = get_checkpoints(rows, tmp_path, server.address)
    assert [row["state"] for row in report] == ["imported"] * 3
    assert sum(path.endswith(".pt") for path, *_ in server.log) == 3  # besides the sign of life
    checksums = read_json(tmp_path / "checksums.json")
    for row, line in zip(rows, report, strict=True):
        assert checksums[row.name]["sha256"] == line["sha256"] == file_sha256(row.source(tmp_path))
        assert row.source(tmp_path).read_bytes() == official[row.name]
        _, about = load_weights(row.weights(tmp_path))
        assert about["input_size"] == row.input_size
        assert about["about"].items() >= {"release": row.name, "source_sha256": line["sha256"],
                                          "AP_path": row.AP_path, "AP_readme": row.AP_readme}.items()
    assert load_weights(rows[0].weights(tmp_path))[1]["about"]["focus_order"] == "slices"
    before, times = len(server.log), [row.weights(tmp_path).stat().st_mtime_ns for row in rows]
    assert catalogue.main([*NAMES, "--cache", str(tmp_path), "--base", server.address]) == 0
    assert len(server.log) == before and times == [row.weights(tmp_path).stat().st_mtime_ns for row in rows]
    printed = capsys.readouterr().out
    assert re.search(r"s6_960_retrained +960 +64\.8 +63\.7 +\w{12} +imported", printed)


def test_without_a_network_what_was_put_there_by_hand_works_and_the_rest_says_how(official, tmp_path, capsys):
    (source := load_released()["s6_960"].source(tmp_path)).parent.mkdir()
    source.write_bytes(official["s6_960"])
    for _ in range(2):
        assert get_checkpoints(chosen(["s6_960"]), tmp_path, NOWHERE)[0]["state"] == "imported"
    assert read_json(tmp_path / "checksums.json")["s6_960"]["bytes"] == len(official["s6_960"])
    assert catalogue.main(["s6_960", "s6_640_ti_lite", "--cache", str(tmp_path), "--base", NOWHERE]) == 2
    message = capsys.readouterr().err
    assert "cannot be reached" in message and str(tmp_path / "s6_640_ti_lite" / "last.pt") in message
    assert f"{NOWHERE}yolov5s6_640_ti_lite_54p9_82p2/weights/last.pt" in message


def test_a_file_that_is_gone_is_named_and_the_others_come(server, tmp_path):
    person = next(row for row in load_released().values() if row.AP_readme is None)
    report = get_checkpoints([*chosen(["m6_960", "s6_960"]), person], tmp_path, server.address)
    states = {row["name"]: row["state"] for row in report}
    assert states["s6_960"] == "imported"
    assert states["m6_960"].startswith("not reached: ") and "404" in states["m6_960"]
    assert "67.4" in catalogue.table(report) and "not reached" in catalogue.table(report)
    line = rf"\n  {person.name} +{person.input_size} +{person.AP_path:.1f} +– +not reached: "
    assert re.search(re.escape(GROUPS[person.group]) + f":{line}", catalogue.table(report))
    with pytest.raises(StudyError, match="none of the 2 checkpoints"):
        get_checkpoints(chosen(["m6_960", "l6_960"]), tmp_path, server.address)


def test_what_changed_since_its_first_use_is_noticed(server, official, tmp_path, monkeypatch):
    row, base = load_released()["s6_960"], server.address
    path, source = row.weights(tmp_path), row.source(tmp_path)
    get_checkpoints([row], tmp_path, base)
    path.write_bytes(b"something else")
    with pytest.raises(StudyError, match="weights_sha256 differs"):
        get_checkpoints([row], tmp_path, base)
    path.unlink()
    get_checkpoints([row], tmp_path, base)
    monkeypatch.setattr(catalogue, "IMPORTER", 2)
    assert not catalogue.is_imported(row, tmp_path)
    get_checkpoints([row], tmp_path, NOWHERE)  # anew from the file, not from the network
    assert catalogue.is_imported(row, tmp_path) and sum(path.endswith(".pt") for path, *_ in server.log) == 1
    path.unlink()  # so that the source is needed again
    source.write_bytes(source.read_bytes() + b"x")
    with pytest.raises(StudyError, match=r"last\.pt: has .* bytes instead of"):
        get_checkpoints([row], tmp_path, base)
    source.unlink()
    server.files["/" + row.url("")] = official["s6_960_retrained"]  # the server swaps it, as it did in August 2022
    with pytest.raises(StudyError, match="SHA-256|bytes"):
        get_checkpoints([row], tmp_path, base)
    assert not path.exists()


def test_a_hostile_file_is_refused_loudly(server, tmp_path):
    effect = tmp_path / "ran"
    hostile = write_container(tmp_path / "hostile.pt", f"cos\nsystem\n(S'touch {effect}'\ntR.".encode())
    server.files["/" + load_released()["s6_960"].url("")] = hostile.read_bytes()
    with pytest.raises(StudyError, match="asks for .*system"):
        get_checkpoints(chosen(["s6_960", "s6_640_ti_lite"]), tmp_path, server.address)
    assert not effect.exists()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A few drawn people, with COCO's keypoints."""
    study = load_study("smoke")
    data = replace(study.profile.data, train=4, val=8, test_dev=4)
    return prepare_data(replace(study, profile=replace(study.profile, data=data),
                                data_dir=tmp_path_factory.mktemp("data") / "near"))


def study_of(results: Path, monkeypatch):
    """A study of the smoke profile that takes s6 from the released weights, here of a quarter of the width."""
    variant = replace(load_variants()["yolov5s6_pose_faithful"], name="yolov5x6_pose_faithful_dw6", width=0.125)
    variants, experiments = load_variants() | {"small": variant}, load_experiments()
    experiments = experiments | {name: replace(experiments[name], variant="small") for name in ("s6", "m6")}
    rows = {key: replace(row, input_size=64) for key, row in load_released().items()}
    monkeypatch.setattr("yolopose.study.config.load_variants", lambda: variants)
    monkeypatch.setattr("yolopose.study.config.load_experiments", lambda: experiments)
    monkeypatch.setattr(runs, "load_released", lambda: rows)
    study = load_study("smoke", results=results)
    profile = replace(study.profile, sizes={960: 64}, width_factor=1.0, experiments=("s6", "m6"),
                      train=replace(study.profile.train, epochs=0, initialisation="released"))
    return replace(study, profile=profile, experiments=("s6", "m6"))


def test_a_study_without_training(server, dataset, tmp_path, monkeypatch, capsys):
    """Import, estimate, evaluation and tables of runs that nobody trained; one of the files is gone."""
    study, cache, base = study_of(tmp_path / "results", monkeypatch), tmp_path / "cache", server.address
    report = runs.import_runs(study, dataset, cache, base=base)
    assert [row["state"][:8] for row in report] == ["imported", "not reac"]
    record = read_json(study.run_dir("s6", 0) / "run.json")
    assert record["config_hash"] == study.run("s6", 0).hash and record["data_fingerprint"] == dataset.fingerprint
    assert record["released"]["release"] == "s6_960" and record["train"]["images_seen"] == 0
    assert not record["comparable"]
    assert "404" in read_json(study.results_dir / "not_reached.json")["m6"]
    assert not study.run_dir("m6", 0).exists()
    alone = replace(study, experiments=("s6",))
    rows = runs.announce_evaluation(alone, dataset)
    assert rows[0]["images"] == len(dataset.val) + len(dataset.test_dev) and rows[0]["seconds_per_image"] > 0
    assert rows[0]["seconds"] == pytest.approx(rows[0]["seconds_per_image"] * rows[0]["images"], abs=0.1)
    assert "s6: 12 images at 64 px take about" in capsys.readouterr().out
    assert train_study(alone, dataset)[0]["images"] == 0  # there is nothing to train
    assert evaluate_study(alone, dataset)[0]["experiment"] == "s6"
    predictions = read_json(study.run_dir("s6", 0) / "predictions.json.gz")
    model, _ = load_weights(cache / "s6_960" / "weights.pt")
    assert predictions == predict_split(model.fuse(), dataset.val, 64, study.profile.evaluate, torch.device("cpu"))
    assert runs.announce_evaluation(alone, dataset) == []
    # a second time: nothing to do; what was gone is asked for again when its note is deleted
    server.log.clear()
    assert runs.import_runs(study, dataset, cache, base=base) == [] and server.log == []
    (study.results_dir / "not_reached.json").unlink()
    again = runs.import_runs(study, dataset, cache, base=base)
    assert [row["name"] for row in again] == ["m6_960"] and (study.results_dir / "not_reached.json").is_file()


def test_offline_a_study_makes_do_with_what_is_there_but_not_with_nothing(official, dataset, tmp_path, monkeypatch):
    study = study_of(tmp_path / "results", monkeypatch)
    with pytest.raises(StudyError, match=r"none of the checkpoints of s6, m6 .* no network; fetch http"):
        runs.import_runs(study, dataset, tmp_path, base=NOWHERE)
    assert not (study.results_dir / "not_reached.json").exists()
    (source := load_released()["s6_960"].source(tmp_path)).parent.mkdir()
    source.write_bytes(official["s6_960"])
    runs.import_runs(study, dataset, tmp_path, base=NOWHERE)
    assert (study.run_dir("s6", 0) / "weights.pt").is_file()
    assert "m6_960/best.pt" in read_json(study.results_dir / "not_reached.json")["m6"]


def test_the_others_are_reported_apart(server, dataset, tmp_path, monkeypatch, capsys):
    study, cache, base = study_of(tmp_path / "results", monkeypatch), tmp_path / "cache", server.address
    rows = {row["name"]: row for row in runs.evaluate_apart(study, dataset, cache, base=base)}
    written = {row["name"]: row for row in released_rows(study.results_dir)}
    assert set(rows) == set(written)
    assert set(rows) == {row.name for row in load_released().values() if row.group in ("paper", "retrained", "ti_lite")}
    for name in ("s6_960_retrained", "s6_640_ti_lite"):
        assert written[name]["verdict"] == NOT_COMPARABLE
        assert rows[name]["note"] == f"not COCO val2017: {rows[name]['images']} images of {dataset.name}"
        assert rows[name]["AP"] >= 0 and (study.results_dir / "released" / name / "metrics.json").is_file()
    assert written["s6_960"]["verdict"] == NOT_RUN and "experiment s6 was not run" in rows["s6_960"]["note"]
    assert "404" in rows["m6_960_retrained"]["note"] and rows["m6_960_retrained"]["AP_path"] == 67.8
    assert (written["s6_960_retrained"]["AP_path"], written["s6_960_retrained"]["AP_readme"]) == ("64.8", "63.7")
    assert "s6_960_retrained: 8 images at 64 px take about" in capsys.readouterr().out
    # kept while weights, data and settings are the same
    runs.evaluate_apart(study, dataset, cache, base=base)
    assert "take about" not in capsys.readouterr().out
    changed = replace(study, profile=replace(study.profile, evaluate=replace(study.profile.evaluate, nms_iou=0.5)))
    runs.evaluate_apart(changed, dataset, cache, base=base)
    assert "s6_960_retrained: 8 images" in capsys.readouterr().out


def test_verdicts_need_coco_and_a_tenth_of_a_point(dataset, tmp_path, monkeypatch):
    study = study_of(tmp_path, monkeypatch)
    study = replace(study, profile=replace(study.profile, comparable=True))
    coco, row = replace(dataset, is_coco2017=True), load_released()["s6_960_retrained"]

    def line(ap: float, images: int = 2346, data=coco) -> dict:
        scores = {"AP": ap / 100, "AP50": 0.8, "images": images}
        found = runs._line(study, data, row, {"val": scores, "val_all": scores, "val_box": scores}, "")
        write_csv(tmp_path / "released.csv", [found], runs.COLUMNS)
        return released_rows(tmp_path)[0]

    assert line(64.71)["verdict"] == line(64.89)["verdict"] == line(64.9)["verdict"] == REPRODUCED
    assert line(64.69)["verdict"] == line(64.95)["verdict"] == NOT_REPRODUCED
    assert line(64.95)["difference"] == 0.15 and line(64.95)["tolerance"] == 0.1
    assert line(64.8, images=80)["verdict"] == line(64.8, data=dataset)["verdict"] == NOT_COMPARABLE


def test_weights_of_another_model_or_size_are_no_run(server, dataset, tmp_path, monkeypatch):
    study = study_of(tmp_path / "results", monkeypatch)
    get_checkpoints(chosen(["s6_640_ti_lite", "s6_960"]), tmp_path, server.address)
    for name, words in (("s6_640_ti_lite", "variant is .*profiles\\.yaml"), ("s6_960", "input_size is 960")):
        with pytest.raises(StudyError, match=rf"weights\.pt: {words}"):
            runs._import_as_run(study.run("s6", 0), dataset, tmp_path / "run", tmp_path / name / "weights.pt")
    assert not (tmp_path / "run").exists()
    with pytest.raises(StudyError, match="s6_l1: no checkpoint of it was released"):
        runs.import_runs(replace(study, experiments=("s6_l1",)), dataset, tmp_path)


def test_the_profile_asks_for_the_released_heads_and_drops_what_was_not_reached(tmp_path):
    (tmp_path / "annotations").mkdir()
    study = load_study("checkpoints", data=tmp_path, results=tmp_path / "results")
    assert study.released and not load_study("smoke").released
    assert [run.experiment.name for run in study.runs()] == ["s6", "m6", "l6", "s6_r640"]
    for run in study.runs():
        assert run.variant.head == "faithful" and run.variant.name == f"{run.experiment.variant}_faithful"
        assert run.train.epochs == 0 and run.comparable and run.width_factor == 1
    write_json(tmp_path / "results" / "not_reached.json", {"l6": "not reached: no network"})
    assert [run.experiment.name for run in study.runs()] == ["s6", "m6", "s6_r640"]
