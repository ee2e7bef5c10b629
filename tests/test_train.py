"""Training: gains, anchors, transfer, exact resume, refusal of stale results."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import yolopose.models.checkpoints as checkpoints
from tests.tiny import CPU, at_step, files, tiny_run, train_elsewhere, wait_for
from yolopose.data.coco import load_dataset
from yolopose.data.synthetic.generate import SyntheticSpec, generate
from yolopose.models.checkpoints import load_state, load_weights, save_state, transfer_weights
from yolopose.models.decode import decode
from yolopose.models.yolov5 import build_model
from yolopose.study.config import load_study, load_variants
from yolopose.study.freshness import check_fresh
from yolopose.training.recipe import best_possible_recall, choose_anchors, fit_anchors, run_gains
from yolopose.training.runs import clear_outputs
from yolopose.training.trainer import Trainer
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_csv, read_json


def test_a_run_writes_its_files_and_learns(tiny_data, tmp_path):
    gains = {"official": {"box": 0.1, "obj": 1.0, "kpt": 0.1, "kpt_conf": 0.01}}
    run = tiny_run(12, lr=0.003, optimizer="adamw", gains=gains, anchor_threshold=4.0)
    record = Trainer(run, tiny_data, tmp_path, CPU).fit()
    curve = read_csv(tmp_path / "curve.csv")
    assert [int(row["epoch"]) for row in curve] == list(range(1, 13))
    assert float(curve[-1]["loss_box"]) < 0.95 * float(curve[0]["loss_box"])
    assert record == read_json(tmp_path / "run.json")
    assert {"config_hash", "data_fingerprint", "weights_sha256", "git", "packages", "hardware"} <= set(record)
    assert not (tmp_path / "checkpoint.pt").exists()
    model, about = load_weights(tmp_path / "weights.pt")
    assert about["num_keypoints"] == 3 and model.detect.num_outputs == 15


def test_resumed_run_equals_an_uninterrupted_one_to_the_byte(tiny_data, whole, tmp_path):
    def cut() -> None:
        raise KeyboardInterrupt

    for steps in (1, 3, 2, 1):  # four kills, some within an accumulation, each checkpoint one batch old at most
        trainer = Trainer(tiny_run(), tiny_data, tmp_path, CPU, checkpoint_seconds=0)
        at_step(trainer, steps + 1, cut)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
    Trainer(tiny_run(), tiny_data, tmp_path, CPU, checkpoint_seconds=0).fit()
    assert files(tmp_path) == files(whole)


def test_killed_process_resumes(tiny_data, tmp_path):
    """SIGKILL at some moment of a real process; what it leaves can be gone on from."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process, other = (train_elsewhere(tiny_data, to, tiny_run(3), checkpoint_seconds=0) for to in (killed, whole))
    wait_for(killed / "checkpoint.pt", process.is_alive)
    process.kill()
    process.join()
    assert (killed / "checkpoint.pt").exists() or (killed / "run.json").exists()
    again = train_elsewhere(tiny_data, killed, tiny_run(3), checkpoint_seconds=0)
    again.join()
    other.join()
    assert again.exitcode == other.exitcode == 0 and files(killed) == files(whole)


def test_a_full_disk_loses_minutes_not_the_run(tiny_data, whole, tmp_path, monkeypatch):
    """The disk fills up while a checkpoint is written; with room again the run ends as if nothing had happened."""
    save, calls = torch.save, []

    def full(state, file):
        calls.append(1)
        if len(calls) == 3:
            file.write(b"half of a checkpoint")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, file)

    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(StudyError, match=r"checkpoint.pt: no space left on the disk; free some and repeat"):
        Trainer(tiny_run(), tiny_data, tmp_path, CPU, checkpoint_seconds=0).fit()
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".json") == ["checkpoint.pt"]
    monkeypatch.undo()
    Trainer(tiny_run(), tiny_data, tmp_path, CPU).fit()
    assert files(tmp_path) == files(whole)


def test_scores_of_other_weights_do_not_survive_a_new_training(tmp_path):
    for name in ("metrics.json", "predictions.json.gz", "x_results.zip", ".checkpoint.pt.123", "checkpoint.pt"):
        (tmp_path / name).touch()
    clear_outputs(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_checkpoint_of_another_configuration_and_a_stale_result_are_refused(tiny_data, whole, tmp_path):
    Trainer(tiny_run(), tiny_data, tmp_path, CPU)._save()
    with pytest.raises(StudyError, match=r"checkpoint.pt: was made with another config_hash.*RESULTS="):
        Trainer(tiny_run(lr=0.5), tiny_data, tmp_path, CPU)
    check_fresh(tiny_run(), tiny_data.fingerprint, whole)
    with pytest.raises(StudyError, match=r"run.json: was made by another configuration \(train.lr: 0.01 → 0.5\)"):
        check_fresh(tiny_run(lr=0.5), tiny_data.fingerprint, whole)
    with pytest.raises(StudyError, match=f"data fingerprint: {tiny_data.fingerprint[:12]} → other"):
        check_fresh(tiny_run(), "other", whole)


def test_gains_come_from_the_profile_or_the_loss():
    assert run_gains(tiny_run())["obj"] == pytest.approx((64 / 640) ** 2 * 0.75)
    given = {"box": 1, "obj": 2, "kpt": 3, "kpt_conf": 4}
    assert run_gains(tiny_run(gains={"official": given})) == {"cls": 0.0, **given}
    with pytest.raises(StudyError, match="train.gains.official: give the word derived"):
        run_gains(tiny_run(gains={"official": {"box": 1}}))


def test_anchors_fit_what_they_are_fitted_to(tiny_data):
    with pytest.raises(StudyError, match=r"train.anchors: coco anchors match only .* set anchors: auto"):
        choose_anchors(tiny_run(anchor_threshold=1.01), tiny_data)
    sides = np.tile(np.float32([[10, 20], [12, 22], [100, 50], [110, 55], [300, 300], [20, 80]]), (20, 1))
    sides *= 1 + 0.01 * np.arange(120, dtype=np.float32)[:, None] / 120
    anchors = fit_anchors(sides)
    assert anchors.shape == (4, 3, 2) and (np.diff(anchors.prod(-1).ravel()) >= 0).all()
    assert best_possible_recall(sides, anchors, 1.2) == 1.0 and best_possible_recall(sides, anchors * 10) < 0.5
    with pytest.raises(ValueError, match="12 anchors need"):
        fit_anchors(sides[:3])


@pytest.mark.parametrize("name", ["yolov5s6_pose", "yolov5s6_pose_faithful"])
def test_mean_pose_prior_is_what_an_empty_head_predicts(name):
    model = build_model(load_variants()[name], 3, 0.125)
    for parameter in model.detect.parameters():
        torch.nn.init.zeros_(parameter)
    pose = torch.tensor([[0.0, -0.5], [0.25, 0.0], [-0.25, 0.5]])
    model.detect.add_mean_pose(pose)
    decoded = decode(model.eval()(torch.rand(1, 3, 64, 64)), model.detect)[0]
    anchors = torch.cat([a.repeat_interleave((64 // s) ** 2, 0) for a, s in
                         zip(model.detect.anchors_px, model.detect.strides, strict=True)])
    keypoints = decoded[:, 6:].unflatten(1, (3, 3))[..., :2]
    torch.testing.assert_close(keypoints - decoded[:, None, :2], pose * anchors[:, None], atol=1e-4, rtol=1e-4)


def test_detector_gives_backbone_neck_and_box_branch():
    variants = load_variants()
    detector = build_model(variants["yolov5s6_person"], 17, 0.125, seed=1)
    model = build_model(variants["yolov5s6_pose"], 17, 0.125, seed=2)
    fresh = {k: v.clone() for k, v in model.state_dict().items() if "m_kpt" in k}
    names = transfer_weights(model, detector.state_dict())
    assert "model.33.m.0.weight" in names and not any("m_kpt" in n or "anchor" in n for n in names)
    state = model.state_dict()
    assert all(torch.equal(state[n], detector.state_dict()[n]) for n in names)
    assert all(torch.equal(state[n], v) for n, v in fresh.items())
    with pytest.raises(StudyError, match="person detector does not fit"):  # of another width
        transfer_weights(model, build_model(variants["yolov5s6_person"], 17, 0.25).state_dict())


def test_weights_round_trip_and_refusals(tmp_path):
    save_state(tmp_path / "plain.pt", {"a": torch.arange(3), "b": [1.5, "x"]})
    state = load_state(tmp_path / "plain.pt")
    assert state["a"].tolist() == [0, 1, 2] and state["b"] == [1.5, "x"]
    (tmp_path / "short.pt").write_bytes((tmp_path / "plain.pt").read_bytes()[:100])

    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"format": Hostile()}, tmp_path / "hostile.pt")
    for name, words in (("plain", "format is None"), ("short", "is not a file of plain tensors"),
                        ("hostile", "is not a file of plain tensors"), ("absent", "not found")):
        with pytest.raises(StudyError, match=rf"{name}\.pt: {words}"):
            load_weights(tmp_path / f"{name}.pt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(("profile", "size"), [("gpu", 320), ("paper", 960)])
def test_full_scale_profiles_take_a_step_at_true_width(profile, size, tmp_path):
    """What no CPU trains to the end: the profile's own recipe, width and input size on a few drawn images."""
    root, paper = tmp_path / "coco", profile == "paper"
    generate(root, SyntheticSpec("coco", 640, train=8, val=2, test_dev=1), workers=1, progress=False)
    run = load_study(profile, data=root).run("s6", 0)
    short = {"epochs": 1, "batch_size": 1, "workers": 0, "validate_images": 0, "initialisation": "scratch"}
    short |= {"anchor_threshold": 8.0} if paper else {}  # a handful of drawn people need not fit COCO's anchors
    run = replace(run, train=replace(run.train, **short))
    assert (run.input_size, run.width_factor) == (size, 1.0)
    # Anchors are fitted where the profile says so, which takes some boxes.
    dataset = load_dataset(root, {"train": 2 if paper else 8, "val": 2, "test_dev": 1})
    record = Trainer(run, dataset, tmp_path / "run", CPU).fit()
    assert record["train"]["images_seen"] == len(dataset.train)
    assert record["parameters"] == 15114860
    assert not record["comparable"]  # not COCO 2017, whatever the profile
