"""The study's definitions: names, resolution, and what is said about mistakes in them."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal, get_origin

import pytest

from yolopose.study import config
from yolopose.study.config import STUDY, load_profiles, load_study
from yolopose.study.paper import REFERENCE_DIR
from yolopose.utils.errors import StudyError


def test_every_profile_resolves_all_its_runs_detectors_before_what_they_initialise(tmp_path):
    (tmp_path / "annotations").mkdir()
    for name, profile in load_profiles().items():
        runs = load_study(name, data=tmp_path if profile.data.source == "folder" else None).runs()
        assert runs and all(run.input_size % 64 == 0 for run in runs)
        assert len({run.hash for run in runs}) == len(runs), "two runs of a study must not share a hash"
        order = [run.name for run in runs]
        assert all(order.index(run.detector) < order.index(run.name) for run in runs if run.detector)
    detectors = {run.name: run.detector for run in load_study("smoke").runs()}
    assert detectors["s6/seed0"] == "s6_person/seed0" and detectors["s6_person/seed0"] is None


def test_headline_run_of_the_paper_profile_is_the_papers_recipe(tmp_path):
    run = load_study("paper", data=tmp_path).run("s6", 0)
    assert (run.input_size, run.width_factor, run.comparable) == (960, 1.0, True)
    assert (run.train.epochs, run.train.lr, run.train.optimizer) == (300, 0.01, "sgd")
    assert (run.augment.mosaic, run.augment.scale, run.augment.translate, run.augment.flip) == (1.0, 0.5, 0.1, 0.5)
    assert (run.evaluate.confidence, run.evaluate.nms_iou) == (0.001, 0.65)


def test_hash_follows_what_changes_numbers_and_nothing_else(tmp_path):
    run = load_study("smoke").run("s6", 0)
    assert run.hash == load_study("smoke", results=tmp_path, device="cpu").run("s6", 0).hash
    assert run.hash not in {other.hash for other in (load_study("smoke").run("s6", 1), load_study("smoke").run("m6", 0),
                                                     replace(run, train=replace(run.train, lr=0.02)))}


@pytest.mark.parametrize("ablations", [False, True])
def test_committed_runs_have_the_hash_and_the_configuration_of_today(ablations):
    study = load_study("mini", ablations=ablations)
    folder = REFERENCE_DIR / "mini" / ("ablations" if ablations else ".")
    records = {path.parent.parent.name: json.loads(path.read_text()) for path in folder.glob("*/seed0/run.json")}
    assert set(study.experiments) <= set(records)
    for name, record in records.items():
        run = study.run(name, 0)
        assert (record["config_hash"], record["config"]) == (run.hash, run.as_dict()), name


def test_data_replaces_the_data_set_and_names_the_results(tmp_path):
    ((folder := tmp_path / "my-coco") / "annotations").mkdir(parents=True)
    study = load_study("smoke", data=folder)
    assert study.results_dir == Path("results/smoke-my-coco")
    assert study.profile.data.source == "folder" and study.data_dir == folder
    assert study.run("s6", 0).hash != load_study("smoke").run("s6", 0).hash


@pytest.mark.parametrize("seeds, expected", [("", (0,)), (None, (0,)), ("0 1 2", (0, 1, 2)), ("3,5", (3, 5)),
                                             ([7], (7,)), ("0 1 0", (0, 1))])
def test_seeds(seeds, expected):
    assert load_study("smoke", seeds=seeds).seeds == expected


@pytest.mark.parametrize("arguments, words", [
    ({"profile": "mnii"}, ["PROFILE='mnii'", "did you mean 'mini'", "smoke"]),
    ({"data": "/no/such/folder"}, ["DATA=/no/such/folder", "no such folder", "annotations/"]),
    ({"profile": "paper"}, ["PROFILE=paper", "needs DATA="]),
    *(({"seeds": seeds}, [f"SEEDS={seeds!r}", "integers"]) for seeds in (
        "one", "-1", "0 -2", "x", "1.5", "1_0", "٣", str(2**32), "1" * 5000)),
    *(({key: "a\nb"}, [f"{key.upper()}='a\\nb'", "line break"]) for key in ("data", "results")),
    *(({"results": path}, [f"RESULTS={path!r}", "nobody"]) for path in ("~no-such-user/x", "a\udcff")),
    ({"data": STUDY}, [f"DATA={STUDY}: is no folder in COCO layout", "annotations/"]),
    ({"data": STUDY, "profile": "paper"}, ["is no folder in COCO layout", "new or empty folder"]),
    *(({"device": device}, [f"DEVICE={device!r}", "cuda"]) for device in ("tpu", "cudax", "cuda:", "gpu", "cuda:x")),
])
def test_bad_arguments_get_one_message_with_the_remedy(arguments, words):
    with pytest.raises(StudyError) as caught:
        load_study(**{"profile": "smoke"} | arguments)
    assert all(word in str(caught.value) for word in words), caught.value


def test_an_experiment_that_cannot_be_run_is_refused():
    for experiment, message in (("s6_faithfull", "'s6_faithfull' does not exist; did you mean 's6_faithful'"),
                                ("s6_r576", r"profiles\.yaml: smoke\.sizes: has no size for the paper's 576 px")):
        with pytest.raises(StudyError, match=message):
            load_study("smoke").run(experiment, 0)


@pytest.fixture
def files(monkeypatch, tmp_path) -> Path:
    """The folder of a copy of the study's files, which is read in place of them."""
    for source in config.STUDY.glob("*.yaml"):
        (tmp_path / source.name).write_text(source.read_text())
    monkeypatch.setattr(config, "STUDY", tmp_path)
    for name in ("load_variants", "load_experiments", "load_profiles"):  # they are not remembered
        monkeypatch.setattr(config, name, getattr(config, name).__wrapped__)
    return tmp_path


@pytest.mark.parametrize("file, old, new, message", [
    ("variants", "depth: 0.33", "deph: 0.33", "unknown key 'deph'; did you mean 'depth'"),
    ("variants", "width: 0.50, ", "", "yolov5s6_pose: missing .*'width'"),
    ("variants", "head: repaired", "head: repared", r"yolov5s6_pose\.head: 'repared' is none of repaired, faithful"),
    ("variants", "yolov5s6_pose:          {", "yolov5s6_pose: 3 #", "yolov5s6_pose: must be a mapping"),
    ("experiments", "variant: yolov5s6_pose,", "variant: yolov5s_pose,",
     r"s6\.variant: unknown variant 'yolov5s_pose'; did you mean 'yolov5s6_pose'"),
    ("experiments", "detector: s6_person", "detector: s7_person", r"s6\.detector: unknown experiment 's7_person'"),
    ("experiments", "loss: official", "loss: oks", r"s6\.loss: 'oks' is none of official, paper_eq"),
    ("profiles", "smoke:", "smoke: [1", "cannot be read as YAML"),
    ("profiles", "experiments: [s6,", "experiments: [s66,", r"smoke\.experiments: unknown experiment 's66'.*'s6'"),
    ("profiles", "experiments: [s6, s6_l1_scaled", "experiments: [s66, s6_l1_scaled",
     r"smoke\.ablations\.experiments: unknown experiment 's66'"),
    ("profiles", "variants: {s6:", "variants: {s66:", r"checkpoints\.variants: unknown experiment 's66'"),
    ("profiles", "m6: yolov5m6_pose_faithful", "m6: yolov5m7", r"variants\.m6: unknown variant 'yolov5m7'"),
    ("profiles", "evaluate: {batch_size: 12}", "evaluate: 12", r"smoke\.evaluate: must be a mapping"),
    ("profiles", "train: {epochs: 1, initialisation: scratch}", "train: {epoch: 1}",
     r"smoke\.ablations\.train: unknown key 'epoch'"),
    ("profiles", "train: {epochs: 1, initialisation: scratch}", "train: {optimizer: adam}",
     r"smoke\.ablations\.train\.optimizer: 'adam' is none of sgd, adamw"),
    *[("profiles", "epochs: 2\n", f"epochs: {value}\n", rf"smoke\.train\.epochs: {said}") for value, said in (
        ("two", "must be a whole number, not 'two'"), ("true", "must be a whole number, not True"),
        ("-1", "must be from 0, not -1"), ("2.5", "must be a whole number, not 2.5"), ("0", "must be from 1"),
        ("[2]", "must be a whole number, not a list"),
        ("9" * 400, "must be a whole number of usual size, not a huge number"), (".inf", "must be a whole number"),
        ("2024-02-01", "must be a whole number, not datetime.date"))],
    ("profiles", "batch_size: 16", "batch_size: 0", r"smoke\.train\.batch_size: must be from 1, not 0"),
    ("profiles", "ema_decay: 0.9\n", "ema_decay: .nan\n", r"train\.ema_decay: must be a number of usual size, not nan"),
    ("profiles", "ema_decay: 0.9\n", "ema_decay: 1.5\n", r"train\.ema_decay: must be from 0 up to 1, not 1\.5"),
    ("profiles", "lr: 0.004", "lr: 1e-3", r"mini\.train\.lr: must be a number, not '1e-3'"),
    ("profiles", "lr: 0.004", "lr: 0", r"mini\.train\.lr: must be above 0, not 0"),
    ("profiles", "seeds: [0, 1]", "seeds: [0, one]", r"smoke\.ablations\.seeds\.1: must be a whole number, not 'one'"),
    ("profiles", "seeds: [0, 1]", "seeds: [0, 4294967296]", r"smoke\.ablations\.seeds\.1: must be from 0 up to 4"),
    ("profiles", "seeds: [0, 1]", "seeds: []", r"smoke\.ablations\.seeds: must have a length from 1"),
    ("profiles", "640: 64}", "640: 100}", r"smoke\.sizes\.640: must be from 64 up to 8192 in steps of 64, not 100"),
    ("profiles", "640: 64}", "640px: 64}", r"smoke\.sizes\.640px: must be a whole number, not '640px'"),
    ("profiles", "comparable: false", "comparable: 0", r"smoke\.comparable: must be true or false, not 0"),
    ("profiles", "train: 96", "train: -96", r"smoke\.data\.train: must be from 1, not -96"),
    ("profiles", "obj: 2.0", "objectness: 2.0", r"gains\.official\.objectness: 'objectness' is none of box"),
    ("profiles", "obj: 2.0", "obj: -2.0", r"mini\.train\.gains\.official\.obj: must be from 0, not -2"),
    ("profiles", "validate_images: 12", "epochs: 3", "the key 'epochs' is there twice"),
    ("profiles", "  evaluate: {batch_size: 12}", "  train: &x [1]\n  evaluate: *x", "YAML: aliases are not"),
    ("profiles", "smoke:", "smoke: !!python/object:os.system {}\nsmoke2:", "YAML: could not determine"),
    ("profiles", "smoke:", f"smoke: {'[' * 3000}", "nested too deeply"),
    ("profiles", "smoke:", "smoke: 2024-13-45\nsmoke2:", "cannot be read as YAML: month"),
    ("profiles", "smoke:", "../smoke:", r"'?\.\./smoke'?: must be a name of letters"),
    ("experiments", "s6: ", "s6: {}\ns6: ", "the key 's6' is there twice"),
    ("experiments", "s6:          {", "s6:          {name: l6, ", r"s6: unknown key 'name'"),
    ("experiments", "input_size: 960", "input_size: '960'", r"s6\.input_size: must be a whole number, not '960'"),
    ("variants", "depth: 0.33", "depth: 1.0e+6", r"yolov5s6_pose\.depth: must be above 0 up to 10"),
])
def test_mistakes_in_the_study_files_name_file_and_key(files, file, old, new, message):
    path = files / f"{file}.yaml"
    assert old in (text := path.read_text())
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(StudyError, match=rf"{file}\.yaml: .*{message}"):
        config.load_profiles()


@pytest.mark.parametrize("cls, named", [
    (config.Variant, {"family", "activation", "head", "stem"}), (config.Experiment, {"loss", "initialisation"}),
    (config.Profile, {"download"}), (config.DataConfig, {"source", "difficulty"}),
    (config.TrainConfig, {"optimizer", "anchors", "initialisation", "keypoint_prior"}),
])
def test_a_wrong_word_never_chooses_another_method_in_silence(cls, named):
    assert {field.name for field in fields(cls) if get_origin(field.type) is Literal} == named
