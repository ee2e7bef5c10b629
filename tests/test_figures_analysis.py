"""Figures of the analyses, drawn from made-up results."""

from pathlib import Path

import pytest
from matplotlib.text import Text

from tests import fabricated
from yolopose.analysis.complexity import COLUMNS
from yolopose.analysis.runtime import summarise_constant
from yolopose.report.figures import analysis
from yolopose.report.figures.write import draw_figure, write_figures
from yolopose.report.measured import ResultSet, load_results
from yolopose.study.paper import CONVENTIONS, DECODER_LADDER, REFERENCE_DIR
from yolopose.utils.files import write_csv, write_json

NAMES = ("loss_shape", "almost_free", "constant_runtime", "decoder_depth")


def runtime(trained: bool = True) -> dict:
    """``runtime.json``: poses cost 25 % more time; 1 ms a person at the evaluation's threshold."""
    pose, person = ({"params_m": 10 * factor, "gmacs": 8 * factor, "total_ms": {"median": 100 * factor}}
                    for factor in (1.25, 1))
    ratio = {"params": 1.25, "gmacs": 1.25, "total": {"value": 1.25, "low": 1.2, "high": 1.3}}
    points = [{"persons": n, "network_ms": 100.0 + s, "decode_ms": 2.0, "nms_evaluation_ms": 5.0 + n,
               "frame_evaluation_ms": 0.1, "nms_use_ms": 0.5, "frame_use_ms": 0.1} for n in (0, 4, 8) for s in (0, 1)]
    constant = {"canvas_px": 640, "width_factor": 0.5, "points": points,
                **summarise_constant(points, {"evaluation": 0.001, "use": 0.25}, 5)}
    return {"machine": {"hardware": {"cpu": "a CPU", "accelerator": None}, "device": "cpu", "threads": 2},
            "almost_free": {"key": "k", "size_px": 640, "s6": {"pose": pose, "person": person, "ratio": ratio}},
            "constant": constant if trained else {"status": "not run"}}


def loss_shape() -> dict:
    """``loss_shape.json`` whose eye is zero from 51 px and whose hip from 216 px on."""
    distances = list(range(151))
    curve = [0.0] + [1 / d for d in distances[1:]]
    joints = {name: {"sk_px": 5.0, **{c: {"zero_at_px": {"float32": at}} for c, at in (
        ("l1", None), ("oks_annealed", 2 * zero), ("paper_eq", 1.4 * zero), ("official", zero))}}
        for name, zero in (("left_eye", 51.0), ("left_hip", 216.0))}
    return {"person_px": 100.0, "widest": 4.0, "distance_px": distances, "joints": joints,
            "boxes": {"iou": {"zero_at_px": 100.0}, "ciou": {"zero_at_px": None}},
            "curves": {**{j: dict.fromkeys(("l1", "oks_annealed", "paper_eq", "official"), curve) for j in joints},
                       "boxes": {"iou": [1.0] * 100 + [0.0] * 51, "ciou": [1.0] * 151}}}


@pytest.fixture
def folder(tmp_path) -> Path:
    """All that the four figures show: made-up files and counts that lie 0.1 GMACs above the printed ones."""
    root = fabricated.study(tmp_path, {"s6": [20, 21, 22]})
    write_csv(root / "complexity.csv", [
        dict(zip(COLUMNS, (variant, 1.0, 960, 12, 12, printed + 0.1, convention, "k"), strict=True))
        for variant, printed in zip(DECODER_LADDER, (19.4, 20.1, 20.8, 21.5, 22.2, 22.8), strict=True)
        for convention in CONVENTIONS])
    write_json(root / "runtime.json", runtime())
    write_json(root / "loss_shape.json", loss_shape())
    return root


def words(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_all_are_written_with_the_same_bytes(folder: Path) -> None:
    files = fabricated.made_twice(lambda: write_figures(folder, names=NAMES), folder / "figures")
    assert set(files) == {f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")}


def test_what_is_missing_is_left_out(tmp_path, capsys) -> None:
    root = fabricated.study(tmp_path, {"s6": [20]})  # no ladder in its complexity.csv
    assert write_figures(root, names=NAMES) == []
    said = capsys.readouterr().out
    assert all(f"{name}: left out, {root} has no " in said for name in NAMES)
    write_json(root / "runtime.json", runtime(trained=False))
    assert draw_figure("constant_runtime", root) is None and draw_figure("almost_free", root) is not None


def test_zeros_stand_at_their_place_or_are_named(folder: Path) -> None:
    figure = analysis.draw_loss_shape(ResultSet(folder))
    eye, hip, box = figure.axes
    crosses = [[line.get_xdata()[0] for line in axes.lines if line.get_marker() == "x"] for axes in (eye, hip, box)]
    assert crosses == [[102.0, pytest.approx(71.4), 51.0], [], [100.0]]
    assert "× at 216 px →" in words(figure) and "sigmas × 4" in words(figure)


def test_costs_are_told_in_percent_and_in_full_and_slopes_with_their_interval(folder: Path) -> None:
    said = words(analysis.draw_almost_free(ResultSet(folder)))
    assert said.count("+25 %") == 3 and "8.0 → 10.0 GMACs" in said and "100 → 125 ms" in said
    assert "640 px" in said and "a CPU, 2 threads" in said
    figure = analysis.draw_constant_runtime(ResultSet(folder))
    assert "scores above 0.001: +1.00 ms a person (+1.00 to +1.00)" in words(figure)
    whole = figure.axes[1].lines
    assert whole[0].get_ydata()[0] == 1.0 and whole[0].get_ydata()[1] == pytest.approx(1 + 8 / 107.6, rel=1e-3)
    assert whole[2].get_ydata()[1] == pytest.approx(1 + 8 / 25, rel=1e-3)  # one tile of 25 for each of 8 persons


def test_ladder_shows_residuals_and_what_was_measured(folder: Path) -> None:
    figure = analysis.draw_decoder_depth(load_results(folder))
    assert len(figure.axes) == 2  # s6 alone is no ladder
    assert figure.axes[0].lines[0].get_ydata()[0] == pytest.approx(100 * 0.1 / 19.4)
    fabricated.ablations(folder, {"s6": [12, 13], "s6_dw1": [9, 9.5]})
    figure = analysis.draw_decoder_depth(load_results(folder))
    assert len(figure.axes) == 3 and "2 seeds" in figure.axes[2].get_xlabel()
    assert list(analysis.measured_depths(load_results(folder).ablations)) == [1, 6]


def test_no_two_of_nine_learning_curves_look_alike() -> None:
    lines = draw_figure("learning_curves", REFERENCE_DIR / "mini").axes[0].lines
    assert len(lines) == 9 == len({(line.get_color(), line.get_linestyle()) for line in lines})
