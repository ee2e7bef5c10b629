"""Getting COCO 2017, with a small data set in its place: what is fetched, what is not, and what survives a stop."""

import hashlib
import json
import os
import time
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from tests import coco_folder
from yolopose.data import prepare
from yolopose.data.prepare import COCO2017, RECORD, Archive, ensure_coco2017, missing_archives, space_needed
from yolopose.study.config import load_study
from yolopose.utils import download, files
from yolopose.utils.errors import StudyError

IMAGES = 6
PARTS = ("annotations/person", "train2017", "val2017")  # without test-dev
MEMBERS = {"annotations_trainval2017.zip": "annotations/person*", "image_info_test2017.zip": "annotations/image_info*",
           "val2017.zip": "val2017/*", "train2017.zip": "train2017/*", "test2017.zip": "test2017/*"}
ALL, CORE = list(MEMBERS), ["annotations_trainval2017.zip", "val2017.zip", "train2017.zip"]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, dict[str, bytes], tuple[Archive, ...]]:
    """A folder in COCO layout, the five archives that it would be fetched as, and their descriptions."""
    root = coco_folder.make_folder(tmp_path_factory.mktemp("small") / "coco", IMAGES, test_dev=True)
    served, described = {}, []
    for archive in COCO2017:
        path = root.parent / archive.name
        members = sorted(root.glob(MEMBERS[archive.name]))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            if archive.folder:
                opened.writestr(f"{archive.folder}/", b"")
            for member in members:
                opened.write(member, member.relative_to(root).as_posix())
        served[f"/{archive.path}"] = data = path.read_bytes()
        files = {name: size and (root / name).stat().st_size for name, size in archive.files.items()}
        described.append(replace(archive, size=len(data), sha256=hashlib.sha256(data).hexdigest(), files=files,
                                 unpacked=sum(-(-m.stat().st_size // 4096) * 4096 for m in members)))
    return root, served, tuple(described)


@pytest.fixture
def server(small, file_server, monkeypatch):
    file_server.files |= small[1]
    monkeypatch.setenv("YOLOPOSE_COCO_URL", file_server.address)
    return file_server


@pytest.fixture
def ensure(small):
    return partial(ensure_coco2017, archives=small[2])


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "coco"


def tree(root: Path, *parts: str) -> dict[str, bytes]:
    """Its files, or those of some ``parts``."""
    found = coco_folder.tree(root).items()
    return {name: data for name, data in found if name.startswith(parts or "") and name != RECORD}


def asked_for(server) -> list[str]:
    return [path.rsplit("/", 1)[-1] for path, _, _ in server.log]


def copy(source: Path, target: Path, *parts: str) -> Path:
    for name, data in tree(source, *parts).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)
    return target


def test_a_new_folder_becomes_the_whole_set_and_the_second_time_nothing_happens(small, server, ensure, root):
    assert ensure(root, True) == ALL == asked_for(server)
    assert tree(root) == tree(small[0]), "all files and nothing else: archives and locks are gone"
    record = json.loads((root / RECORD).read_text())["archives"]
    assert [record[a.name]["sha256"] for a in small[2]] == [a.sha256 for a in small[2]]
    assert record["train2017.zip"]["unpacked"]["files"] == IMAGES
    server.log.clear()
    before, started = (root / RECORD).stat().st_mtime_ns, time.perf_counter()
    assert ensure(root, True) == [] and server.log == []
    assert time.perf_counter() - started < 0.5 and (root / RECORD).stat().st_mtime_ns == before


@pytest.mark.parametrize("word, images", [("no", None), ("yes", IMAGES), ("", IMAGES)])
def test_prepare_data_fetches_for_the_paper_profile(server, root, monkeypatch, ensure, word, images):
    monkeypatch.setattr(prepare, "ensure_coco2017", ensure)
    study = load_study("paper", data=root)
    assert study.results_dir == Path("results/paper-coco")
    for given in (word, ""):
        dataset = prepare.prepare_data(study, given)
        assert (len(dataset.train), len(dataset.val)) == (4, IMAGES)
        assert (len(dataset.test_dev) if dataset.test_dev else None) == images
    with pytest.raises(StudyError, match="TEST_DEV=perhaps: give yes or no"):
        prepare.prepare_data(load_study("paper", data=root), "perhaps")


def test_other_profiles_never_fetch_and_a_mistyped_folder_is_not_made(server, root, tmp_path):
    (tmp_path / "file").write_text("")
    for data in ("no/such/place", "file"):
        with pytest.raises(StudyError, match=f"DATA={tmp_path / data}: no such folder"):
            load_study("paper", data=tmp_path / data)
    with pytest.raises(StudyError, match="no such folder.*make data PROFILE=paper"):
        load_study("smoke", data=root)
    (root / "annotations").mkdir(parents=True)
    with pytest.raises(StudyError, match="person_keypoints_train2017.json: not found"):
        prepare.prepare_data(load_study("smoke", data=root))
    assert server.log == [] and list(root.rglob("*")) == [root / "annotations"]


def test_test_dev_is_fetched_where_the_study_wants_it_and_a_decision_is_remembered(server, ensure, root):
    assert ensure(root, False) == CORE, "a study that evaluates on val alone"
    assert ensure(root, True, test_dev=False) == []
    assert ensure(root, True) == [], "remembered"
    assert ensure(root, True, test_dev=True) == ["image_info_test2017.zip", "test2017.zip"]
    assert ensure(root, False) == [] and sorted(asked_for(server)) == sorted(ALL)


def test_an_existing_set_is_used_even_read_only_and_an_incomplete_one_named(small, server, ensure, root, monkeypatch):
    before = tree(copy(small[0], root, *PARTS))
    assert ensure(root, True) == [] and server.log == [] and tree(root) == before and not (root / RECORD).exists()
    refuse = Mock(side_effect=PermissionError(30, "Read-only file system", str(root)))
    for module, name in ((os, "mkdir"), (os, "open"), (prepare.tempfile, "TemporaryFile")):
        monkeypatch.setattr(module, name, refuse)  # chmod alone would not stop root
    assert ensure(root, True) == [] and server.log == []
    monkeypatch.undo()
    for path in (root / "val2017").iterdir():
        path.unlink()
    monkeypatch.setattr(prepare.tempfile, "TemporaryFile", refuse)
    with pytest.raises(StudyError, match=f"{root}: lacks val2017 of COCO 2017, which cannot be .*not writable"):
        ensure(root, False)


def test_only_what_is_missing_is_fetched(small, server, ensure, root, tmp_path):
    whole = copy(small[0], tmp_path / "whole", *PARTS)
    assert ensure(whole, False, test_dev=True) == ["image_info_test2017.zip", "test2017.zip"], "on demand"
    server.log.clear()
    copy(small[0], root, "annotations/person", "val2017")
    assert ensure(root, False) == ["train2017.zip"] == asked_for(server)
    (root / "train2017" / sorted(os.listdir(root / "train2017"))[0]).unlink()
    assert ensure(root, False) == ["train2017.zip"], "an image that was lost comes back"
    assert tree(root) == tree(small[0], *PARTS)


def test_a_folder_of_other_annotations_or_other_things_is_left_alone(small, server, ensure, tmp_path):
    root = copy(small[0], tmp_path / "mine", "annotations/person", "val2017")
    (root / "annotations" / "person_keypoints_val2017.json").write_text('{"images": []}')
    assert ensure(root, True) == [] and server.log == [] and not (root / "train2017").exists()
    (other := tmp_path / "other").mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(StudyError, match=r"holds other things \(thesis.tex\); give DATA= a new or empty folder"):
        ensure(other, False)
    assert os.listdir(other) == ["thesis.tex"] and server.log == []


def test_a_stop_while_fetching_goes_on(small, server, ensure, root, monkeypatch):
    monkeypatch.setattr(download, "BLOCK", 16)
    half = len(small[1]["/zips/val2017.zip"]) // 32 * 16
    server.cuts, server.statuses = [None, half], [None, None, 404]
    with pytest.raises(StudyError, match="val2017.zip: the server answers 404"):
        ensure(root, False)
    assert (root / "downloads" / "val2017.zip.part").stat().st_size == half
    assert [a.name for a in missing_archives(root, False, archives=small[2])] == CORE[1:]
    assert ensure(root, False) == CORE[1:]
    assert ("/zips/val2017.zip", f"bytes={half}-", 206) in server.log
    assert tree(root) == tree(small[0], *PARTS)


def test_a_stop_while_unpacking_goes_on_without_the_network(small, server, ensure, root, monkeypatch):
    extract, checked = zipfile.ZipFile.extract, Mock(wraps=download.file_sha256)

    def stop_in_val(opened, info, target):
        if info.filename.startswith("val2017/") and len(os.listdir(root / "val2017")) > 3:
            raise KeyboardInterrupt
        extract(opened, info, target)

    (root / "val2017").mkdir(parents=True)
    monkeypatch.setattr(zipfile.ZipFile, "extract", stop_in_val)
    with pytest.raises(KeyboardInterrupt):
        ensure(root, False)
    monkeypatch.setattr(zipfile.ZipFile, "extract", extract)
    assert 0 < len(os.listdir(root / "val2017")) < IMAGES
    assert [a.name for a in missing_archives(root, False, archives=small[2])] == CORE[1:]
    server.log.clear()
    monkeypatch.setattr(download, "file_sha256", checked)
    assert ensure(root, False) == CORE[1:]
    assert asked_for(server) == ["train2017.zip"] == [c.args[0].name.removesuffix(".part") for c in checked.mock_calls]
    assert tree(root) == tree(small[0], *PARTS)


def test_archives_put_there_by_hand_are_used_and_kept(small, server, ensure, root):
    (root / "downloads").mkdir(parents=True)
    for archive in small[2]:
        (root / "downloads" / archive.name).write_bytes(small[1][f"/{archive.path}"])
    assert ensure(root, True) == ALL and server.log == []
    assert sorted(os.listdir(root / "downloads")) == sorted(ALL)


def test_a_wrong_checksum_or_an_archive_of_other_content_is_not_taken_for_cocos(small, server, ensure, root):
    body = bytearray(small[1]["/zips/val2017.zip"])
    body[100] ^= 255
    server.files["/zips/val2017.zip"] = bytes(body)
    with pytest.raises(StudyError, match="val2017.zip: .*SHA-256"):
        ensure(root, False)
    assert not (root / "val2017").exists()
    server.files["/zips/val2017.zip"] = wrong = small[1]["/zips/train2017.zip"]
    sha256 = hashlib.sha256(wrong).hexdigest()
    archives = tuple(replace(a, size=len(wrong), sha256=sha256) if a.folder == "val2017" else a for a in small[2])
    with pytest.raises(StudyError, match="val2017.zip: lacks val2017"):
        ensure_coco2017(root, False, archives=archives)


def test_too_little_space_is_said_with_numbers_before_anything_starts(server, root, tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(free=50_000_000_000))
    real = space_needed(tmp_path, [a for a in COCO2017 if not a.test_dev])
    assert real == 850_000_000 + 840_000_000 + 19_336_861_798 + 19_900_000_000, "train is fetched last of the three"
    assert space_needed(tmp_path, COCO2017) == real + 20_000_000, "before test-dev's the archive of train is gone"
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(free=30_000_000_000))
    with pytest.raises(StudyError) as error:
        ensure_coco2017(root, True)
    for part in ("needs 40.9 GB of disk", "30.0 GB are free", "train2017.zip", "free 10.9 GB"):
        assert part in str(error.value)
    assert server.log == [] and list(root.iterdir()) == []


def test_without_a_network_the_message_says_what_to_do_by_hand(server, ensure, root, monkeypatch):
    monkeypatch.setenv("YOLOPOSE_COCO_URL", "http://127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(StudyError) as error:
        ensure(root, False)
    for part in ("annotations_trainval2017.zip", "http://127.0.0.1:9/annotations/annotations_trainval2017.zip",
                 str(root / "downloads" / "annotations_trainval2017.zip"), "by other means"):
        assert part in str(error.value)
    monkeypatch.setenv("YOLOPOSE_COCO_URL", "ftp://example.org")
    with pytest.raises(StudyError, match="YOLOPOSE_COCO_URL=ftp://example.org: give an address"):
        ensure(root, False)


def test_the_catalogue_is_plausible_and_a_damaged_record_named(ensure, tmp_path):
    (tmp_path / RECORD).write_text("[]")
    with pytest.raises(StudyError, match=f"{RECORD}: is no record"):
        ensure(tmp_path, False)
    assert [a.name for a in COCO2017] == ALL and len({a.sha256 for a in COCO2017}) == 5
    assert all(len(a.sha256) == 64 and int(a.sha256, 16) and a.unpacked > a.size for a in COCO2017)
    assert round(sum(a.size for a in COCO2017) / 1e9, 1) == 27.1
