"""Putting the answer of COCO's evaluation server into a run's results, so that Table 2 and Figure 6 fill themselves.

``python -m yolopose.evaluation.coco_server.answer results/paper-coco/s6/seed0 ANSWER [--date 2022-04-14] [--replace]``,
where ANSWER is what the server gave back (*Upload Results*, cocodataset.org #upload): its standard output with the ten
lines that pycocotools prints, or a JSON or ``name: value`` file of them. The numbers become ``test_dev`` of the run's
``metrics.json``, with where they came from; the next ``make tables figures report`` shows them.
"""

import argparse
import json
import re
import sys
from datetime import date
from pathlib import Path
from typing import Any

from yolopose.evaluation.coco_server.results_file import SCORED_PER_IMAGE, TEST_DEV_IMAGES, server_file_name
from yolopose.evaluation.scoring import KEYPOINT_METRICS
from yolopose.study.paper import COCO_IMAGES
from yolopose.utils.cli import exit_status
from yolopose.utils.errors import StudyError
from yolopose.utils.files import file_sha256, read_json, write_json
from yolopose.utils.locks import results_in_use
from yolopose.utils.typed import shown

NEEDED = ("AP", "AP50", "AP75", "APL", "AR")  # columns of Table 2
SOURCE = "COCO evaluation server, test-dev2017"
MAX_ANSWER_BYTES = 1 << 20
SEPARATORS = str.maketrans(dict.fromkeys("@[]|:=,\"'", " "))
NUMBER = re.compile(r"-?[\d.]+(?:[eE][-+]?\d+)?")
SUFFIX = {("0.50:0.95", "all"): "", ("0.50", "all"): "50", ("0.75", "all"): "75", ("0.50:0.95", "medium"): "M",
          ("0.50:0.95", "large"): "L"}  # by threshold and area in pycocotools' lines
SHORT = {"medium": "m", "large": "l", "iou": "", "oks": "", "all": "", "050": "50", "075": "75"}
# Pairs of which the first cannot be the larger: a stricter threshold, or precision beyond recall (101 recall points).
ORDER = (("AP", "AP50", 0.0), ("AP75", "AP50", 0.0), ("AR", "AR50", 0.0), ("AR75", "AR50", 0.0), ("AP", "AR", 0.012),
         ("AP50", "AR50", 0.012), ("AP75", "AR75", 0.012), ("APM", "ARM", 0.012), ("APL", "ARL", 0.012))


def read_answer(path: Path | str) -> dict[str, float]:
    """The metrics in a file from the server, as fractions, in COCO's order; a StudyError says why it is no answer.

    Accepted are pycocotools' lines, ``name: value`` lines, a JSON object of names and values (names as here, or as
    ``AP_50``, ``AP_medium``) and a JSON list of the ten in COCO's order.
    """
    path = Path(path)
    if not path.is_file():
        raise StudyError(f"{path}: no such file; give what the server returned (its scores or standard output)")
    if path.stat().st_size > MAX_ANSWER_BYTES:
        raise StudyError(f"{path}: has more than {MAX_ANSWER_BYTES >> 20} MiB; give the server's scores, "
                         "not the predictions")
    found: dict[str, float] = {}
    try:
        for name, value in _pairs(path.read_text(encoding="utf-8-sig")):
            if name in found:
                raise StudyError(f"{name} stands there twice; give the answer to one submission")
            try:
                found[name] = float(None if isinstance(value, bool) else value)
            except (TypeError, ValueError, OverflowError):
                raise StudyError(f"{name} is {shown(value)}, not a number; give the server's file unchanged") from None
        if not found:
            raise StudyError('holds no metrics; give pycocotools\' ten lines, or JSON such as {"AP": 0.629, '
                             '"AP50": 0.877, …}')
        if missing := [name for name in NEEDED if name not in found]:
            raise StudyError(f"lacks {', '.join(missing)}, which Table 2 needs; give the whole answer")
        for name, value in found.items():
            if not 0 <= value <= 1:
                hint = ("divide by 100: fractions are wanted" if 1 < value <= 100 else "the server scored nothing: "
                        "look at its log" if value == -1 else "give the server's file unchanged")
                raise StudyError(f"{name} is {value:g}, not within 0 and 1; {hint}")
        for low, high, slack in ORDER:
            if found.get(low, 0) > found.get(high, 1) + slack:
                raise StudyError(f"{low} {found[low]:g} is larger than {high} {found[high]:g}, which cannot be; "
                                 "the numbers are mixed up: give the server's file unchanged")
    except UnicodeDecodeError:
        raise StudyError(f"{path}: is no text; unpack what the server returned and give its scores") from None
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from None
    return {name: found[name] for name in KEYPOINT_METRICS if name in found}


def _pairs(text: str) -> list[tuple[str, Any]]:
    """Metrics and values of a JSON, of pycocotools' lines, or of ``name: value`` lines; other names are left out."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        lines = text.splitlines()
        return [pair for line in lines for pair in _summary_line(line)] or [
            (name, words[-1]) for words in (line.translate(SEPARATORS).split() for line in lines)
            if words and words[0].startswith(("AP", "AR")) and NUMBER.fullmatch(words[-1])
            and (name := _metric(" ".join(words[:-1])))]
    if isinstance(value, dict):
        nested = [part for part in value.values() if isinstance(part, (dict, list))]
        if len(nested) == 1 and not any(map(_metric, value)):  # {"stats": [...]}
            value = nested[0]
    if isinstance(value, list):
        if len(value) != len(KEYPOINT_METRICS):
            raise StudyError(f"a list of {len(value)} values; COCO's keypoint metrics are {len(KEYPOINT_METRICS)}: "
                             f"{', '.join(KEYPOINT_METRICS)}")
        value = dict(zip(KEYPOINT_METRICS, value, strict=True))
    return [(name, v) for key, v in value.items() if (name := _metric(key))] if isinstance(value, dict) else []


def _summary_line(line: str) -> list[tuple[str, str]]:
    """Metric and value of a line of pycocotools' summary; what it calls IoU is OKS here. Nothing of another line."""
    match line.partition("Average")[2].translate(SEPARATORS).split():
        case ["Precision" | "Recall" as kind, _, "IoU" | "OKS", *ends, "area", area, "maxDets", most, value]:
            threshold = ":".join(ends)
            if most != str(SCORED_PER_IMAGE):
                raise StudyError(f"has maxDets={most}; keypoints are scored with {SCORED_PER_IMAGE}: give the answer "
                                 "of the keypoint server")
            if (threshold, area) not in SUFFIX:
                raise StudyError(f"IoU={threshold}, area={area} is none of COCO's keypoint metrics; give the answer of "
                                 "the keypoint server")
            return [(("AP" if kind == "Precision" else "AR") + SUFFIX[threshold, area], value)]
    return []


def _metric(name: str) -> str | None:
    """Our name of a metric: ``AP_50``, ``AP IoU=0.50`` and ``AP_medium`` are AP50, AP50 and APM; another has none."""
    words = re.findall(r"[a-z]+|\d+", name.replace(".", "").lower())
    return {one.lower(): one for one in KEYPOINT_METRICS}.get("".join(SHORT.get(word, word) for word in words))


def put_answer(run_dir: Path | str, answer: Path | str, day: str | None = None, replace: bool = False) -> bool:
    """Write the server's answer into ``metrics.json`` of a run that was evaluated on COCO 2017.

    Returns whether anything was written; ``False`` where this very answer stands there already. A StudyError says why
    the run can have none, or that it holds another one and ``replace`` is not set. ``day`` is that of the submission.
    """
    run_dir, scores = Path(run_dir), read_answer(answer)
    if day is not None:
        try:
            date.fromisoformat(day)
        except ValueError:
            raise StudyError(f"--date {day}: write it as YYYY-MM-DD") from None
    if not run_dir.is_dir():
        raise StudyError(f"{run_dir}: no such folder; give one such as results/paper-coco/s6/seed0")
    for path in (run_dir / "run.json", run_dir / "metrics.json"):
        if not path.is_file():
            raise StudyError(f"{path}: not found; make evaluate writes it")
    with results_in_use(run_dir.resolve().parents[1], "server_answer"):
        record, metrics = _stored(run_dir / "run.json"), _stored(path)
        limit = _part(_part(record, "config"), "data").get("test_dev")
        val_all = _part(metrics, "val_all").get("images")
        if "val" not in metrics:
            raise StudyError(f"{run_dir}: a person detector has no keypoints; give the folder of a pose model's run")
        if not record.get("comparable") or val_all not in COCO_IMAGES["val_all"]:
            raise StudyError(f"{run_dir}: its run is not one on COCO 2017 at full scale (profile "
                             f"{record.get('profile')}, data {record.get('dataset')}, {val_all} val images), so the "
                             "server did not score it; give a folder of make reproduce PROFILE=paper DATA=<COCO>")
        if limit is not None:
            raise StudyError(f"{run_dir}: its configuration has {limit} test-dev images only; the server scores all "
                             f"{TEST_DEV_IMAGES:,}")
        submission = run_dir / server_file_name(str(record.get("experiment", run_dir.parent.name)))
        about = {"source": SOURCE, "answer": Path(answer).name, "answer_sha256": file_sha256(answer),
                 "submission_sha256": file_sha256(submission) if submission.is_file() else None,
                 "weights_sha256": record.get("weights_sha256")}
        before = _part(metrics, "test_dev")
        same = {**before, **scores, **about} == before
        if same and day in (None, before.get("date")):
            return False
        if "AP" in before and not same and not replace:
            raise StudyError(f"{path}: test_dev holds another answer already (AP {before['AP']}, from "
                             f"{before.get('answer', before.get('source', 'this study'))}); give --replace to put this "
                             "one in its place")
        part = {**scores, "images": TEST_DEV_IMAGES, **about, **({"date": day} if day else {})}
        write_json(path, {**metrics, "test_dev": part})
    return True


def _stored(path: Path) -> dict[str, Any]:
    if not isinstance(value := read_json(path), dict):
        raise StudyError(f"{path}: is no JSON object; delete it and repeat make train evaluate")
    return value


def _part(value: dict[str, Any], key: str) -> dict[str, Any]:
    """The object at ``key``; an empty one where there is none."""
    return part if isinstance(part := value.get(key), dict) else {}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m yolopose.evaluation.coco_server.answer",
                                     description="Put the COCO server's answer into the results of a run.")
    parser.add_argument("run", type=Path, help="results/<profile>/<experiment>/seed<k>")
    parser.add_argument("answer", type=Path, help="the server's scores: pycocotools' lines, or JSON")
    parser.add_argument("--date", help="of the submission, YYYY-MM-DD")
    parser.add_argument("--replace", action="store_true", help="replace another answer that stands there")
    options = parser.parse_args(arguments)

    def action() -> None:
        path, words = options.run / "metrics.json", "this answer stands there already"
        if put_answer(options.run, options.answer, options.date, options.replace):
            scores = read_json(path)["test_dev"]
            shown = ", ".join(f"{name} {100 * scores[name]:.1f}" for name in KEYPOINT_METRICS if name in scores)
            words = f"test_dev written: {shown}; make tables figures report shows it"
        print(f"{path}: {words}")

    return exit_status(action, "server_answer")


if __name__ == "__main__":
    sys.exit(main())
