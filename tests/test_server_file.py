"""The COCO server's file: what is written, in memory that does not grow with it, and what the check of it refuses."""

import errno
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from tests.coco_folder import make_folder
from tests.lively import SHALLOW, lively_model
from tests.test_scoring import SIGMA, peak_bytes, scene
from tests.tiny import CPU
from yolopose.data.coco import CocoSplit, load_dataset
from yolopose.evaluation.coco_server import results_file
from yolopose.evaluation.coco_server.results_file import check_server_file, main, server_file_name, write_server_file
from yolopose.evaluation.evaluate import predict_split, stream_split
from yolopose.evaluation.predictions import written_through
from yolopose.evaluation.scoring import score_keypoints
from yolopose.study.config import EvaluateConfig
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json, write_json_gz

NAME = "person_keypoints_test-dev2017_s6_results"
IDS = range(1, 20289)


def detection(image: int, score: float = 0.5, **changed: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": 1, "bbox": [1.0, 2.0, 3.0, 4.0], "score": score,
            "keypoints": [float(n) for n in range(51)]} | changed


def row(**changed: Any) -> dict[str, Any]:
    one = {k: v for k, v in detection(1).items() if k != "bbox"} | changed
    return {k: v for k, v in one.items() if v is not ...}


def make_zip(folder: Path, content: Any, name: str = NAME, inside: str | None = None) -> Path:
    """A zip around ``content``: bytes, or a value that becomes JSON."""
    path = folder / f"{name}.zip"
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(inside or f"{name}.json", raw)
    return path


def generated(images: int, each: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Detections as a model gives them: coordinates to 0.01 px, scores to 5 decimals, best first."""
    rng = np.random.default_rng(seed)
    for image in range(1, images + 1):
        joints = (rng.random((each, 17, 3)) * (640, 480, 1)).round(2).reshape(each, 51)
        for score, keypoints in zip(np.sort(rng.random(each))[::-1].round(5), joints, strict=True):
            yield {"image_id": image, "category_id": 1, "score": float(score), "bbox": [0.0, 0.0, 1.0, 1.0],
                   "keypoints": keypoints.tolist()}


def written(folder: Path, rows: Any) -> list[dict[str, Any]]:
    """The detections in the server's file of these predictions."""
    path = folder / server_file_name("s6")
    count = write_server_file(path, rows)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"{NAME}.json"] and archive.testzip() is None
        kept = json.loads(archive.read(f"{NAME}.json"))
    assert len(kept) == count
    return kept


def test_what_is_written_is_what_the_server_takes(tmp_path: Path) -> None:
    path = tmp_path / server_file_name("s6")
    assert path.name == "person_keypoints_test-dev2017_s6_results.zip"
    rows = written(tmp_path, [detection(7, 0.25), detection(9)])
    assert rows[0] == row(image_id=7, score=0.25) and type(rows[0]["image_id"]) is int
    assert [list(one) for one in rows] == [["image_id", "category_id", "keypoints", "score"]] * 2
    first = path.read_bytes()
    write_server_file(path, iter([detection(7, 0.25), detection(9)]))
    assert path.read_bytes() == first
    assert path.stat().st_mode & 0o777 == 0o644 and [p.name for p in tmp_path.iterdir()] == [path.name]
    assert written(tmp_path, []) == []


def test_the_best_twenty_of_each_image(tmp_path: Path) -> None:
    scores = [0.5] * 10 + [0.9] * 15  # ties: the earlier detection is kept, as pycocotools does
    rows = [detection(3, s, keypoints=[float(n)] * 51) for n, s in enumerate(scores)] + [detection(4)]
    kept = written(tmp_path, rows)
    assert len(kept) == 21 and [one["keypoints"][0] for one in kept[:20]] == [*range(10, 25), *range(5)]


def test_twenty_give_the_metrics_of_three_hundred(tmp_path: Path) -> None:
    """On images with more than 20 detections, many of equal scores."""
    annotations, rows = scene(5, images=2, most=90)
    kept = written(tmp_path, rows)
    every = score_keypoints(annotations, rows, [1, 2], SIGMA)
    assert score_keypoints(annotations, kept, [1, 2], SIGMA) == every
    assert len(rows) > len(kept) == 40 and 0.05 < every["AP"] < 0.9


@pytest.mark.parametrize(("rows", "wanted"), [
    ([detection(1), detection(2, float("nan"))], "image 2 is not a finite number"),
    ([detection(1), detection(2, float("inf"))], "image 2 is not a finite number"),
    ([detection(1), detection(2), detection(1)], "image 1 are not next to each other"),
    ([*generated(10, 2)], "keep fewer detections"),
])
def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path, monkeypatch, rows: Any, wanted: str) -> None:
    monkeypatch.setattr(results_file, "MAX_JSON_BYTES", 2000)
    path = tmp_path / server_file_name("s6")
    path.write_bytes(b"old")
    with pytest.raises(StudyError, match=wanted):
        write_server_file(path, rows)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_named_and_an_error_of_the_predictions_is_not_blamed_on_it(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / server_file_name("s6")
    images = (tmp_path / name for name in ("no-such-image.jpg",))
    with pytest.raises(FileNotFoundError, match="no-such-image"):
        write_server_file(path, (detection(len(image.read_bytes())) for image in images))
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "full")))
    with pytest.raises(StudyError, match="no space left on the disk"):
        write_server_file(path, [detection(1)])
    assert not list(tmp_path.iterdir())


def test_a_written_file_is_valid(tmp_path: Path) -> None:
    written(tmp_path, generated(50, 30))
    report = check_server_file(tmp_path / server_file_name("s6"), IDS)
    assert report.problems == [] and (report.detections, report.images, report.most) == (1000, 50, 20)
    assert any("20,238 of 20,288 images have no detection" in note for note in report.notes)
    assert report.json_bytes > report.zip_bytes > 0


@pytest.mark.parametrize(("content", "wanted"), [
    ([row(image_id=20289)], r"image 20289\): image_id is not one of the list"),
    *(([row(image_id=one)], "entry 0: image_id is no whole number") for one in (1.0, "1", True)),
    *(([row(category_id=one)], "category_id is not 1") for one in (0, 1.0)),
    *(([row(keypoints=one)], "not 51 numbers") for one in ([0.0] * 50, {"x": 1})),
    *(([row(keypoints=one)], "no finite number") for one in ([None] * 51, [True] * 51, [10**400] + [0] * 50)),
    *(([row(score=one)], "score is no finite number") for one in (float("nan"), float("inf"), "0.5")),
    ([row(score=...)], "has no score; add it"),
    ([row(image_id=...)], "has no image_id"),
    ([row(keypoints=...)], "has no keypoints"),
    ([row(bbox=[0, 0, 1, 1])], "field 'bbox' .with it the server takes the file for another task.; leave it out"),
    ([row(), 7, []], "entry 1 and 1 more: is no object"),
    ([row(score=0.1)] * 301, "1 images have more than 300 detections, image 1 has 301"),
    ([], "not one detection"),
    ({"image_id": 1}, "the JSON cannot be read: Extra data; it must be one list of flat objects"),
    *((raw, "the JSON cannot be read: it is no list; ") for raw in (b"7", b"null", b'"[]"')),
    (b"[{}", "the JSON cannot be read after 1 entries: Expecting ',' delimiter"),
    (b"[{} {}]", "the JSON cannot be read: Expecting ',' delimiter"),
    (b'["' + b"x" * (3 << 20) + b'"]', "an entry has more than 1,048,576 characters"),
    (b"[" + b"[" * 900 + b"]" * 900 + b"]", "is no object"),
    (b"", "cannot be read: Expecting value.*; it must be one list of flat objects"),
    (b"[1, 2", "cannot be read: Expecting ',' delimiter"),
    (b"[1 2]", "cannot be read: Expecting ',' delimiter"),
    (b"[1] x", "cannot be read: Extra data"),
    *((raw, "cannot be read")
      for raw in (b"[1,]", b"[\xff]", b"\xef\xbb\xbf[]", b"[" * 60000, b"[" + b"1" * 5000 + b"]")),
    (b'["' + b"x" * 70000 + b'"]', "is no object"),
])
def test_every_fault_is_named(tmp_path: Path, content: Any, wanted: str) -> None:
    (problem,) = check_server_file(make_zip(tmp_path, content), IDS).problems
    assert re.search(wanted, problem)


def test_faults_are_counted_not_repeated_and_stay_few(tmp_path: Path) -> None:
    report = check_server_file(make_zip(tmp_path, [row(), row(score=None, category_id=2), row(score=None)]), IDS)
    assert sorted(report.problems) == ["entry 1 and 1 more: score is no finite number; give the confidence as a number",
                                       "entry 1: category_id is not 1, which is COCO's person; set it to 1"]
    report = check_server_file(make_zip(tmp_path, [row(**{f"f{n}": 0}) for n in range(500)]), IDS)
    assert len(report.problems) <= 42


@pytest.mark.parametrize(("name", "inside", "wanted"), [
    ("results", None, "the server wants person_keypoints_test-dev2017_<algorithm>_results.zip"),
    ("person_keypoints_test-dev2017__results", None, "the server wants"),
    ("person_keypoints_val2017_s6_results", None, "the server wants"),
    *((NAME, f"{folder}/{NAME}.json", "without a folder") for folder in ("..", "", "results")),
    (NAME, "other.json", f"must be named {NAME}.json"),
])
def test_names(tmp_path: Path, name: str, inside: str | None, wanted: str) -> None:
    (problem,) = check_server_file(make_zip(tmp_path, [row()], name, inside), IDS).problems
    assert wanted in problem


def test_two_files_none_a_link_another_method_and_no_zip(tmp_path: Path) -> None:
    path, link = make_zip(tmp_path, [row()]), zipfile.ZipInfo(f"{NAME}.json")
    link.external_attr = 0o120777 << 16
    for mode, method, entry, wanted in (("a", zipfile.ZIP_STORED, "__MACOSX/x", "holds 2 entries"),
                                        ("w", zipfile.ZIP_STORED, None, "holds 0 entries (nothing)"),
                                        ("w", zipfile.ZIP_STORED, link, "is a link"),
                                        ("w", zipfile.ZIP_LZMA, f"{NAME}.json", "another method than deflate")):
        with zipfile.ZipFile(path, mode, method) as archive:
            if entry:
                archive.writestr(entry, "[]")
        assert wanted in check_server_file(path, IDS).problems[0]
    path.write_bytes(b"[]")
    assert "the zip is damaged" in check_server_file(path, IDS).problems[0]


def test_damage_inside_and_a_size_that_lies(tmp_path: Path) -> None:
    path = make_zip(tmp_path, list(generated(20, 5)))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(bytes(raw))
    assert any("the zip is damaged" in p or "cannot be read" in p for p in check_server_file(path, IDS).problems)

    path = make_zip(tmp_path, [row()] + [0] * 1000)
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"PK\x01\x02")
    raw[entry + 24:entry + 28] = (40).to_bytes(4, "little")  # says that it unpacks to 40 bytes
    path.write_bytes(bytes(raw))
    assert check_server_file(path, IDS).problems


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_file, "MAX_JSON_BYTES", 1 << 20)
    path = make_zip(tmp_path, b"[" + b" " * (2 << 20) + b"]")
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("was opened"))
    (problem,) = check_server_file(path, IDS).problems
    assert "2 MiB unpacked, which is not read (limit 1 MiB)" in problem
    path.write_bytes(bytes((1 << 20) + 1))
    assert "the zip has 1 MiB, which is not read" in check_server_file(path, IDS).problems[0]


@pytest.mark.parametrize(("entry", "count", "wanted"), [
    (b'{"image_id":7},', 15_000, "has no score; add it"), (b"{},", 25_000, "has more than 20,000 entries"),
    (b"[],", 25_000, "an entry has more than 4,096 characters"), (b"0,", 25_000, "an entry has more than"),
])
def test_memory_and_time_of_the_check_are_bounded(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: bytes, count: int, wanted: str) -> None:
    """Many small entries, which would take 16 times their room as objects."""
    monkeypatch.setattr(results_file, "MAX_ENTRIES", 20_000)
    monkeypatch.setattr(results_file, "PIECE", 1 << 12)
    path, problems = make_zip(tmp_path, b"[" + entry * count + b"0]"), []
    assert peak_bytes(lambda: problems.extend(check_server_file(path).problems)) < 1 << 20
    assert any(wanted in one for one in problems)


def test_entries_are_numbered_across_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_file, "PIECE", 1000)
    rows = [one for n in range(1, 41) for one in (row(image_id=n),) * 2]
    report = check_server_file(make_zip(tmp_path, [*rows, row(score="ä")]), IDS)
    assert report.problems == ["entry 80: score is no finite number; give the confidence as a number"]
    assert (report.detections, report.images, report.most) == (81, 40, 3)
    raw = json.dumps(rows, indent=1).encode()
    assert check_server_file(make_zip(tmp_path, raw), IDS).problems == []
    (problem,) = check_server_file(make_zip(tmp_path, raw[:-500]), IDS).problems
    assert re.search(r"cannot be read after 7\d entries: ", problem)


@pytest.mark.parametrize("start", range(4))
def test_any_byte_of_the_zip_may_be_wrong(tmp_path: Path, start: int) -> None:
    path = make_zip(tmp_path, [row()])
    raw = path.read_bytes()
    for place in range(start, len(raw), 4):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1:])
        check_server_file(path, IDS)
        path.write_bytes(raw[:place])
        assert check_server_file(path, IDS).problems


def test_without_the_list_the_ids_are_said_to_be_unchecked_and_another_list_is_refused(tmp_path: Path) -> None:
    report = check_server_file(make_zip(tmp_path, [row(image_id=10**9)]))
    assert not report.problems and "image ids were not checked" in report.notes[0]
    (problem,) = check_server_file(make_zip(tmp_path, [row()]), range(1, 501)).problems
    assert "the list of images has 500, test-dev2017 has 20,288" in problem


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "image_info_test-dev2017.json"
    images.write_text(json.dumps({"images": [
        {"id": n, "file_name": f"{n}.jpg", "width": 640, "height": 480} for n in IDS]}))
    path = make_zip(tmp_path, [row()])
    assert main([str(path), "--images", str(images)]) == 0
    assert f"{path}: valid: 1 detections on 1 images" in capsys.readouterr().out
    path = make_zip(tmp_path, [row(score=None), row(image_id=0)])
    assert main([str(path), "--images", str(images)]) == 2
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said[:3]] == ["problem", "problem", "note"] and "invalid" in said[-1]
    assert main([str(tmp_path / "none.zip")]) == 2
    assert "no such file; make evaluate writes one" in capsys.readouterr().err
    for other, wanted in (('{"images": [{"id": "1"}]}', "images[0].id: is '1', must be a whole number"),
                          ('{"images": [1]}', "images[0]: is no object"), ("[]", "lacks the list (images)"),
                          ('{"images": []}', "images: is empty"), ("[" * 9000, "nested too deeply")):
        images.write_text(other)
        assert main([str(path), "--images", str(images)]) == 2
        assert wanted in capsys.readouterr().err


def test_a_list_is_written_through(tmp_path: Path) -> None:
    for rows in ([], [{"a": 1.5}], list(generated(40, 60))):
        write_json_gz(tmp_path / "whole.json.gz", rows)
        assert list(written_through(tmp_path / "streamed.json.gz", iter(rows))) == rows
        assert (tmp_path / "streamed.json.gz").read_bytes() == (tmp_path / "whole.json.gz").read_bytes()
        assert read_json(tmp_path / "streamed.json.gz") == rows


def test_a_list_that_is_not_read_to_its_end_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "list.json.gz"
    path.write_bytes(b"old")
    rows = written_through(path, [1, 2, 3])
    assert next(rows) == 1
    rows.close()
    with pytest.raises(ValueError, match="not JSON compliant"):
        list(written_through(path, [1, float("nan")]))
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(StudyError, match="below-a-file"):
        list(written_through(path / "below-a-file.json.gz", [1]))


@pytest.mark.parametrize("write", [write_server_file, lambda path, rows: list(map(len, written_through(path, rows)))])
def test_memory_of_writing_does_not_grow_with_the_images(tmp_path: Path, write: Any) -> None:
    """The 60 further images have 1,800 detections, 3.6 MB as objects. The least growth of three attempts counts: what
    the work needs is in all of them, garbage that nobody has collected yet is not."""
    found = []
    while len(found) < 3 and min(found, default=300_000) >= 300_000:
        few, many = (peak_bytes(lambda n=n: write(tmp_path / server_file_name("s6"), generated(n, 30)))
                     for n in (20, 80))
        found.append(many - few)
    assert min(found) < 300_000


def test_predicting_into_the_file_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of predictions of twice the images needs no more memory; a list of them does, which shows that the
    measure sees growth."""
    split = load_dataset(make_folder(tmp_path / "data", images=6, test_dev=True)).test_dev
    model = lively_model(**SHALLOW).fuse()
    cfg = EvaluateConfig(confidence=0.0, nms_iou=1.0, max_detections=100, batch_size=2)
    monkeypatch.setattr(results_file, "SCORED_PER_IMAGE", 300)
    monkeypatch.setattr(CocoSplit, "image_id", lambda _, index: index)  # the same images again are others

    def stream(times: int, make: Any) -> int:
        repeated = split.subset([*range(len(split))] * times)
        return peak_bytes(lambda: write_server_file(
            tmp_path / server_file_name("s6"), make(model, repeated, 64, cfg, CPU)))

    predict_split(model, split, 64, cfg, CPU)  # first use imports and caches
    few, many = stream(2, stream_split), stream(4, stream_split)
    assert many - few < 200_000
    assert stream(4, predict_split) - many > 1_000_000
