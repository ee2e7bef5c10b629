"""``report.html``: the whole study on one page with its pictures beside it in ``figures/``; it refers to no address.
The same results give the same bytes: no date is written, seconds come from ``run.json``."""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import mistune
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.runtime import Context
from pandas import DataFrame

from yolopose.report import compare
from yolopose.report.ablations import build_ablations
from yolopose.report.claims import decide_claims
from yolopose.report.conditions import profile_differences, statistics_rows
from yolopose.report.figures.write import FIGURES, why_none
from yolopose.report.findings import HEADLINE, findings
from yolopose.report.layout import Table, explained, markdown
from yolopose.report.measured import ResultSet, fingerprint_note, load_reference, load_results
from yolopose.report.sets import compare_sets, describe_difference
from yolopose.report.tables import build_tables
from yolopose.report.verdicts import NOT_COMPARABLE, NOT_REPRODUCED, NOT_RUN, REPRODUCED, VERDICTS, WITHIN_NOISE
from yolopose.study.config import load_experiments, load_profiles
from yolopose.study.paper import PAPER_DIR
from yolopose.utils.cli import exit_status
from yolopose.utils.errors import StudyError
from yolopose.utils.files import atomic_write


def headline(results: ResultSet, claims: list[dict[str, Any]]) -> list[str]:
    given = {claim["id"]: claim["verdict"] for claim in claims}
    answers = {"Reproduced here": [REPRODUCED], "Not reproduced here": [NOT_REPRODUCED],
               "Run, but not decided": [WITHIN_NOISE, NOT_COMPARABLE]}
    sentences = [f"{answer}: {'; '.join(said)}." for answer, wanted in answers.items() if (said := [
        words for verdict in wanted for name, words in HEADLINE if given.get(name) == verdict])]
    if not results.full_scale and results.runs:
        what = "on other data than COCO 2017" if results.other_data else "at a reduced scale"
        sentences.append(f"These runs are {what} ({results.scale()}): orderings can be judged, the paper's absolute "
                         "accuracies cannot, and no accuracy below stands beside a printed one as its equal.")
    paper = [claim for claim in claims if claim["decided_by"] == "paper"]
    bad = [claim["id"] for claim in paper if claim["verdict"] == NOT_REPRODUCED]
    tail = f" and {len(bad)} do not ({', '.join(bad)})." if bad else "."
    return [*sentences, f"Of {len(paper)} claims that the paper's own tables and equations decide, "
                        f"{len(paper) - len(bad)} hold{tail}"]


def provenance_rows(results: ResultSet) -> list[tuple[str, str]]:
    """Commit, hardware, packages and fingerprints of the runs; values that differ between runs are all listed."""
    runs = results.every_run
    hardware, packages, commits = ([found for run in runs if (found := run.record.get(key))]
                                   for key in ("hardware", "packages", "git"))
    machines = [(h.get("accelerator"), h.get("cpu"), f"{h.get('cores')} cores", f"{h.get('memory_gib')} GiB",
                 h.get("system")) for h in hardware]
    found = {
        "Commit": [f"{g['commit']}{' with uncommitted changes' if g.get('dirty') else ''}" for g in commits
                   if g.get("commit")],
        "Hardware": [", ".join(str(part) for part in machine if part) for machine in machines],
        "Packages": [", ".join(f"{name} {version}" for name, version in of_run.items()) for of_run in packages],
        "Data": [f"{run.record.get('dataset', '')} {str(run.record.get('data_fingerprint') or '')[:16]}".strip()
                 for run in runs],
        "Configuration hashes": [f"{run.experiment} {run.record.get('config_hash')}" for run in runs]}
    return [(name, "; ".join(dict.fromkeys(filter(None, values))) or "not recorded") for name, values in found.items()]


def no_test_dev(results: ResultSet) -> list[str]:
    """Why no run was scored on test-dev; empty where one was, or where there are no runs."""
    if not results.runs or any(results.measure(name, "test_dev", "AP") for name in results.runs):
        return []
    scored = [name for name in results.runs if results.measure(name, "val", "AP")]
    return list(dict.fromkeys(results.why_missing(name, "test_dev") for name in scored)) or ["no run has keypoints"]


def run_names(results: ResultSet) -> dict[str, str]:
    """What the page calls the runs in place of their scale, which it says once; none where two scales read the same."""
    sets = {"main runs": results if results.runs else None, "ablations": results.ablations}
    names = {found.scale(): name for name, found in sets.items() if found}
    return names if len(names) == sum(map(bool, sets.values())) else {}


def shared_notes(tables: list[Table]) -> list[str]:
    """The notes of three or more tables, which stand once above them all."""
    return [note for note, times in Counter(note for table in tables for note in table.notes).items() if times > 2]


def markdown_to_html(text: str) -> str:
    """A Markdown text below the page's own headings: its headings go one level down, its comments are dropped."""
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    return mistune.create_markdown(plugins=["table"])(re.sub("^#", "##", text, flags=re.MULTILINE))


def write_report(results_dir: Path | str, reference_dir: Path | None = None) -> Path:
    """Write ``report.html`` into a results folder and return its path; it shows the files of ``figures/``, names those
    missing, and has tables, comparison and claims made afresh. A section that cannot be made says why in its place."""
    results = load_results(results_dir)
    reference, claims = load_reference(results, reference_dir), decide_claims(results)
    deviations = (PAPER_DIR / "deviations.md").read_text(encoding="utf-8")
    headline_run = next(iter(results.runs.get("s6") or results.every_run), None)
    both = (results.root, reference.root) if reference and results.runs else None
    shown = {
        "results": results, "known": load_experiments(), "profile": load_profiles().get(results.profile),
        "claims": claims, "verdicts": VERDICTS, "headline": headline(results, claims), "reference": reference,
        "own_claims": [claim["id"] for claim in claims if claim["where"].startswith("this study")],
        "names": (names := run_names(results)), "shared_notes": shared_notes, "figures": FIGURES,
        "why_none": why_none,
        "drawn": [path.stem for path in (results.root / "figures").glob("*.svg")],
        "scored_released": (results.root / "released.csv").is_file(), "deviations": markdown_to_html(
            deviations.partition("\n")[2]), "released_tolerance": compare.RELEASED_TOLERANCE,
        "fingerprint_note": fingerprint_note(results, reference) if reference else None}
    shown |= {  # made where they stand, so that one that cannot be made costs its own section alone
        "provenance": lambda: provenance_rows(results), "no_test_dev": lambda: no_test_dev(results),
        "tables": lambda: build_tables(results, reference), "ablations": lambda: build_ablations(results, reference),
        "released": lambda: compare.released_rows(results.root), "findings": lambda: findings(results, reference),
        "statistics": lambda: statistics_rows(results.data),
        "comparison": lambda: [row for row in compare.compare_with_paper(results) if row["experiment"]],
        "reference_rows": lambda: [row for row in compare_sets(*both) if row["metric"] in ("AP", "AP50")
                                   and row["split"] in ("val", "test_dev", "val_box")] if both else [],
        "reference_changes": lambda: describe_difference(*both) if both else [],
        "differences": lambda: profile_differences(headline_run.config) if headline_run else []}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["briefly"] = partial(re.sub, "|".join(map(re.escape, names)) or "(?!)", lambda m: names[m[0]])
    template = environment.get_template("report.html.j2")
    page = template.new_context(shown)
    page.blocks = {name: [partial(_section, name, render)] for name, render in template.blocks.items()}
    path = results.root / "report.html"
    atomic_write(path, "".join(template.root_render_func(page)))
    return path


def _section(name: str, render: Callable[[Context], Iterable[str]], page: Context) -> Iterable[str]:
    """The HTML of one block of the template; one that fails names itself and leaves the others."""
    try:
        return list(render(page))
    except Exception as error:
        print(f"report.html: the section {name} could not be made: {(reason := explained(error))}")
        return [f'<h2 id="{name}">{name.capitalize()}</h2>\n<p class="answer">This section could not be made: '
                f"{escape(reason)}</p>\n"]


def readme_claims_table(results_dir: Path | str) -> str:
    """The claims and verdicts as a Markdown table for the README; claims that were not run follow in one line."""
    claims = decide_claims(results_dir)
    table = DataFrame([{"": claim["id"], "Claim": claim["claim"], "Where": claim["where"],
                        "Verdict": f"**{claim['verdict']}**", "Decided on": claim["scale"]}
                       for claim in claims if claim["verdict"] != NOT_RUN])
    waiting = [claim["id"] for claim in claims if claim["verdict"] == NOT_RUN]
    tail = f"\nNot run ({len(waiting)}; the reasons are in `claims.csv`): {', '.join(waiting)}.\n" if waiting else ""
    return f"{markdown(table, words=table)}\n{tail}"


def refresh_readme(readme: Path, results_dir: Path | str) -> Path:
    """Put the claims table between its marks in a file, which is returned; without a mark that is a StudyError."""
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
