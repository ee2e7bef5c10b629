"""Tables, figures and report from fabricated results: contents, labels, escaping, determinism, nothing outside."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests import fabricated
from tests.fabricated import FULL, MINI, NOWHERE
from yolopose.report import page, tables
from yolopose.report.ablations import build_ablations
from yolopose.report.claims import load_claims
from yolopose.report.compare import same_digits
from yolopose.report.conditions import number_text, statistics_rows
from yolopose.report.figures import accuracy
from yolopose.report.figures.accuracy import SPECS, draw_accuracy, measured_points, paper_points
from yolopose.report.figures.style import line_samples, place_labels
from yolopose.report.figures.write import FIGURES, PAPER, write_figures
from yolopose.report.layout import Table, latex
from yolopose.report.measured import fingerprint_note, load_reference, load_results
from yolopose.report.page import markdown_to_html, readme_claims_table, write_report
from yolopose.report.tables import FUSED_BIAS_NOTE, build_tables, conventions_note, write_tables
from yolopose.study.config import load_experiments
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_csv, read_json, write_csv, write_json
from yolopose.workflow.stages import STAGES, fingerprint, resolve_target


def written(results: Path, table: int, reference: Path = NOWHERE) -> tuple[list[dict[str, str]], str]:
    """Rows and Markdown of a table as written."""
    write_tables(results, reference)
    path = results / "tables" / f"table{table}"
    return read_csv(path.with_suffix(".csv")), path.with_suffix(".md").read_text()


def test_table_1_has_every_row_printed_and_measured_and_table_4_all_conventions(mini: Path) -> None:
    rows, markdown = written(mini, 1)
    assert len(list((mini / "tables").iterdir())) == 15
    assert [r["source"] for r in rows].count("paper") == 12
    s6 = next(row for row in rows if row["experiment"] == "s6")
    assert (s6["AP50_printed"], s6["AP50_measured"]) == ("87.6", "50.0")
    assert (s6["comparable"], s6["measured_from"], s6["seeds"]) == ("no", "run", "1")
    assert (s6["params_m_printed"], s6["params_m_measured"]) == ("15.1", "15.087")
    assert {r["method"] for r in rows if r["source"] == "RTMO paper"} == {"RTMO-s", "RTMO-m", "RTMO-l"}
    assert [r["experiment"] for r in rows if r["source"] == "this study"] == ["s6_faithful"]
    assert "| **YOLOv5s6-pose** | 960 | 15.1 | 15.1 | 22.8 | 22.8 | 63.8 | 25.0 | 87.6 | 50.0 |" in markdown
    assert "not comparable with the printed ones" in markdown and "RTMO-l (own paper" in markdown
    rows, text = written(mini, 4)
    assert float(rows[0]["gmacs_fused_bias"]) == pytest.approx(22.80 * (1280 / 960) ** 2, abs=1e-3)
    assert float(rows[0]["residual_percent_fused_bias"]) == pytest.approx(100 * (40.533 / 40.62 - 1), abs=0.01)
    assert sum(r["method"].startswith("EfficientHRNet") for r in rows) == 4
    assert "No single convention gives all of Table 4's GMACs to the printed digit." in text
    assert "convolutions alone 0 of 7" in text
    assert FUSED_BIAS_NOTE in text and FUSED_BIAS_NOTE in (mini / "tables" / "table1.md").read_text()


def test_the_notes_on_conventions_are_true() -> None:
    # One operation per output of the three upsamplings: 768, 512 and 256 channels at strides 32, 16 and 8.
    upsampling = sum(channels * (960 // stride) ** 2 for channels, stride in ((768, 32), (512, 16), (256, 8))) / 1e9
    without = fabricated.COUNTS["yolov5l6_pose"][1] - upsampling
    assert f"{without:.3f}" == "145.548" and "145.548" in FUSED_BIAS_NOTE
    assert not same_digits(without, "145.6") and same_digits(without, "145.5")

    def row(printed: float, conv: float) -> dict[str, float]:
        found = {"conv": conv, "fused_bias": printed + 0.1, "fvcore_unfused": printed + 0.2}
        return {"gmacs_printed": printed, **{f"gmacs_{k}": v for k, v in found.items()},
                **{f"residual_percent_{k}": 100 * (v / printed - 1) for k, v in found.items()}}

    note = conventions_note([row(10.0, 10.001), row(5.0, 4.999)])  # one with all digits takes the sentence back
    assert note == ("To the printed digit: convolutions alone 2 of 2; fvcore, fused + biases 0 of 2; "
                    "fvcore, unfused 0 of 2; largest residual 4.00 %.")
    assert conventions_note([row(10.0, 10.001), row(5.0, 4.9)]).startswith("No single convention")


def test_missing_rows_are_from_a_reference_of_the_same_profile_and_data_set_or_not_run(tmp_path: Path) -> None:
    """The runs say what they are; the names of the folders do not matter."""
    own = fabricated.study(tmp_path / "mini-again", {"s6": 50.0})
    reference = fabricated.study(tmp_path / "reference", {"s6": 40.0, "m6": 44.0})
    stored, text = written(own, 1, reference)
    assert "44.0 (ref)" in text and "50.0" in text and "40.0" not in text and "not run" in text
    assert "(ref) = not in this run; from the committed reference" in text
    rows = {row["experiment"]: row for row in stored if row["source"] == "paper"}
    assert [rows[name]["measured_from"] for name in ("m6", "s6", "l6")] == ["reference", "run", ""]
    assert load_reference(load_results(reference), reference) is None  # a set is not its own reference
    assert load_reference(load_results(own), reference).root == reference
    for record in ({"profile": "gpu"}, {"dataset": "coco-real"}):
        other = load_results(fabricated.study(tmp_path / "other" / "mini", {"s6": 50.0}, **record))
        assert load_reference(other, reference) is None
    untrained = fabricated.study(tmp_path / "untrained" / "mini", {})
    assert load_reference(load_results(untrained), reference) is not None
    write_json(untrained / "data.json", {"name": "coco-real", "fingerprint": "other"})
    assert load_reference(load_results(untrained), reference) is None


def test_tables_3_and_4_show_the_ablations_in_their_own_column_and_table_5_compares_drops(tmp_path: Path) -> None:
    own = fabricated.study(tmp_path / "mini", {"s6": 50.0, "s6_relu": 48.0})
    path = own / "s6_relu" / "seed0" / "metrics.json"
    write_json(path, read_json(path) | {"val_int8": fabricated.metrics(40.0, 1000)})
    fabricated.ablations(own, {"s6": [40.0, 41.0, 42.0], "s6_l1": [30.0, 32.0, 31.0]})
    reference = fabricated.study(tmp_path / "reference", {"s6": 48.0, "s6_l1": 46.0})
    fabricated.ablations(reference, {"s6": [42.0, 43.0], "s6_r640": [20.0, 21.0]})
    stored, text = written(own, 3, reference)
    rows = {row["experiment"]: row for row in stored}
    assert rows["s6_l1"].items() >= {"AP50_measured": "46.0", "measured_from": "reference", "AP50_ablations": "31.0",
                                     "AP50_ablations_spread": "1.0", "ablations_seeds": "3",
                                     "ablations_from": "run"}.items()
    assert rows["s6"]["AP50_measured"] == "50.0" and rows["s6"]["AP50_ablations"] == "41.0"
    for wanted in ("AP50 ablations", "31.0 ± 1.0 |", "46.0 (ref)", "commit c0ffee",
                   "ablations = mini: width × 0.5, 128 px, 3 seeds, 12,000 images each"):
        assert wanted in text, wanted
    assert "20.5 ± 0.7 (ref)" in (own / "tables" / "table4.md").read_text()
    stored, text = written(own, 5, reference)
    rows = {row["split"]: row for row in stored}
    assert (rows["val_int8"]["AP_change_printed"], rows["val_int8"]["AP_change_measured"]) == ("-6.3", "-4.0")
    assert rows["val_int16"]["AP_change_measured"] == "" and rows["val"].get("AP_change_printed", "") == ""
    assert "| −6.3 | −4.0 |" in text


def test_without_any_run_the_paper_stands_alone(tmp_path: Path, capsys) -> None:
    for write in (write_tables, write_figures, write_report):
        with pytest.raises(StudyError, match="no such results folder"):
            write(tmp_path / "absent")
    untrained = fabricated.study(tmp_path / "mini", {})
    assert "nothing trained yet" in written(untrained, 1)[1]
    text = write_report(untrained, NOWHERE).read_text()
    assert all(words in text for words in ("Nothing has been trained", "Not drawn, needs", "No data report"))
    paths = write_figures(untrained, NOWHERE, ("figure5", "learning_curves"))
    assert [path.name for path in paths] == ["figure5.png", "figure5.svg"]
    assert "learning_curves: left out" in capsys.readouterr().out


def test_latex_is_well_formed(mini: Path) -> None:
    tables = build_tables(load_results(mini))
    assert [table.name for table in tables] == ["table1", "table2", "table3", "table4", "table5"]
    for table in tables:
        text = table.to_latex()
        columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", text).group(1))
        body = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0]
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert rows and all(len(re.split(r"(?<!\\)&", row)) == columns for row in rows)
        unescaped = re.sub(r"\\[{}]", "", text)
        assert unescaped.count("{") == unescaped.count("}")
        outside = re.sub(r"\$[^$]*\$", "", text).replace(r"\label{tab:yolopose-", "")
        assert not re.search(r"(?<!\\)[%#](?!\n)|(?<![\\])_", outside)
        assert not re.search(r"[^\x00-\x7f§]", text)
        assert table.notes and table.shown.size


def test_escaping_and_headings_by_hand(tmp_path: Path) -> None:
    assert latex("a_b & 50 % ± 1 †") == r"a\_b \& 50 \% $\pm$ 1 $^{\dagger}$"
    rows = [("ours", {("", "Method"): "<script>|", ("AP", "here"): "1.0 ± 0.2 (ref)"}, {"method": "a,b", "x": None}),
            ("other", {("", "Method"): "b", ("AP", "here"): "not run"}, {"x": 1})]
    table = Table.of("table9", "Table 9", "A <b> & c", rows, ["note"])
    for text in (table.to_html(), table._repr_html_()):
        assert "<script>" not in text and "<b> &" not in text
        assert '>1.0 <small>± 0.2</small> <small>(ref)</small></td>' in text and 'other muted" >not run</td>' in text
    assert "| Method | AP here |\n| --- | ---: |\n| **<script>\\|** |" in table.to_markdown()
    assert repr(table) == table.to_markdown() and table.to_markdown().endswith("\n\n- note\n")
    table.write(tmp_path, "csv")
    assert (tmp_path / "table9.csv").read_text() == 'method,x\n"a,b",\n,1\n'
    assert "1.0 $\\pm$ 0.2 (ref)" in table.to_latex() and "\\midrule\nb & not run" in table.to_latex()
    groups = [("", "a"), ("G", "b"), ("G", "c"), ("", "d"), ("G", "e")]  # headings span neighbours only
    table = Table.of("t", "T", "", [("other", dict.fromkeys(groups, "1"), {})], [])
    assert re.findall(r'level0 col\d" (?:colspan="(\d)")?>(.*?)<', table.to_html()) == [
        ("", ""), ("2", "G"), ("", ""), ("", "G")]
    assert r"\cmidrule(lr){2-3}\cmidrule(lr){5-5}" in table.to_latex()
    assert "| a | G b | G c | d | G e |" in table.to_markdown()


def test_points_are_the_tables_and_measured_ones_stand_at_their_own_count(mini: Path) -> None:
    points, left_out = paper_points(SPECS[2])
    assert {p.label: (p.gmacs, p.accuracy) for p in points if p.method == "YOLO-Pose"} == {
        "s6": (22.8, 87.7), "m6": (66.3, 89.8), "l6": (145.6, 90.3)}
    assert left_out == ["OpenPose", "PiPaf", "EfficientHRNet"]
    assert sum(p.hollow for p in paper_points(SPECS[1])[0]) == 3
    assert len(paper_points(SPECS[0])[0]) == 11
    found = measured_points(SPECS[1], load_results(mini))
    m6 = next(point for point in found if point.label == "m6")
    assert (m6.gmacs, m6.accuracy) == (pytest.approx(66.29 * (128 / 960) ** 2 / 4, abs=1e-5), pytest.approx(58.0))
    assert found[0].gmacs < 1
    samples = line_samples([(1.0, 0.0), (100.0, 2.0)])  # they lie on the line
    assert len(samples) == 6 and samples[2] == pytest.approx((10**0.9, 0.9))


@pytest.mark.parametrize(("scores", "options", "count"), [
    (MINI, {}, 6), ({}, {}, 3), ({"s6": 87.3, "m6": 89.0, "l6": 90.4}, FULL, 4)])
def test_labels_never_overlap_and_titles_name_the_reference(tmp_path, scores, options, count, monkeypatch) -> None:
    boxes, results = [], load_results(fabricated.study(tmp_path, scores, test_dev=50.0, **options))
    monkeypatch.setattr(accuracy, "place_labels", lambda *a, **k: boxes.append(place_labels(*a, **k)))
    figures = [draw_accuracy(spec, results) for spec in SPECS]
    assert len(boxes) == count
    assert not any(one.overlaps(other) for placed in boxes for one, other in itertools.combinations(placed, 2))
    figures[0] = draw_accuracy(SPECS[1], replace(results, is_reference=True))
    for figure, is_reference in zip(figures[:2], (True, False), strict=True):
        title = figure.axes[-1].get_title(loc="left")
        assert not scores or ("easured" in title and ("(committed reference)" in title) == is_reference)


def test_figures_are_written_and_the_report_is_one_page_beside_them(mini: Path) -> None:
    write_json(mini / "data.json", {
        "name": "synthetic <near>", "fingerprint": "abc", "train": {"images": 10}, "val": {"images": 5},
        "test_dev": None, "statistics": {"persons_per_image": 2.5}, "coco_statistics": {"persons_per_image": 2.7},
        "baseline": {"AP": 0.01, "AP50": 0.05}})
    files = {path.name: path.read_bytes() for path in write_figures(mini, NOWHERE)}
    stems = (*PAPER, "learning_curves", "ablation_losses", "ablation_heads")
    assert set(files) == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    assert all(len(data) > 5000 and b"dc:date" not in data for data in files.values())
    text, stack = write_report(mini, NOWHERE).read_text(), []
    for closing, tag in re.findall(r"<(/?)([a-z]\w*)[^>]*>", text):
        if closing:
            assert stack.pop() == tag  # elements close in order; < and > of texts and attributes are escaped
        elif tag not in {"meta", "img", "br", "col", "link", "hr"}:
            stack.append(tag)
    assert not stack
    addresses, ids = re.findall(r'\s(?:src|href)="([^"]*)"', text), re.findall(r'\sid="([^"]*)"', text)
    pictures = [a for a in addresses if not a.startswith("#")]
    assert len(pictures) == 9 and all(a.startswith("figures/") and (mini / a).is_file() for a in pictures)
    assert len(set(ids)) == len(ids) and {a[1:] for a in addresses if a.startswith("#")} <= set(ids)
    assert "a &lt;CPU&gt; &amp; more" in text and "<CPU>" not in text and "synthetic &lt;near&gt;" in text
    claims = load_claims()
    own = [claim["id"] for claim in claims if claim["where"].startswith("this study")]
    for wanted in ("not comparable at this scale", "Table 5", "No single convention gives all of Table 4", "2.7",
                   "AP 1.0 and AP50 5.0", "D39", "train.optimizer", "reduced scale",
                   f"{len(claims)} claims, {len(claims) - len(own)} of the paper and {len(own)} of this study "
                   f"({', '.join(own)})"):
        assert wanted in text, wanted


def test_a_reference_stands_beside_and_says_where_it_has_other_data_of_the_same_name(tmp_path: Path) -> None:
    reference = fabricated.study(tmp_path / "reference", {"s6": [52.0, 53.0], "m6": 44.0}, data_fingerprint="older",
                                 hardware={"cpu": "another <cpu>"})
    own = fabricated.study(tmp_path / "mini", {"s6": [50.0, 51.0]})
    assert fingerprint_note(load_results(own), load_results(own)) is None
    note = fingerprint_note(load_results(own), load_results(reference))
    rows, markdown = written(own, 1, reference)
    assert "(older, not fingerprint)" in note and note in markdown
    s6 = next(row for row in rows if row["experiment"] == "s6")
    assert (s6["AP50_measured"], s6["AP50_spread"], s6["seeds"]) == ("50.5", "0.71", "2")
    text = write_report(own, reference).read_text()
    for wanted in (note, "cpu: a &lt;CPU&gt; &amp; more → another &lt;cpu&gt;", "+2.00 to +2.00",
                   "difference = reference − this run", '<td class="here">50.5</td><td>52.5</td><td>+2.00</td>'):
        assert wanted in text, wanted


def test_report_lists_the_released_checkpoints(tmp_path: Path) -> None:
    folder = fabricated.study(tmp_path / "mini", {"s6": 80.0})
    before = write_report(folder, NOWHERE).read_text()
    assert "are not among these runs" in before and 'id="released"' not in before
    target = resolve_target("", "", str(folder), "", "auto", stored_only=True)
    known = fingerprint(STAGES["report"], target, {})
    scored = {"name": "s6_960", "group": "paper", "model": "S", "input_size": 960, "AP_path": 63.7, "AP_readme": 63.7,
              "AP": 63.72, "AP50": 87.6, "comparable": True, "note": ""}
    lost = scored | dict.fromkeys(("AP", "AP50", "AP_readme"), "") | {
        "name": "m6_ti", "group": "ti_lite", "note": "no <network>"}
    write_csv(folder / "released.csv", [scored, lost])
    text = write_report(folder, NOWHERE).read_text()
    assert fingerprint(STAGES["report"], target, {}) != known  # so that the report is made again
    row = re.search(r"<tr>.*s6_960</code>.*</tr>", text)[0]
    assert "63.72" in row and "reproduced" in row and "0.02" in row
    row = re.search(r"<tr>.*m6_ti</code>.*</tr>", text)[0]
    assert "ti lite" in row and "not run" in row and "no &lt;network&gt;" in row
    assert "Released checkpoints that were not scored: m6_ti." in text and "are not among these runs" not in text


def test_report_at_full_scale_and_of_its_settings_on_a_part_of_coco(tmp_path: Path) -> None:
    folder = fabricated.study(tmp_path / "paper", {"s6": 87.6}, **FULL)
    text = write_report(folder, NOWHERE).read_text()
    assert load_results(folder).full_scale and "These runs are at a reduced scale" not in text
    assert "test-dev was not scored: the data set has no test-dev images." in text
    record = read_json(path := folder / "s6/seed0/run.json")
    write_json(path, record | {"comparable": False, "config": record["config"] | {"comparable": True}})
    assert load_results(folder).not_comparable("val").startswith("other data than COCO 2017")
    assert not load_results(folder).full_scale
    text = write_report(folder, NOWHERE).read_text()
    assert "These runs are on other data than COCO 2017" in text and "Other data than COCO 2017 (made-up)" in text
    assert "These runs are at a reduced scale" not in text and "Reduced scale: smaller" not in text


def test_readme_lists_decided_claims_between_its_marks(mini: Path, tmp_path: Path, capsys) -> None:
    lines = readme_claims_table(mini).splitlines()
    assert any(line.startswith("| C16 |") and "**reproduced**" in line for line in lines)
    assert "C56" in lines[-1] and lines[-1].startswith("Not run (")
    assert all(line.count("|") - line.count("\\|") == 6 for line in lines if line.startswith("|"))
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n<!-- claims: begin -->\noutdated\n<!-- claims: end -->\nrest\n")
    assert page.main(["--readme", str(readme), str(mini)]) == 0
    text = readme.read_text()
    assert text.startswith("# Title\n<!-- claims: begin -->\n") and text.endswith("<!-- claims: end -->\nrest\n")
    assert "| C01 |" in text and "outdated" not in text
    readme.write_text("no marks")
    assert page.main(["--readme", str(readme), str(mini)]) == 2
    assert "claims: begin" in capsys.readouterr().err and readme.read_text() == "no marks"
    assert page.main([str(mini)]) == 0 and (mini / "report.html").is_file()
    assert page.main(["--readme", str(tmp_path / "none.md"), str(mini)]) == 2


def test_markdown_of_the_deviations() -> None:
    html = markdown_to_html("# A\n\ntext `a<b` and **bold** <i>\n\n- one\n- two\n  more\n\n"
                            "| a | b |\n| --- | --- |\n| 1 | *x* |\n")
    assert html.splitlines()[0] == "<h2>A</h2>"
    assert "<p>text <code>a&lt;b</code> and <strong>bold</strong> &lt;i&gt;</p>" in html
    assert "<li>one</li>\n<li>two\nmore</li>" in html and "<td><em>x</em></td>" in html
    assert markdown_to_html("before\n<!-- hidden -->\nafter") == "<p>before\nafter</p>\n"


def test_statistics_of_any_shape() -> None:
    quantiles = {"mean": 2.71, "q05": 1.0, "q25": 1.0, "q50": 2.0, "q75": 3.0, "q95": 9.0}
    rows = statistics_rows({"statistics": {"n_x": 3, "by": {"nose": {"0": 0.12345, "1": 1}}, "q": quantiles,
                                           "list": [1, 2.5]},
                            "coco_statistics": {"by": {"nose": {"0": 0.5, "1": 0.25}}}})
    assert rows == [("n x", "3", "–"), ("by: nose (0 / 1)", "0.123 / 1", "0.5 / 0.25"),
                    ("q, mean (5 % · median · 95 %)", "2.71 (1 · 2 · 9)", "–"), ("list", "1, 2.5", "–")]
    assert statistics_rows(None) == [] and number_text(True) == "yes"


HOSTILE = "<b>a</b> | b & c_d 50 % #1 {x} $\\foo$ ~^ [z] \\ " + "long " * 40


def everything(root: Path) -> str:
    """The page of a folder after its tables and figures were written, none of which may fail."""
    for build in (build_tables, build_ablations):
        write_tables(root, NOWHERE, build)
    write_figures(root, NOWHERE)
    return write_report(root, NOWHERE).read_text()


@pytest.mark.parametrize(("experiments", "seeds"), [(0, 1), (1, 12), (20, 1)])
def test_any_number_of_experiments_and_seeds_and_missing_and_undefined_values(tmp_path, experiments, seeds, capsys):
    names = [name for name, row in load_experiments().items() if row.input_size in (640, 960, 1280)][:experiments]
    root = fabricated.study(tmp_path / "mini", {name: [40.0 + seed for seed in range(seeds)] for name in names})
    fabricated.ablations(root, {name: [30.0 + seed for seed in range(seeds)] for name in names[:2]})
    for number, name in enumerate(names):
        path = root / name / "seed0" / "metrics.json"
        if number % 3 == 1:  # nobody to score
            write_json(path, {"val": dict.fromkeys(("AP", "AP50", "AP75", "APL", "AR"), -1.0)})
        elif number % 3 == 2:
            write_json(path, {})
    write_json(root / "data.json", {"baseline": {"AP": -1, "AP50": -1}})
    page = everything(root)
    assert "could not be" not in page + capsys.readouterr().out
    shown = page + "".join(path.read_text() for path in (root / "tables").glob("*.[mt]*"))
    assert not re.search(r"[-−]1\.0{2,}|[-−]100\.0|>[-−]1\.0<|\bnan\b|\| None \|", shown)
    assert ("12 seeds" in page) == (seeds == 12)


def test_whatever_a_stored_text_holds_it_stays_text(tmp_path, capsys) -> None:
    root = fabricated.study(tmp_path / "mini", {"s6": 50.0}, dataset=HOSTILE, packages={HOSTILE: "1"})
    (root / "a|b<i>_$x$_&").mkdir()
    fabricated.run(root, "s6", 1, 44.0).rename(root / "a|b<i>_$x$_&" / "seed0")
    write_json(root / "data.json", {"name": HOSTILE, "fingerprint": "<u>", "statistics": {HOSTILE: HOSTILE}})
    page = everything(root)
    assert "could not be" not in page + capsys.readouterr().out
    assert not re.search(r"<(b|i|u|p)>[a_|]", page.partition("<details><summary>All deviations")[0])
    rows = [line for line in (root / "tables" / "further.md").read_text().splitlines() if line.startswith("|")]
    assert len(rows) == 3 and len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    tex = (root / "tables" / "further.tex").read_text()
    assert r"a|b$<$i$>$\_\$x\$\_\&" in tex


def test_what_cannot_be_made_names_itself_and_costs_nothing_else(mini: Path, monkeypatch, capsys) -> None:
    def fails(*_: object) -> None:
        raise KeyError("lost")

    monkeypatch.setitem(tables.OWN_TABLES, "broken", fails)
    monkeypatch.setattr(tables, "conventions_note", fails)
    monkeypatch.setattr(page, "statistics_rows", fails)
    monkeypatch.setitem(FIGURES, "figure5", FIGURES["figure5"]._replace(draw=fails))
    monkeypatch.setitem(FIGURES, "loss_shape", FIGURES["loss_shape"]._replace(draw=fails))
    write_json(mini / "data.json", {"name": "made-up"})
    (mini / "figures").mkdir()
    (mini / "figures" / "quantization.svg").write_text("of results that are no more")
    text = everything(mini)
    said = capsys.readouterr().out
    for name in ("broken", "table4", "figure5", "loss_shape", "section data"):
        assert re.search(rf"{name}:? could not be .*KeyError: 'lost' \(test_tables_figures.py, line", said), name
    made = {path.name for path in (mini / "figures").iterdir()}
    assert {"figure5.svg", "figure5.png", "figure6.svg", "loss_shape.svg"} <= made and "quantization.svg" not in made
    assert "KeyError: 'lost'" in (mini / "tables" / "table4.md").read_text()
    assert "Table 5. Post-training" in text and "This section could not be made" in text and 'id="limits"' in text
    assert "KeyError: &#x27;lost&#x27;" in text or "KeyError: &#39;lost&#39;" in text


def test_what_a_data_set_is_too_small_for_is_told_where_it_would_stand(tmp_path, capsys) -> None:
    root, why = fabricated.study(tmp_path / "mini", {"s6_relu": 50.0}), "only <28> images; 50 are needed"
    write_json(root / "data.json", {"left_out": {"quantization": why}})
    write_json(root / "quantization.json", {"status": "not run", "reason": why})
    assert write_figures(root, NOWHERE, ["quantization"]) == [] and f"({why})" in capsys.readouterr().out
    assert f"- not run: {why}.\n" in written(root, 5)[1]
    text, said = write_report(root, NOWHERE).read_text(), "only &lt;28&gt; images; 50 are needed"
    for words in (f"too small for quantization: {said}", f"with scores ({said}): AP against", f"not run: {said}."):
        assert words in text, words
