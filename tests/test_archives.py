"""Unpacking: what is written, what is refused before anything is written, what an interrupted unpacking leaves."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolopose.utils import archives, download
from yolopose.utils.archives import Unpacked, space_to_unpack, unpack
from yolopose.utils.errors import StudyError

LIMIT = 1_000_000_000
GOOD = {"train2017/1.jpg": b"one" * 100, "train2017/2.jpg": b"two" * 2000, "annotations/a.json": b"{}"}


def make(path: Path, entries: dict[str, bytes] | list[tuple[str | zipfile.ZipInfo, bytes]],
         method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip archive; a list may repeat names and hold prepared entries."""
    with zipfile.ZipFile(path, "w", method) as opened:
        for name, data in entries.items() if isinstance(entries, dict) else entries:
            opened.writestr(name, data)
    return path


def special(name: str, mode: int) -> zipfile.ZipInfo:
    """An entry with a Unix mode, such as a symbolic link."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def run(archive: Path, target: Path, **more) -> Unpacked:
    return unpack(archive, target, **{"max_bytes": LIMIT, "progress": False} | more)


def test_files_and_folders_come_out_as_they_went_in(tmp_path):
    archive = make(tmp_path / "a.zip", [("train2017/", b""), *GOOD.items(), ("empty/", b""), ("zero", b"")])
    assert run(archive, tmp_path / "out") == Unpacked(4, 300 + 6000 + 2)
    assert tree(tmp_path / "out") == {**GOOD, "zero": b""}


def bomb(path: Path) -> Path:
    return make(path, {"zeros.bin": bytes(50_000_000)})


def overlapping(path: Path) -> Path:
    """Two directory entries for one and the same compressed file."""
    make(path, {"a.bin": os.urandom(4000), "b.bin": b"b"})
    raw = bytearray(path.read_bytes())
    second = raw.find(b"PK\x01\x02", raw.find(b"PK\x01\x02") + 1)
    struct.pack_into("<I", raw, second + 42, 0)  # offset of the local header of b.bin: that of a.bin
    path.write_bytes(raw)
    return path


HOSTILE = {
    "parent": [("../evil", b"x")],
    "parent inside": [("train2017/../../evil", b"x")],
    "parent that stays inside": [("train2017/../evil", b"x")],
    "absolute": [("/evil", b"x")],
    "absolute twice": [("//evil", b"x")],
    "here": [("./evil", b"x")],
    "empty part": [("a//evil", b"x")],
    "drive": [("C:evil", b"x")],
    "drive and slash": [("c:/evil", b"x")],
    "stream": [("evil.jpg:hidden", b"x")],
    "backslash": [("..\\evil", b"x")],
    "control character": [("ev\nil", b"x")],
    "only slashes": [("///", b"")],
    "symbolic link": [(special("link", stat.S_IFLNK | 0o777), b"/etc/passwd")],
    "link, then through it": [(special("link", stat.S_IFLNK | 0o777), b".."), ("link/evil", b"x")],
    "named pipe": [(special("pipe", stat.S_IFIFO | 0o644), b"")],
    "device": [(special("disk", stat.S_IFBLK | 0o644), b"")],
    "folder's mode, file's name": [(special("folder", stat.S_IFDIR | 0o755), b"x")],
    "same name twice": [("a.jpg", b"1"), ("a.jpg", b"2")],
    "same name but for case": [("a.jpg", b"1"), ("A.JPG", b"2")],
    "same name but for composition": [("\u00e9.jpg", b"1"), ("e\u0301.jpg", b"2")],
    "file and folder": [("a", b"1"), ("a/b", b"2")],
    "file and folder by case": [("a/b", b"2"), ("A", b"1")],
}


def test_a_refusal_names_the_entry_and_the_reason(tmp_path):
    archive = make(tmp_path / "a.zip", [(special("link", stat.S_IFLNK | 0o777), b"/etc/passwd")])
    with pytest.raises(StudyError, match="a.zip: entry 'link' is a link; nothing was unpacked.* remove it"):
        run(archive, tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("entries", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_archives_are_refused_before_anything_is_written(tmp_path, entries):
    target = tmp_path / "box" / "out"
    target.mkdir(parents=True)
    archive = make(tmp_path / "a.zip", [("good.jpg", b"good"), *entries])
    with pytest.raises(StudyError, match="a.zip: .*nothing was unpacked"):
        run(archive, target)
    assert sorted(tmp_path.rglob("*")) == [archive, tmp_path / "box", target]


def test_a_name_cut_off_by_a_null_character_is_refused(tmp_path):
    """zipfile shows ``good`` where the archive says ``good\\0/../evil``."""
    archive = make(tmp_path / "a.zip", {"good?/../evil": b"x"})
    archive.write_bytes(archive.read_bytes().replace(b"good?", b"good\0"))
    with pytest.raises(StudyError, match="control characters"):
        run(archive, tmp_path / "out")


def test_bombs_are_refused(tmp_path):
    with pytest.raises(StudyError, match="would grow from .* to 50000000 bytes"):
        run(bomb(tmp_path / "a.zip"), tmp_path / "out")
    with pytest.raises(StudyError, match=r"would unpack to 50.0 MB, far above the 10.0 MB allowed"):
        run(tmp_path / "a.zip", tmp_path / "out", max_bytes=10_000_000)
    with pytest.raises(StudyError, match="overlap"):
        run(overlapping(tmp_path / "b.zip"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_many_entries_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_ENTRIES", 2)
    with pytest.raises(StudyError, match="has 3 entries, more than 2"):
        run(make(tmp_path / "a.zip", GOOD), tmp_path / "out")


def test_an_entry_longer_than_it_says_is_refused(tmp_path):
    """The directory understates a size, as a bomb does that wants to pass the limit."""
    data = os.urandom(5000)
    archive = make(tmp_path / "a.zip", {"a.bin": data}, zipfile.ZIP_STORED)
    raw = bytearray(archive.read_bytes())
    struct.pack_into("<I", raw, raw.find(b"PK\x01\x02") + 24, 100)
    archive.write_bytes(raw)
    with pytest.raises(StudyError, match="'a.bin' is damaged"):
        run(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {}


def test_encrypted_and_unusual_entries_are_refused(tmp_path):
    archive = make(tmp_path / "a.zip", {"a.bin": b"x"})
    raw = bytearray(archive.read_bytes())
    raw[raw.find(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(raw)
    with pytest.raises(StudyError, match="is encrypted"):
        run(archive, tmp_path / "out")
    with pytest.raises(StudyError, match="unusual method 12"):
        run(make(tmp_path / "b.zip", {"a.bin": b"x"}, zipfile.ZIP_BZIP2), tmp_path / "out")


@pytest.mark.parametrize("keep", [0, 10, 4000, -5])
def test_damaged_archives_are_named(tmp_path, keep):
    archive = make(tmp_path / "a.zip", {"a.bin": os.urandom(9000)})
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(StudyError, match="a.zip: is no sound zip archive"):
        run(archive, tmp_path / "out")
    with pytest.raises(StudyError, match="a.zip: is no sound zip archive"):
        space_to_unpack(archive, tmp_path / "out")


def test_flipped_bytes_are_found_and_leave_no_file(tmp_path):
    archive = make(tmp_path / "a.zip", {"a.bin": os.urandom(9000), "b.bin": b"b"})
    raw = bytearray(archive.read_bytes())
    raw[4000] ^= 255
    archive.write_bytes(raw)
    with pytest.raises(StudyError, match="entry 'a.bin' is damaged"):
        run(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {}


def test_unpacking_goes_on_and_keeps_finished_files(tmp_path):
    archive, out = make(tmp_path / "a.zip", GOOD), tmp_path / "out"
    assert space_to_unpack(archive, out) == 4096 + 8192 + 4096
    (out / "train2017").mkdir(parents=True)
    (out / "train2017" / "1.jpg").write_bytes(b"X" * 300)  # of the right size: taken as finished
    (out / "train2017" / "2.jpg").write_bytes(b"cut off")
    (out / "train2017" / ".2.jpg.part").write_bytes(b"a part that a killed run left")
    before = (out / "train2017" / "1.jpg").stat().st_mtime_ns
    assert space_to_unpack(archive, out) == 8192 + 4096
    assert run(archive, out).files == 3
    assert tree(out) == {**GOOD, "train2017/1.jpg": b"X" * 300}
    assert (out / "train2017" / "1.jpg").stat().st_mtime_ns == before and space_to_unpack(archive, out) == 0


def test_links_in_the_target_lead_nowhere(tmp_path):
    """A link to a folder elsewhere is not followed; a link in a file's place is replaced, what it points at stays."""
    archive, out, elsewhere = make(tmp_path / "a.zip", GOOD), tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "train2017").symlink_to(elsewhere)
    with pytest.raises(StudyError, match="train2017: is a link to another place"):
        run(archive, out)
    assert list(elsewhere.iterdir()) == []
    (out / "train2017").unlink()
    (out / "train2017").mkdir()
    (elsewhere / "mine").write_bytes(b"mine")
    for name in ("1.jpg", ".2.jpg.part"):
        (out / "train2017" / name).symlink_to(elsewhere / "mine")
    run(archive, out)
    assert tree(out) == GOOD and not (out / "train2017" / "1.jpg").is_symlink()
    assert (elsewhere / "mine").read_bytes() == b"mine"


def test_too_little_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage(0, 0, 4096))
    with pytest.raises(StudyError, match="unpacking a.zip needs 16384 bytes of disk and 4096 bytes are free"):
        run(make(tmp_path / "a.zip", GOOD), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_is_named_and_leaves_no_part(tmp_path, monkeypatch):
    archive, replace, calls = make(tmp_path / "a.zip", GOOD), os.replace, []

    def full_at_the_second(source, destination):
        calls.append(destination)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(destination))
        replace(source, destination)

    monkeypatch.setattr(archives.os, "replace", full_at_the_second)
    with pytest.raises(StudyError, match="2.jpg: no space left on the disk; free some and repeat"):
        run(archive, tmp_path / "out")
    assert list(tree(tmp_path / "out")) == ["train2017/1.jpg"]
    run(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == GOOD


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab./\\:é\0"), min_size=1, max_size=8), max_size=4, unique=True))
def test_whatever_the_names_nothing_leaves_the_folder(tmp_path_factory, names):
    """Either the archive is refused and nothing is written, or every file lies below the target."""
    box = tmp_path_factory.mktemp("box")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = name  # past the constructor, which mends names
            opened.writestr(info, b"" if name.endswith("/") else b"data")
    (box / "a.zip").write_bytes(buffer.getvalue())
    target = box / "deep" / "out"
    target.mkdir(parents=True)
    try:
        count = run(box / "a.zip", target).files
    except StudyError:
        count = 0
    assert len([p for p in target.rglob("*") if p.is_file()]) == count
    assert {str(p.relative_to(box)) for p in box.rglob("*") if target not in (p, *p.parents)} == {"a.zip", "deep"}
