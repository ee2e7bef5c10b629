"""What the ablations train: losses, heads and schedules that differ in one thing, and the command that runs the set."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.test_run import executed  # noqa: F401  (a fixture)
from tests.tiny import CPU, tiny_run
from yolopose.data.loader import TrainLoader
from yolopose.models.losses import LOSSES, compute_loss, effective_gains, keypoint_terms, sigma_widening
from yolopose.models.yolov5 import build_model
from yolopose.study.config import load_profiles, load_study, load_variants
from yolopose.study.paper import REFERENCE_DIR
from yolopose.training import tune
from yolopose.training.recipe import run_gains
from yolopose.training.trainer import Trainer
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json
from yolopose.workflow import run

# --- losses ----------------------------------------------------------------------------------------------------------

def test_each_loss_by_hand():
    """Person 0: one joint off by (3, −1) cells, one exact; person 1: one joint off by (0, 2), the other absent. Boxes
    of 3 × 4 and 6 × 8 cells."""
    target = torch.tensor([[[4.0, 4, 2], [4, 4, 1]], [[4.0, 4, 2], [0, 0, 0]]])  # 0.5 cells at stride 8
    pred = torch.full((2, 2, 3), 0.5)  # decodes to 0.5 cells
    pred[0, 0, :2] += torch.tensor([1.5, -0.5])
    pred[1, 0, :2] += torch.tensor([0.0, 1.0])
    size, sigmas = torch.tensor([[3.0, 4.0], [6.0, 8.0]]), torch.tensor([0.5, 0.5])
    official = [1 - math.exp(-10 / (4 * 0.25 * 12)), 0.0, 1 - math.exp(-4 / (4 * 0.25 * 48))]
    halved = [1 - math.exp(-10 / (8 * 0.25 * 12)), 0.0, 1 - math.exp(-4 / (8 * 0.25 * 48))]
    for loss, expected in (("l1", [(4 + 0 + 2) / 3]), ("l1_scaled", [(4 / 5 + 0 + 2 / 10) / 3]),  # by diagonals
                           ("official", [sum(official) / 3]), ("oks_factor8", [sum(halved) / 3]),
                           ("oks_person", [official[0] / 2, official[2]]), ("paper_eq", [halved[0] / 2, halved[2]])):
        found = keypoint_terms(pred, target, torch.zeros(2, 2), 8, size, sigmas, loss)["kpt"]
        assert found.tolist() == pytest.approx(expected), loss


def one_person(loss: str, share: float | None, progress: float = 1.0) -> float:
    """The keypoint term of a whole batch: an untrained head and one person."""
    model = build_model(load_variants()["yolov5s6_pose"], 1, 0.125, seed=0).eval()
    row = [0.0, 0, 32, 32, 30, 40, 30, 30, 2] + ([] if share is None else [share])
    raw = model(torch.full((1, 3, 64, 64), 0.5))
    gains = {"box": 0.0, "obj": 0.0, "cls": 0.0, "kpt": 1.0, "kpt_conf": 0.0}
    return compute_loss(raw, torch.tensor([row]), model.detect, torch.tensor([0.1]), loss, gains,
                        progress=progress).items["kpt"].item()


def test_segment_area_replaces_the_boxs_and_annealed_sigmas_end_as_official():
    assert one_person("oks_segment", 1.0) == pytest.approx(one_person("official", None))
    # half the area in the official exponent is what factor 2 would be; twice the area is factor 8 with the box's
    assert one_person("oks_segment", 2.0) == pytest.approx(one_person("oks_factor8", None))
    assert one_person("oks_segment", 0.5) > one_person("official", None)
    assert [sigma_widening(p) for p in (0.0, 0.25, 0.5, 0.9)] == pytest.approx([4.0, 2.0, 1.0, 1.0])
    assert one_person("oks_annealed", None, progress=0.5) == pytest.approx(one_person("official", None))
    assert one_person("oks_annealed", None, progress=0.0) < one_person("official", None)


def test_a_far_joint_has_a_gradient_with_l1_and_none_with_oks():
    for loss, expected in (("official", 0.0), ("l1", 2.0), ("l1_scaled", 2 / 5)):
        pred = torch.tensor([[[200.0, 0.25, 0.0]]], requires_grad=True)
        target, size = torch.tensor([[[4.0, 4, 2]]]), torch.tensor([[3.0, 4.0]])
        keypoint_terms(pred, target, torch.zeros(1, 2), 8, size, torch.tensor([0.05]), loss)["kpt"].sum().backward()
        assert pred.grad[0, 0, 0].item() == (pytest.approx(expected) if expected else 0.0)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_has_gains_and_takes_a_step(loss, tiny_data, tmp_path):
    tiny = tiny_run(epochs=1, gains={"official": "derived"}, validate_images=0, epoch_images=4)
    tiny = replace(tiny, experiment=replace(tiny.experiment, loss=loss),
                   variant=replace(tiny.variant, depth=0.1, decoder_depth=1))
    record = Trainer(tiny, tiny_data, tmp_path, CPU).fit()
    assert record["train"]["gains"]["kpt"] == effective_gains(loss, 64)["kpt"] == 0.1


def test_areas_reach_the_loss_that_needs_them_and_no_other(tiny_data):
    plain = tiny_run()
    wanted = replace(plain, experiment=replace(plain.experiment, loss="oks_segment"))
    rows = [next(TrainLoader(tiny_data.train, r, tiny_data.schema, workers=0).batches(0))[1] for r in (plain, wanted)]
    assert rows[1].shape[1] == rows[0].shape[1] + 1 and torch.equal(rows[0], rows[1][:, :-1])
    store = tiny_data.train.store
    assert np.isin(rows[1][:, -1].numpy(), store.shares).all() and (store.shares > 0).all()


# --- heads -----------------------------------------------------------------------------------------------------------

def outputs(head: str, prior: float = 0.0) -> list[torch.Tensor]:
    """Raw outputs of P3 of a head whose weights are zero, so that only its priors are left; (A, 6 + 3K)."""
    variant = replace(load_variants()["yolov5s6_pose"], head=head)
    model = build_model(variant, 17, 0.125, seed=0)
    for parameter in model.detect.parameters():
        torch.nn.init.zeros_(parameter)
    model.detect.initialise_priors()
    return model.eval()(torch.zeros(1, 3, 64, 64))[0][0, :, 0, 0]


def test_each_head_has_its_own_defects_and_no_other():
    objectness, known = math.log(8 / 80**2), math.log(60)
    for head in ("repaired", "mixed_layout"):
        right = torch.zeros(3, 57)
        right[:, 4], right[:, 5] = objectness, known
        torch.testing.assert_close(outputs(head), right)
    for head in ("faithful", "misplaced_priors"):  # left eye is joint 1, left ear joint 3
        wrong = torch.zeros(3, 57)
        for first in (0, 6, 12):
            wrong[0, first + 4], wrong[0, first + 5] = objectness, known
        assert [6 + 3 * joint + 1 for joint in (1, 3)] == [10, 16]
        torch.testing.assert_close(outputs(head), wrong)


def test_layouts_differ_only_where_they_should():
    models = {head: build_model(replace(load_variants()["yolov5s6_pose"], head=head), 17, 0.125, seed=3).eval()
              for head in ("repaired", "faithful", "mixed_layout", "misplaced_priors")}
    state = models["repaired"].state_dict()
    image = torch.rand(1, 3, 64, 64)
    for model in models.values():
        model.load_state_dict(state)
    found = {head: model(image)[0] for head, model in models.items()}
    assert torch.equal(found["faithful"], found["mixed_layout"])
    assert torch.equal(found["repaired"], found["misplaced_priors"])
    assert not torch.equal(found["repaired"], found["faithful"])
    assert torch.equal(found["repaired"][:, 0, ..., :6], found["faithful"][:, 0, ..., :6])  # anchor 0 keeps its box


# --- the set ---------------------------------------------------------------------------------------------------------

def test_settings_that_came_later_leave_old_hashes_alone():
    """Those of the committed runs are in test_config.py."""
    plain = load_study("mini").run("s6", 0)
    assert "epoch_images" not in plain.as_dict()["train"] and "initialisation" not in plain.as_dict()["experiment"]
    later = replace(plain, train=replace(plain.train, epoch_images=64))
    assert later.as_dict()["train"]["epoch_images"] == 64 and later.hash != plain.hash


def test_ablations_have_their_own_schedule_seeds_and_folder(tmp_path):
    main, study = load_study("mini"), load_study("mini", ablations=True)
    assert study.results_dir == main.results_dir / "ablations" and study.data_dir == main.data_dir
    assert len(study.seeds) >= 3 and {"s6", "s6_l1", "s6_l1_scaled", "s6_mixed_layout"} <= set(study.experiments)
    assert study.experiments.index("s6_person") < study.experiments.index("s6_from_person")
    assert study.run("s6_from_person", 1).train.initialisation == "person_detector"
    assert study.run("s6", 1).train.initialisation == "scratch"
    assert study.run("s6", 0).hash != main.run("s6", 0).hash
    assert load_study("mini", seeds="4", ablations=True).seeds == (4,)
    for name, profile in load_profiles().items():
        if profile.train.initialisation == "released":
            continue  # nothing is trained
        assert profile.ablations is not None, f"{name} has no ablations"
        runs = load_study(name, data=tmp_path if profile.data.source == "folder" else None, ablations=True).runs()
        assert all(r.input_size % 64 == 0 for r in runs) and len({r.hash for r in runs}) == len(runs)


def test_an_epoch_can_end_early(tiny_data):
    assert len(tiny_data.train) == 8
    assert len(TrainLoader(tiny_data.train, tiny_run(), tiny_data.schema, workers=0)) == 4
    loader = TrainLoader(tiny_data.train, tiny_run(epoch_images=5), tiny_data.schema, workers=0)
    assert len(loader) == 2 and sum(len(images) for images, _ in loader.batches(0)) == 4


def test_the_command_says_what_is_ahead_and_runs_the_set_once(books, results, executed, capsys):  # noqa: F811
    arguments = ["ablations", "--profile", "smoke", "--results", str(results)]
    assert run.main(arguments) == 0
    assert executed == ["01_data", "03_train", "04_evaluate"]
    assert "14 runs (7 experiments × 2 seeds)" in capsys.readouterr().err
    assert (results / "ablations" / "s6_mixed_layout" / "seed1" / "metrics.json").is_file()
    executed.clear()
    assert run.main(arguments) == 0 and executed == []
    assert "nothing to run" in capsys.readouterr().err
    assert run.main(["reproduce", "--profile", "smoke", "--results", str(results)]) == 0
    assert run.main([*arguments, "--seeds", "0 1 2"]) == 0
    assert executed[-3:] == ["06_tables", "07_figures", "08_report"], "the main report shows the ablations"


def test_a_profile_without_ablations_says_so(monkeypatch):
    monkeypatch.setitem(load_profiles(), "mini", replace(load_profiles()["mini"], ablations=None))
    with pytest.raises(StudyError, match="PROFILE=mini has no ablations in yolopose/study/profiles.yaml"):
        load_study("mini", ablations=True)


# --- tuning ----------------------------------------------------------------------------------------------------------

def test_tuning_holds_training_images_out(tiny_data):
    parts = tune.hold_out(tiny_data, train_images=5, held_out=2)
    train, val = ({image["id"] for image in split.images} for split in (parts.train, parts.val))
    assert len(train) == 5 and len(val) == 2 and not train & val
    assert val <= {image["id"] for image in tiny_data.train.images}
    truth = parts.val.annotations["annotations"]
    assert len(truth) == len(parts.val.store.boxes) and all(row["area"] > 0 for row in truth)
    with pytest.raises(StudyError, match="too few to hold some out"):
        tune.hold_out(replace(tiny_data, train=tiny_data.train.subset([0, 1])))


def test_candidates_of_all_losses_have_one_budget_and_differ_in_one_gain():
    study = load_study("mini")
    runs = {(loss, m): tune.candidate(study, loss, m) for loss, ms in tune.MULTIPLES.items() for m in ms}
    assert {len(ms) for ms in tune.MULTIPLES.values()} == {4} and all(1.0 in ms for ms in tune.MULTIPLES.values())
    base = run_gains(study.run("s6", 0))
    for (loss, multiple), candidate in runs.items():
        gains = run_gains(candidate)
        assert gains == {**base, "kpt": pytest.approx(base["kpt"] * multiple)} and candidate.experiment.loss == loss
    assert len({str(replace(r.train, gains={})) for r in runs.values()}) == 1


def test_gains_of_the_study_are_those_that_tuning_found():
    record = read_json(REFERENCE_DIR / "mini" / "tuning.json")
    for loss in ("l1", "l1_scaled"):
        assert run_gains(load_study("mini").run(tune.EXPERIMENTS[loss], 0))["kpt"] == record["best"][loss]["kpt_gain"]
    rows = {(row["loss"], row["multiple"]): row["AP"] for row in record["candidates"]}
    assert set(rows) == {(loss, m) for loss, ms in tune.MULTIPLES.items() for m in ms}
    assert record["best"]["l1"]["AP"] == max(ap for (loss, _), ap in rows.items() if loss == "l1")
