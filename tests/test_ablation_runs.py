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


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_has_gains_and_takes_a_step(loss, tiny_data, tmp_path):
    tiny = tiny_run(epochs=1, gains={"official": "derived"}, validate_images=0, epoch_images=4)
    tiny = replace(tiny, experiment=replace(tiny.experiment, loss=loss),
                   variant=replace(tiny.variant, depth=0.1, decoder_depth=1))
    record = Trainer(tiny, tiny_data, tmp_path, CPU).fit()
    assert record["train"]["gains"]["kpt"] == effective_gains(loss, 64)["kpt"] == 0.1


def test_areas_reach_the_loss_that_needs_them_and_an_epoch_can_end_early(tiny_data):
    plain = tiny_run()
    wanted = replace(plain, experiment=replace(plain.experiment, loss="oks_segment"))
    rows = [next(TrainLoader(tiny_data.train, r, tiny_data.schema, workers=0).batches(0))[1] for r in (plain, wanted)]
    assert rows[1].shape[1] == rows[0].shape[1] + 1 and torch.equal(rows[0], rows[1][:, :-1])
    store = tiny_data.train.store
    assert np.isin(rows[1][:, -1].numpy(), store.shares).all() and (store.shares > 0).all()
    assert len(tiny_data.train) == 8
    assert len(TrainLoader(tiny_data.train, plain, tiny_data.schema, workers=0)) == 4
    loader = TrainLoader(tiny_data.train, tiny_run(epoch_images=5), tiny_data.schema, workers=0)
    assert len(loader) == 2 and sum(len(images) for images, _ in loader.batches(0)) == 4


def test_heads_differ_only_in_their_defects():
    models = {head: build_model(replace(load_variants()["yolov5s6_pose"], head=head), 17, 0.125, seed=3).eval()
              for head in ("repaired", "faithful", "mixed_layout", "misplaced_priors")}
    for model in models.values():
        model.load_state_dict(models["repaired"].state_dict())
    image = torch.rand(1, 3, 64, 64)
    repaired, faithful, mixed, misplaced = (model(image)[0] for model in models.values())
    assert torch.equal(faithful, mixed) and torch.equal(repaired, misplaced) and not torch.equal(repaired, faithful)
    assert torch.equal(repaired[:, 0, ..., :6], faithful[:, 0, ..., :6])  # anchor 0 keeps its box
    right, wrong = torch.zeros(2, 3, 57)
    right[:, 4:6] = prior = torch.tensor([math.log(8 / 80**2), math.log(60)])  # of the objectness and of the class
    for first in (0, 6, 12):  # over left eye, 6 + 3 × 1 + 1 = 10, and left ear, 6 + 3 × 3 + 1 = 16
        wrong[0, first + 4:first + 6] = prior
    for (head, model), expected in zip(models.items(), (right, wrong, right, wrong), strict=True):
        for parameter in model.detect.parameters():
            torch.nn.init.zeros_(parameter)
        model.detect.initialise_priors()
        torch.testing.assert_close(model(torch.zeros(1, 3, 64, 64))[0][0, :, 0, 0], expected, msg=head)


def test_ablations_have_their_own_schedule_seeds_and_folder(tmp_path, monkeypatch):
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
        runs = load_study(name, data=tmp_path if profile.data.source == "folder" else None, ablations=True).runs()
        assert all(r.input_size % 64 == 0 for r in runs) and len({r.hash for r in runs}) == len(runs)
    monkeypatch.setitem(load_profiles(), "mini", replace(load_profiles()["mini"], ablations=None))
    with pytest.raises(StudyError, match="PROFILE=mini has no ablations in yolopose/study/profiles.yaml"):
        load_study("mini", ablations=True)


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


def test_tuning_holds_training_images_out(tiny_data):
    parts = tune.hold_out(tiny_data, train_images=5, held_out=2)
    train, val = ({image["id"] for image in split.images} for split in (parts.train, parts.val))
    assert len(train) == 5 and len(val) == 2 and not train & val
    assert val <= {image["id"] for image in tiny_data.train.images}
    truth = parts.val.annotations["annotations"]
    assert len(truth) == len(parts.val.store.boxes) and all(row["area"] > 0 for row in truth)
    with pytest.raises(StudyError, match="too few to hold some out"):
        tune.hold_out(replace(tiny_data, train=tiny_data.train.subset([0, 1])))


def test_candidates_have_one_budget_and_differ_in_one_gain_and_the_best_are_the_studys():
    study, record = load_study("mini"), read_json(REFERENCE_DIR / "mini" / "tuning.json")
    runs = {(loss, m): tune.candidate(study, loss, m) for loss, ms in tune.MULTIPLES.items() for m in ms}
    assert {len(ms) for ms in tune.MULTIPLES.values()} == {4} and all(1.0 in ms for ms in tune.MULTIPLES.values())
    base = run_gains(study.run("s6", 0))
    for (loss, multiple), candidate in runs.items():
        gains = run_gains(candidate)
        assert gains == {**base, "kpt": pytest.approx(base["kpt"] * multiple)} and candidate.experiment.loss == loss
    assert len({str(replace(r.train, gains={})) for r in runs.values()}) == 1
    for loss in ("l1", "l1_scaled"):
        assert run_gains(study.run(tune.EXPERIMENTS[loss], 0))["kpt"] == record["best"][loss]["kpt_gain"]
    rows = {(row["loss"], row["multiple"]): row["AP"] for row in record["candidates"]}
    assert set(rows) == set(runs)
    assert record["best"]["l1"]["AP"] == max(ap for (loss, _), ap in rows.items() if loss == "l1")
