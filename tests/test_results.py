"""Writing and reading results: atomic, reproducible to the byte, clear about damage."""

import errno
import os
import time
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolopose.evaluation.archive import load_predictions
from yolopose.utils import files
from yolopose.utils.errors import StudyError
from yolopose.utils.files import atomic_write, read_csv, read_json, write_csv, write_json, write_json_gz
from yolopose.utils.provenance import git_state, provenance

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
JSON = st.recursive(st.none() | st.booleans() | st.integers(-10**9, 10**9) | FINITE | TEXT,
                    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


def test_atomic_write_makes_folders_and_leaves_nothing_beside(tmp_path):
    target = tmp_path / "a" / "b.txt"
    atomic_write(target, "one")
    atomic_write(target, b"two")
    assert target.read_text() == "two"
    assert [p.name for p in target.parent.iterdir()] == ["b.txt"]
    assert target.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("number, words", [(errno.ENOSPC, "no space left"), (errno.EROFS, "not writable"),
                                           (errno.EIO, "cannot be written")])
def test_failed_write_keeps_the_old_file_and_says_why(tmp_path, monkeypatch, number, words):
    target = tmp_path / "b.json"
    write_json(target, {"old": 1})
    monkeypatch.setattr(files.os, "fsync", Mock(side_effect=OSError(number, os.strerror(number))))
    with pytest.raises(StudyError, match=words) as caught:
        write_json(target, {"new": 2})
    assert str(target) in str(caught.value)
    assert read_json(target) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["b.json"], "the temporary file must go"


@given(JSON)
def test_json_round_trip(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("json")
    for name, write in (("v.json", write_json), ("v.json.gz", write_json_gz)):
        write(folder / name, value)
        assert read_json(folder / name) == value


def test_json_has_the_same_bytes_at_another_time_and_no_nan(tmp_path, monkeypatch):
    write_json_gz(tmp_path / "a.json.gz", [1, 2, 3])
    monkeypatch.setattr(time, "time", lambda: 2e9)
    write_json_gz(tmp_path / "b.json.gz", [1, 2, 3])
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"AP": float("nan")})
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("name, content, words", [
    ("missing.json", None, "not found"),
    ("half.json", b'{"AP": 0.5, "AP50', "is not JSON"),
    ("bytes.json", b"\xff\xfe\x00", "is not JSON"),
    ("half.json.gz", b"\x1f\x8b\x08\x00\x00", "cannot be read"),
    ("plain.json.gz", b"[]", "cannot be read")])
def test_damaged_json_names_the_file(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(StudyError, match=words) as caught:
        read_json(tmp_path / name)
    assert name in str(caught.value)


def test_csv_round_trip_and_columns(tmp_path):
    write_csv(tmp_path / "t.csv", [{"a": 1, "b": None}, {"a": "x, y", "b": 0.5}])
    assert (tmp_path / "t.csv").read_bytes() == b'a,b\n1,\n"x, y",0.5\n'
    assert read_csv(tmp_path / "t.csv") == [{"a": "1", "b": ""}, {"a": "x, y", "b": "0.5"}]
    with pytest.raises(StudyError, match="not found"):
        read_csv(tmp_path / "u.csv")


def test_hashes_ignore_order_and_see_values_and_bytes(tmp_path):
    assert files.config_hash({"a": 1, "b": [1, 2]}) == files.config_hash({"b": [1, 2], "a": 1})
    assert len({files.config_hash(v) for v in ({"a": 1}, {"a": 2}, {"a": [1]}, {"b": 1}, {})}) == 5
    (tmp_path / "abc").write_bytes(b"abc")
    assert files.file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_provenance_names_versions_and_works_without_git(tmp_path, monkeypatch):
    found = provenance()
    assert found["packages"]["torch"] and found["hardware"]["cores"] >= 1
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() == {"commit": None, "dirty": None}


ONE = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [1, 2, 3, 4], "keypoints": [1, 2, 0.5]}


@pytest.mark.parametrize("name, content", [
    *(("predictions.json.gz", value) for value in (
        None, 3, {"a": 1}, [1], [{}], [ONE | {"score": 2}], [ONE | {"score": "high"}], [ONE | {"bbox": [1, 2, 3]}],
        [ONE | {"bbox": None}], [ONE, ONE | {"keypoints": []}], [ONE | {"keypoints": 3}])),
    ("predictions.npz", b""), ("predictions.npz", b"PK\x03\x04"), ("predictions.npz", {"image_id": np.zeros(3)}),
    ("predictions.npz", dict.fromkeys(("score", "bbox", "keypoints", "kept", "image_id", "category_id"), np.zeros(3)))])
def test_damaged_predictions_are_named_with_the_remedy(tmp_path, name, content):
    if name.endswith(".gz"):
        write_json_gz(tmp_path / name, content)
    elif isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.savez(tmp_path / name, **content)
    with pytest.raises(StudyError, match=rf"{name}: holds no predictions .*evaluate again"):
        load_predictions(tmp_path)
    write_json_gz(tmp_path / "predictions.json.gz", [ONE, ONE])
    assert load_predictions(tmp_path) == [ONE, ONE]
