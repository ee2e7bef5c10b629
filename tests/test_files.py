"""Stored files that are damaged or made up: one message that names the file, never a traceback or a hang."""

import gzip
import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.conftest import REPO
from yolopose.utils import files
from yolopose.utils.errors import StudyError
from yolopose.utils.files import DEEPEST, parse_json, read_csv, read_json, read_object, read_table


@pytest.mark.parametrize("content, words", [
    (b"[" * 100_000, "deeper than 64 levels"), (b"[" * 65 + b"]" * 65, "deeper than 64 levels"),
    (b'{"a":[1,' * 33 + b"1" + b"]}" * 33, "deeper than 64 levels"),
    (b"1" * 5000, "4300 digits.*5000 digits"), (b'{"AP": NaN}', "NaN is no finite"), (b"-Infinity", "-Infinity is no"),
    (b"[1e999]", "1e999 is no finite"), (b'"\xff"', "utf-8"), (b'"\xed\xa0\x80"', "utf-8"), (b'"a\0"', "control"),
    (b'"a\\u0000"', "NUL"), (b'"\\ud83d"', "half a character"),
    (b'"\\uDE00\\ud83d"', "half a character"), (b"", "Expecting")])
def test_what_is_no_json_is_said_in_one_message(tmp_path, content, words):
    for path in (tmp_path / "a.json", tmp_path / "a.json.gz"):
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        with pytest.raises(StudyError, match=f"^{path}: is not JSON .*{words}.*; restore it, or delete it and repeat"):
            read_json(path)
        assert read_object(path) == {}


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/zero", path),
                                  lambda path: os.symlink("nowhere", path)], ids=["folder", "pipe", "device", "link"])
@pytest.mark.parametrize("read", [read_json, read_csv])
def test_what_is_no_file_is_not_opened(tmp_path, make, read):
    make(path := tmp_path / "run.json")
    with pytest.raises(StudyError, match=f"{path}: is no file; move it away"):
        read(path)


def test_packed_json_that_is_damaged_or_swells_is_refused(tmp_path, monkeypatch):
    packed = bytearray(gzip.compress(json.dumps(list(range(3000))).encode()))
    packed[200] ^= 255
    (tmp_path / "damaged.json.gz").write_bytes(packed)
    (tmp_path / "bomb.json.gz").write_bytes(gzip.compress(b" " * (8 << 20)))
    monkeypatch.setattr(files, "UNPACKED", 1 << 20)
    for name, words in (("damaged", "cannot be read"), ("bomb", "unpacks to over 1.0 MB")):
        with pytest.raises(StudyError, match=f"{name}.json.gz: {words}"):
            read_json(tmp_path / f"{name}.json.gz")


@given(st.text("\\u0d8cé\U0001f600\""), st.booleans())
@example("\\u0000 \\ud83d \U0001f600\U0001f600", True)
def test_texts_that_only_look_so_come_back(value, escaped):
    assert parse_json(json.dumps(value, ensure_ascii=escaped).encode()) == value
    assert parse_json(b"\xef\xbb\xbf" + json.dumps([value]).encode()) == [value], "behind the mark that Windows writes"


def test_the_deepest_value_that_is_read_can_be_written():
    value: Any = 1
    for _ in range(DEEPEST):
        value = [value]
    assert json.loads(json.dumps(parse_json(json.dumps(value).encode()), indent=1)) == value


KILLED = """
import os, signal
from yolopose.utils.files import replaced
with replaced({!r}) as file:
    file.write(b"half of")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["metrics.json", "curve.csv", "checkpoint.pt", "weights.pt", "predictions.json.gz"])
def test_what_is_killed_while_it_writes_leaves_the_old_file_and_one_that_git_does_not_see(tmp_path, name):
    (path := tmp_path / name).write_bytes(b"old")
    assert subprocess.run([sys.executable, "-c", KILLED.format(str(path))], cwd=REPO).returncode == -signal.SIGKILL
    (left,) = [other for other in tmp_path.iterdir() if other != path]
    assert path.read_bytes() == b"old" and left.read_bytes() == b"half of" and left in tmp_path.glob(f".{name}.*")
    seen = ["git", "check-ignore", "-q", f"results/reference/mini/s6/seed0/{left.name}"]
    assert subprocess.run(seen, cwd=REPO).returncode == 0


@pytest.mark.parametrize("content, words", [
    (b"", "does not name its columns"), (b"a,a\n1,2\n", "a name of its own"),
    (b"a,b\n1,2\n\n3\n", "row 4 has 1 cells instead of 2"),
    (b"a,b\n1,2,3\n", "row 2 has 3 cells"), (b'a\n"1\n', "unexpected end"), (b"a\n\xff\n", "utf-8"),
    (b"a\n" + b"x" * 200_000, "larger than field limit")])
def test_what_is_no_table_is_said_in_one_message(tmp_path, content, words):
    (path := tmp_path / "curve.csv").write_bytes(content)
    for read in (read_csv, read_table):
        with pytest.raises(StudyError, match=f"^{path}: cannot be read as a table .*{words}.*; restore it, or delete"):
            read(path)


def test_tables_are_text(tmp_path):
    (path := tmp_path / "t.csv").write_text("\ufeffa,b\n0.50,\n\nnan,1e3\n")
    assert read_csv(path) == read_table(path).to_dict("records") == [{"a": "0.50", "b": ""}, {"a": "nan", "b": "1e3"}]
