"""The study's definitions: names, resolution, and what is said about mistakes in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from yolopose.study import config
from yolopose.study.config import load_experiments, load_profiles, load_study, load_variants
from yolopose.utils.errors import StudyError


def edit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, change: tuple[str, str]) -> None:
    """Load the study from a copy of its folder in which ``change`` = (old, new) was made in ``file``."""
    for source in config.STUDY.glob("*.yaml"):
        (tmp_path / source.name).write_text(source.read_text())
    text = (tmp_path / file).read_text()
    assert change[0] in text
    (tmp_path / file).write_text(text.replace(*change, 1))
    monkeypatch.setattr(config, "STUDY", tmp_path)
    for cached in (load_variants, load_experiments, load_profiles):
        cached.cache_clear()


@pytest.fixture(autouse=True)
def _fresh_caches():
    yield
    for cached in (load_variants, load_experiments, load_profiles):
        cached.cache_clear()


def test_every_profile_resolves_all_its_runs(tmp_path):
    for name, profile in load_profiles().items():
        study = load_study(name, data=tmp_path if profile.data.source == "folder" else None)
        runs = study.runs()
        assert runs and all(run.input_size % 64 == 0 for run in runs)
        assert len({run.hash for run in runs}) == len(runs), "two runs of a study must not share a hash"


def test_detectors_come_before_the_runs_that_they_initialise():
    study = load_study("smoke")
    order = list(study.experiments)
    for name in order:
        detector = load_experiments()[name].detector
        assert detector is None or order.index(detector) < order.index(name)


def test_headline_run_of_the_paper_profile_is_the_papers_recipe(tmp_path):
    run = load_study("paper", data=tmp_path).run("s6", 0)
    assert (run.input_size, run.width_factor, run.comparable) == (960, 1.0, True)
    assert (run.train.epochs, run.train.lr, run.train.optimizer) == (300, 0.01, "sgd")
    assert (run.augment.mosaic, run.augment.scale, run.augment.translate, run.augment.flip) == (1.0, 0.5, 0.1, 0.5)
    assert (run.evaluate.confidence, run.evaluate.nms_iou) == (0.001, 0.65)


def test_hash_follows_what_changes_numbers_and_nothing_else(tmp_path):
    run = load_study("smoke").run("s6", 0)
    assert run.hash == load_study("smoke", results=tmp_path, device="cpu").run("s6", 0).hash
    assert run.hash != load_study("smoke").run("s6", 1).hash
    assert run.hash != load_study("smoke").run("m6", 0).hash
    assert run.hash != replace(run, train=replace(run.train, lr=0.02)).hash


def test_data_replaces_the_data_set_and_names_the_results(tmp_path):
    folder = tmp_path / "my-coco"
    folder.mkdir()
    study = load_study("smoke", data=folder)
    assert study.results_dir == Path("results/smoke-my-coco")
    assert study.profile.data.source == "folder" and study.data_dir == folder
    assert study.run("s6", 0).hash != load_study("smoke").run("s6", 0).hash


@pytest.mark.parametrize("seeds, expected", [("", (0,)), (None, (0,)), ("0 1 2", (0, 1, 2)), ("3,5", (3, 5)),
                                             ([7], (7,))])
def test_seeds(seeds, expected):
    assert load_study("smoke", seeds=seeds).seeds == expected


@pytest.mark.parametrize("arguments, words", [
    ({"profile": "mnii"}, ["PROFILE='mnii'", "did you mean 'mini'", "smoke"]),
    ({"profile": "smoke", "data": "/no/such/folder"}, ["DATA=/no/such/folder", "no such folder", "annotations/"]),
    ({"profile": "paper"}, ["PROFILE=paper", "needs DATA="]),
    ({"profile": "smoke", "seeds": "one"}, ["SEEDS='one'", "integers"]),
    ({"profile": "smoke", "device": "tpu"}, ["DEVICE='tpu'", "cuda"]),
])
def test_bad_arguments_get_one_message_with_the_remedy(arguments, words):
    with pytest.raises(StudyError) as caught:
        load_study(**arguments)
    assert all(word in str(caught.value) for word in words), caught.value


def test_unknown_experiment_names_the_nearest():
    with pytest.raises(StudyError, match="'s6_faithfull' does not exist; did you mean 's6_faithful'"):
        load_study("smoke").run("s6_faithfull", 0)


def test_size_without_mapping_names_the_key():
    with pytest.raises(StudyError, match=r"profiles\.yaml: smoke\.sizes: has no size for the paper's 576 px"):
        load_study("smoke").run("s6_r576", 0)


@pytest.mark.parametrize("file, change, words", [
    ("variants.yaml", ("depth: 0.33", "deph: 0.33"), ["variants.yaml", "unknown key 'deph'", "'depth'"]),
    ("variants.yaml", ("width: 0.50, ", ""), ["variants.yaml", "yolov5s6_pose", "width"]),
    ("experiments.yaml", ("variant: yolov5s6_pose,", "variant: yolov5s_pose,"),
     ["experiments.yaml", "s6.variant", "unknown variant 'yolov5s_pose'", "'yolov5s6_pose'"]),
    ("experiments.yaml", ("detector: s6_person", "detector: s7_person"),
     ["experiments.yaml", "s6.detector", "s7_person"]),
    ("profiles.yaml", ("experiments: [s6,", "experiments: [s66,"), ["profiles.yaml", "experiments", "'s66'", "'s6'"]),
    ("profiles.yaml", ("epochs: 2", "epoch: 2"), ["profiles.yaml", "smoke.train", "unknown key 'epoch'", "'epochs'"]),
    ("profiles.yaml", ("smoke:", "smoke: [1"), ["profiles.yaml", "YAML"]),
])
def test_mistakes_in_the_study_files_name_file_and_key(monkeypatch, tmp_path, file, change, words):
    edit(monkeypatch, tmp_path, file, change)
    with pytest.raises(StudyError) as caught:
        load_study("smoke")
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(("file", "old", "new", "message"), [
    ("variants.yaml", "head: repaired", "head: repared", r"variants.yaml: .*\.head: 'repared' is none of repaired"),
    ("experiments.yaml", "loss: official", "loss: oks", r"experiments.yaml: .*\.loss: 'oks' is none of official"),
    ("profiles.yaml", "anchors: auto", "anchors: atuo", r"train\.anchors: 'atuo' is none of coco, auto"),
    ("profiles.yaml", "keypoint_prior: mean_pose", "keypoint_prior: meanpose", r"train\.keypoint_prior: 'meanpose'"),
    ("profiles.yaml", "initialisation: person_detector", "initialisation: detector", r"train\.initialisation"),
    ("profiles.yaml", "optimizer: adamw", "optimizer: adam", r"train\.optimizer: 'adam' is none of sgd, adamw"),
])
def test_a_wrong_word_never_chooses_another_method_in_silence(tmp_path, monkeypatch, file, old, new, message):
    from yolopose.study import config

    for source in config.STUDY.glob("*.yaml"):
        text = source.read_text()
        (tmp_path / source.name).write_text(text.replace(old, new, 1) if source.name == file else text)
    loaders = (config.load_variants, config.load_experiments, config.load_profiles)
    monkeypatch.setattr(config, "STUDY", tmp_path)
    for loader in loaders:
        loader.cache_clear()
    try:
        with pytest.raises(StudyError, match=message):
            config.load_profiles()
    finally:
        monkeypatch.undo()
        for loader in loaders:
            loader.cache_clear()


@pytest.mark.parametrize("seeds", ["-1", "0 -2", "x", "1.5"])
def test_seeds_are_integers_from_zero_on(seeds):
    with pytest.raises(StudyError, match="SEEDS="):
        load_study("mini", seeds=seeds)


def test_a_seed_given_twice_counts_once():
    assert load_study("mini", seeds="0 1 0").seeds == (0, 1)


@pytest.mark.parametrize("device", ["cudax", "cuda:", "gpu", "cuda:x"])
def test_a_device_is_auto_cpu_or_cuda(device):
    with pytest.raises(StudyError, match="DEVICE="):
        load_study("mini", device=device)
