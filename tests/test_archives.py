"""Unpacking: what is written, what is refused before anything is written, what an interrupted unpacking leaves."""

import contextlib
import errno
import os
import stat
import zipfile
from copy import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.coco_folder import tree
from yolopose.data import prepare
from yolopose.data.prepare import unpack
from yolopose.utils import files
from yolopose.utils.errors import StudyError

GOOD = {"train2017/1.jpg": b"one" * 100, "train2017/2.jpg": b"two" * 2000, "annotations/a.json": b"{}"}


def make(path: Path, entries: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for entry in entries:
            opened.writestr(*entry)
    return path


@pytest.fixture
def good(tmp_path) -> Path:
    return make(tmp_path / "a.zip", list(GOOD.items()))


def link(name: str, kind: int = stat.S_IFLNK) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    return info


def packed(name: str, how: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.compress_type = how
    return info


def test_files_and_folders_come_out_as_they_went_in(tmp_path):
    archive = make(tmp_path / "a.zip", [("train2017/", b""), *GOOD.items(), ("empty/", b""), ("zero", b"")])
    assert unpack(archive, tmp_path / "out") == {"files": 4, "bytes": 300 + 6000 + 2}
    assert tree(tmp_path / "out") == {**GOOD, "zero": b""}


@pytest.mark.parametrize("entry, words", [
    ("../evil", "'../evil' leads out of"), ("train2017/../../evil", "leads out"), ("train2017/../evil", "leads out"),
    ("/evil", "leads out"), ("//evil", "leads out"), (link("link"), "'link' is a link"), (link("a/link"), "is a link"),
    (link("tty", stat.S_IFCHR), "is no file"), (link("pipe", stat.S_IFIFO), "is no file"),
    ("GOOD.jpg", "'GOOD.jpg' is there twice"), (packed("a", zipfile.ZIP_LZMA), "packed in a way"),
    (packed("a", zipfile.ZIP_BZIP2), "packed in a way")])
def test_hostile_archives_are_refused_before_anything_is_written(tmp_path, entry, words):
    target = tmp_path / "box" / "out"
    target.mkdir(parents=True)
    archive = make(tmp_path / "a.zip", [("good.jpg", b"good"), (entry, b"/etc/passwd")])
    with pytest.raises(StudyError, match=f"a.zip: entry .*{words}.*nothing was unpacked. Remove"):
        unpack(archive, target)
    assert sorted(tmp_path.rglob("*")) == [archive, tmp_path / "box", target]


def test_the_same_name_twice_and_encrypted_entries_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = make(tmp_path / "twice.zip", [("a", b"1"), ("a", b"2")])
    raw = bytearray(make(tmp_path / "secret.zip", [("a", b"1")]).read_bytes())
    raw[raw.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "secret.zip").write_bytes(raw)
    for path, words in ((twice, "is there twice"), (tmp_path / "secret.zip", "is encrypted")):
        with pytest.raises(StudyError, match=f"{path}: entry 'a' {words}.*nothing was unpacked"):
            unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bombs_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    """By what they declare, more than which is never unpacked; and entries that share their bytes."""
    monkeypatch.setattr(prepare, "SWELLS_TO", 1 << 20)
    swelling = make(tmp_path / "swelling.zip", [("a", bytes(4 << 20))])
    shared = tmp_path / "shared.zip"
    with zipfile.ZipFile(shared, "w") as opened:
        opened.writestr("0", b"x" * 10_000)
        for i in range(1, 50):
            (info := copy(opened.getinfo("0"))).filename = str(i)
            opened.filelist.append(info)
            opened.NameToInfo[str(i)] = info
    for path in (swelling, shared):
        with pytest.raises(StudyError, match=f"{path}: (holds .* in a file of .*: a zip bomb|is no sound zip archive)"):
            unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", [0, 10, 4000, -5, "flip"])
def test_damaged_archives_are_named_and_leave_no_file(tmp_path, damage):
    archive = make(tmp_path / "a.zip", [("a.bin", os.urandom(9000)), ("b.bin", b"b")])
    raw = bytearray(archive.read_bytes())
    raw[4000] ^= 255
    archive.write_bytes(raw if damage == "flip" else archive.read_bytes()[:damage])
    words = "entry 'a.bin' is damaged" if damage == "flip" else "is no sound zip archive"
    with pytest.raises(StudyError, match=f"a.zip: {words}"):
        unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {}


def test_unpacking_goes_on_and_keeps_finished_files(tmp_path, good):
    out = tmp_path / "out"
    (out / "train2017").mkdir(parents=True)
    (out / "train2017" / "1.jpg").write_bytes(b"X" * 300)  # of the right size: taken as finished
    (out / "train2017" / "2.jpg").write_bytes(b"cut off")
    before = (out / "train2017" / "1.jpg").stat().st_mtime_ns
    assert prepare._occupied(prepare._entries(good, out)[1]) == 8192 + 4096
    assert unpack(good, out)["files"] == 3
    assert tree(out) == {**GOOD, "train2017/1.jpg": b"X" * 300}
    assert (out / "train2017" / "1.jpg").stat().st_mtime_ns == before and prepare._entries(good, out)[1] == []


@pytest.mark.parametrize("name", ["train2017", "train2017/1.jpg"])
def test_links_in_the_target_lead_nowhere(tmp_path, good, name):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (out / name).parent.mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "mine").write_bytes(b"mine")
    (out / name).symlink_to(elsewhere if name == "train2017" else elsewhere / "mine")
    with pytest.raises(StudyError, match="leads out of .*or the link in the folder"):
        unpack(good, out)
    assert tree(elsewhere) == {"mine": b"mine"}


def test_too_little_space_is_said_before_anything_is_written(tmp_path, good, monkeypatch):
    free = [16384, 4096]
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(free=free.pop()))
    with pytest.raises(StudyError, match="unpacking a.zip needs 16384 bytes of disk and 4096 bytes are free"):
        unpack(good, tmp_path / "not" / "yet")
    assert not (tmp_path / "not").exists()
    assert unpack(good, tmp_path / "out")["files"] == 3, "just enough"


def test_a_disk_that_fills_up_is_named_and_the_same_command_goes_on(tmp_path, good, monkeypatch):
    copy, calls = prepare.zipfile.shutil.copyfileobj, []

    def full_at_the_second(source, target):
        calls.append(target)
        if len(calls) == 2:
            target.write(source.read(1000))
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target)

    monkeypatch.setattr(prepare.zipfile.shutil, "copyfileobj", full_at_the_second)
    with pytest.raises(StudyError, match="2.jpg: no space left on the disk; free some and repeat"):
        unpack(good, tmp_path / "out")
    unpack(good, tmp_path / "out")
    assert tree(tmp_path / "out") == GOOD


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab./\\:é\0"), min_size=1, max_size=8), max_size=4, unique=True))
def test_whatever_the_names_nothing_leaves_the_folder(tmp_path_factory, names):
    box = tmp_path_factory.mktemp("box")
    infos = [zipfile.ZipInfo("x") for _ in names]
    for info, name in zip(infos, names, strict=True):
        info.filename = name  # past the constructor, which mends names
    make(box / "a.zip", [(info, b"" if info.filename.endswith("/") else b"data") for info in infos])
    target = box / "deep" / "out"
    target.mkdir(parents=True)
    with contextlib.suppress(StudyError):
        unpack(box / "a.zip", target)
    assert {str(p.relative_to(box)) for p in box.rglob("*") if target not in (p, *p.parents)} == {"a.zip", "deep"}
