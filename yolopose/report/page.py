"""``report.html``: the whole study on one page, from stored results alone.

Style and numbers are inside the page, the pictures beside it in ``figures/``; it refers to no address. The same results
give the same bytes: no date is written, seconds come from ``run.json``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pandas import DataFrame

from yolopose.report import compare
from yolopose.report.ablations import build_ablations
from yolopose.report.claims import decide_claims
from yolopose.report.conditions import profile_differences, statistics_rows
from yolopose.report.findings import HEADLINE, findings
from yolopose.report.layout import markdown
from yolopose.report.measured import ResultSet, fingerprint_note, load_reference, load_results
from yolopose.report.sets import compare_sets, describe_difference
from yolopose.report.tables import build_tables
from yolopose.study.config import load_experiments, load_profiles
from yolopose.study.paper import PAPER_DIR
from yolopose.utils.cli import exit_status
from yolopose.utils.errors import StudyError
from yolopose.utils.files import atomic_write

BADGES = dict(zip(compare.VERDICTS, ("good", "bad", "noise", "scale", "none"), strict=True))
SCORES = {"AP": ("val", "AP"), "AP50": ("val", "AP50"), "test_AP50": ("test_dev", "AP50"),
          "box_AP50": ("val_box", "AP50")}


def headline(results: ResultSet, claims: list[dict[str, Any]]) -> list[str]:
    """The answer in a few sentences, made from the verdicts."""
    verdicts = {claim["id"]: claim["verdict"] for claim in claims}
    answers = {"Reproduced here": [compare.REPRODUCED], "Not reproduced here": [compare.NOT_REPRODUCED],
               "Run, but not decided": [compare.WITHIN_NOISE, compare.NOT_COMPARABLE]}
    said = {answer: "; ".join(words for verdict in wanted for name, words in HEADLINE if verdicts.get(name) == verdict)
            for answer, wanted in answers.items()}
    sentences = [f"{answer}: {words}." for answer, words in said.items() if words]
    if not results.full_scale and results.runs:
        what = "on other data than COCO 2017" if results.other_data else "at a reduced scale"
        sentences.append(f"These runs are {what} ({results.scale()}): orderings can be judged, the paper's absolute "
                         "accuracies cannot, and no accuracy below stands beside a printed one as its equal.")
    paper = [claim for claim in claims if claim["decided_by"] == "paper"]
    bad = [claim["id"] for claim in paper if claim["verdict"] == compare.NOT_REPRODUCED]
    tail = f" and {len(bad)} do not ({', '.join(bad)})." if bad else "."
    return [*sentences, f"Of {len(paper)} claims that the paper's own tables and equations decide, "
                        f"{len(paper) - len(bad)} hold{tail}"]


def run_rows(results: ResultSet) -> list[dict[str, Any]]:
    """One row per finished run: what it was, what it cost, what it scored (percent)."""
    known, rows = load_experiments(), []
    for run in results.every_run:
        name, (train, evaluate) = run.experiment, (run.record.get(part) or {} for part in ("train", "evaluate"))
        scores = {column: results.measure(name, *where) for column, where in SCORES.items()}
        seconds = train.get("seconds")
        rows.append({
            "experiment": name, "title": known[name].title if name in known else name, "seed": run.seed,
            "images": train.get("images_seen"), "minutes": None if seconds is None else float(seconds) / 60,
            "evaluate": evaluate.get("seconds"), "memory": train.get("peak_memory_gib"),
            **{column: found and found.by_seed.get(run.seed) for column, found in scores.items()}})
    return rows


def provenance_rows(results: ResultSet) -> list[tuple[str, str]]:
    """Commit, hardware, packages and fingerprints of the runs; values that differ between runs are all listed."""
    def values(items: Iterable[Any]) -> str:
        return "; ".join(dict.fromkeys(str(i) for i in items if i not in (None, ""))) or "not recorded"

    runs = results.every_run
    hardware, packages, commits = ([found for run in runs if (found := run.record.get(key))]
                                   for key in ("hardware", "packages", "git"))
    machines = [(h.get("accelerator"), h.get("cpu"), f"{h.get('cores')} cores", f"{h.get('memory_gib')} GiB",
                 h.get("system")) for h in hardware]
    return [
        ("Commit", values(f"{g.get('commit')}{' with uncommitted changes' if g.get('dirty') else ''}"
                          for g in commits if g.get("commit"))),
        ("Hardware", values(", ".join(str(part) for part in machine if part) for machine in machines)),
        ("Packages", values(", ".join(f"{k} {v}" for k, v in p.items()) for p in packages)),
        ("Data", values(f"{r.record.get('dataset', '')} {str(r.record.get('data_fingerprint') or '')[:16]}".strip()
                        for r in runs)),
        ("Configuration hashes", values(f"{r.experiment} {r.record.get('config_hash')}" for r in runs)),
    ]


def limits(results: ResultSet, reference: ResultSet | None, released: list[dict[str, Any]]) -> list[str]:
    """What the reader must bear in mind about these results."""
    runs, scored = results.runs, [name for name in results.runs if results.measure(name, "val", "AP")]
    reasons = dict.fromkeys(results.why_missing(name, "test_dev") for name in scored)
    unscored = [row["name"] for row in released if not row["AP"]]
    found = [
        *results.mixed,
        results.unfinished and f"Unfinished runs are left out: {'; '.join(results.unfinished)}.",
        not runs and "Nothing has been trained in this folder; only complexity and the printed numbers speak.",
        results.other_data and f"Other data than COCO 2017 ({', '.join(sorted(results.datasets))}): the accuracies are "
                               "not the paper's, and an order that holds here may turn round there.",
        runs and not results.other_data and not results.full_scale and
        "Reduced scale: smaller models, images and budgets than the paper's, and other data. An order that holds here "
        "may turn round at full scale, and the other way round.",
        any(len(seeds) == 1 for seeds in runs.values()) and
        "Experiments with one seed have no spread: only differences beyond a rule's margin decide, and nothing is "
        "called within noise.",
        runs and not any(results.measure(name, "test_dev", "AP") for name in runs) and
        f"test-dev was not scored: {'; '.join(reasons) or 'no run has keypoints'}.",
        "The paper reports one run per row and no spread; a printed difference of a few tenths decides little.",
        "16-bit quantization is a simulation of its accuracy: the runtime has no 16-bit convolution on a CPU.",
        "Figure 1's bottom-up decoder groups joints by limb lengths alone; no trained one was at hand.",
        not released and "The official checkpoints are not among these runs; PROFILE=checkpoints scores them.",
        unscored and f"Released checkpoints that were not scored: {', '.join(unscored)}.",
        reference and f"Cells marked (ref) come from the committed reference ({reference.scale()}), not from this run.",
        reference and fingerprint_note(results, reference),
    ]
    return [line for line in found if line]


def recipe_differences(results: ResultSet) -> list[tuple[str, str, str]]:
    """Where the headline run departs from the paper's recipe, by its own recorded configuration."""
    config = next((run.config for run in results.runs.get("s6") or results.every_run), {})
    needed = {"experiment", "input_size", "width_factor", "data", "augment", "train"}
    return profile_differences(config) if needed <= set(config) else []


def markdown_to_html(text: str) -> str:
    """A Markdown text below the page's own headings: its headings go one level down, its comments are dropped."""
    import mistune

    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    return mistune.create_markdown(plugins=["table"])(re.sub("^#", "##", text, flags=re.MULTILINE))


def build_context(results: ResultSet, reference: ResultSet | None) -> dict[str, Any]:
    """Everything that the template shows, as plain values; only ``deviations`` and what tables render are HTML."""
    claims, released = decide_claims(results), compare.released_rows(results.root)
    deviations = (PAPER_DIR / "deviations.md").read_text(encoding="utf-8")
    both = (results.root, reference.root) if reference and results.runs else None
    return {
        "results": results, "scale": results.scale(), "profile": load_profiles().get(results.profile),
        "badges": BADGES, "verdicts": compare.VERDICTS, "quantities": {"params_m": "parameters, M", "gmacs": "GMACs"},
        "own_claims": [c["id"] for c in claims if c["where"].startswith("this study")],
        "claims": claims, "headline": headline(results, claims),
        "runs": run_rows(results), "provenance": provenance_rows(results) if results.runs else [],
        "tables": build_tables(results, reference),
        "released": released, "released_tolerance": compare.RELEASED_TOLERANCE,
        "findings": findings(results, reference), "ablations": build_ablations(results, reference),
        "drawn": [path.stem for path in (results.root / "figures").glob("*.svg")],
        "statistics": statistics_rows(results.data), "data": results.data,
        "comparison": [row for row in compare.compare_with_paper(results) if row["experiment"]],
        "reference": reference, "fingerprint_note": fingerprint_note(results, reference) if reference else None,
        "reference_rows": [row for row in compare_sets(*both) if row["metric"] in ("AP", "AP50")
                           and row["split"] in ("val", "test_dev", "val_box")] if both else [],
        "reference_changes": describe_difference(*both) if both else [],
        "differences": recipe_differences(results), "deviations": markdown_to_html(deviations.partition("\n")[2]),
        "limits": limits(results, reference, released),
    }


def write_report(results_dir: Path | str, reference_dir: Path | None = None) -> Path:
    """Write ``report.html`` into a results folder and return its path.

    The tables, comparison and claims are made afresh; the page shows the files of ``figures/`` and names those missing.

    Raises:
        StudyError: the folder is missing, holds no results or a damaged file, or cannot be written.
    """
    results = load_results(results_dir)
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=StrictUndefined)
    context = build_context(results, load_reference(results, reference_dir))
    path = results.root / "report.html"
    atomic_write(path, environment.get_template("report.html.j2").render(context))
    return path


def readme_claims_table(results_dir: Path | str) -> str:
    """The claims and verdicts as a Markdown table for the README; claims that were not run follow in one line."""
    claims = decide_claims(results_dir)
    table = DataFrame([{"": claim["id"], "Claim": claim["claim"], "Where": claim["where"],
                        "Verdict": f"**{claim['verdict']}**", "Decided on": claim["scale"]}
                       for claim in claims if claim["verdict"] != compare.NOT_RUN])
    waiting = [claim["id"] for claim in claims if claim["verdict"] == compare.NOT_RUN]
    tail = f"\nNot run ({len(waiting)}; the reasons are in `claims.csv`): {', '.join(waiting)}.\n" if waiting else ""
    return f"{markdown(table, words=table)}\n{tail}"


def refresh_readme(readme: Path, results_dir: Path | str) -> Path:
    """Put the claims table between the marks ``<!-- claims: begin -->`` and ``<!-- claims: end -->`` of a file, which
    is returned.

    Raises:
        StudyError: the file or one of its marks is missing.
    """
    begin, end = "<!-- claims: begin -->", "<!-- claims: end -->"
    try:
        text = readme.read_text(encoding="utf-8")
    except OSError as error:
        raise StudyError(f"{readme}: cannot be read ({error.strerror})") from error
    table = f"{begin}\n{readme_claims_table(results_dir)}{end}"
    text, found = re.subn(f"{begin}\n.*?{end}", lambda _: table, text, count=1, flags=re.DOTALL)
    if not found:
        raise StudyError(f"{readme}: lacks the lines {begin} and {end}, between which the table belongs")
    atomic_write(readme, text)
    return readme


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: ``RESULTS`` writes its report; ``--readme FILE RESULTS`` refreshes the file's table of claims."""
    parser = argparse.ArgumentParser(prog="yolopose.report.page", description="Write report.html of a results folder.")
    parser.add_argument("results", type=Path, help="a results folder")
    parser.add_argument("--readme", type=Path, help="refresh this file's table of claims instead")
    given = parser.parse_args(argv)
    return exit_status(lambda: print(f"refreshed: {refresh_readme(given.readme, given.results)}" if given.readme
                                     else f"written: {write_report(given.results)}"))


if __name__ == "__main__":
    sys.exit(main())
