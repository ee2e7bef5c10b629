"""Fetching files: interruption, resumption, changed and wrong files, no network, a full disk."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from tests.file_server import FileServer, serving
from yolopose.utils import download
from yolopose.utils.download import Remote, fetch, require_space
from yolopose.utils.errors import StudyError

BODY = bytes(range(256)) * 4000  # 1,024,000 bytes
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = BODY[::-1]  # as long, another content


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with serving() as running:
        running.files["/a.zip"] = BODY
        yield running


def get(server: FileServer, path: Path, size: int | None = len(BODY), sha256: str | None = SHA, **more) -> str:
    return fetch(Remote(f"{server.address}/a.zip", size, sha256), path, progress=False, pause_s=0.0, **more)


def stop_after(server: FileServer, path: Path, received: int, **more) -> None:
    """Leave a part of ``received`` bytes, as an interrupted run does."""
    server.cuts = [received]
    with pytest.raises(StudyError, match="cannot be fetched"):
        get(server, path, retries=0, **more)
    assert path.with_name("a.zip.part").stat().st_size == received and not path.exists()


def test_whole_file_and_nothing_beside_it(server, tmp_path):
    path = tmp_path / "new" / "a.zip"
    assert get(server, path) == SHA
    assert path.read_bytes() == BODY and os.listdir(path.parent) == ["a.zip"]
    assert server.log == [("/a.zip", None, 200)]
    assert get(server, path) == SHA and len(server.log) == 1, "a file that is there is checked, not fetched"


def test_cut_connections_are_resumed_where_they_broke(server, tmp_path):
    server.cuts = [300_000, 1, 400_000]
    assert get(server, tmp_path / "a.zip") == SHA
    assert [asked for _, asked, _ in server.log] == [None, "bytes=300000-", "bytes=300001-", "bytes=700001-"]
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_a_killed_process_loses_nothing(server, tmp_path):
    """SIGKILL in the middle: no chance to tidy up, and the part is still no more than a part."""
    server.stalls = [600_000]
    code = f"from yolopose.utils.download import *; fetch(Remote({server.address + '/a.zip'!r}), {str(tmp_path / 'a.zip')!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    part, deadline = tmp_path / "a.zip.part", time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    received = part.stat().st_size
    assert 0 < received <= 600_000 and not (tmp_path / "a.zip").exists()
    assert get(server, tmp_path / "a.zip") == SHA
    assert server.log[-1] == ("/a.zip", f"bytes={received}-", 206)


def test_a_silent_server_counts_as_a_cut(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    server.stalls = [600_000]
    assert get(server, tmp_path / "a.zip") == SHA
    assert server.log[-1] == ("/a.zip", "bytes=600000-", 206)


@pytest.mark.parametrize("etag, dated", [(True, True), (False, True), (True, False), (False, False)])
def test_an_interrupted_run_goes_on(server, tmp_path, etag, dated):
    server.etag, server.date = etag, server.date if dated else ""
    stop_after(server, tmp_path / "a.zip", 500_000)
    assert get(server, tmp_path / "a.zip") == SHA
    assert server.log[-1] == ("/a.zip", "bytes=500000-", 206)
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_a_part_that_nothing_identifies_is_not_continued(server, tmp_path):
    """No tag, no date, no checksum known: the part might be of another version."""
    server.etag, server.date = False, ""
    stop_after(server, tmp_path / "a.zip", 500_000, sha256=None)
    assert get(server, tmp_path / "a.zip", sha256=None) == SHA
    assert server.log[-1] == ("/a.zip", None, 200)


def test_a_server_without_parts_starts_again(server, tmp_path):
    server.ranges = False
    stop_after(server, tmp_path / "a.zip", 500_000)
    assert get(server, tmp_path / "a.zip") == SHA
    assert server.log[-1] == ("/a.zip", "bytes=500000-", 200) and (tmp_path / "a.zip").read_bytes() == BODY


@pytest.mark.parametrize("etag, date, heedless, new", [
    (True, "", False, OTHER), (True, "", True, OTHER), (True, "", True, BODY + b"more"),
    (False, "Tue, 07 May 2024 07:08:09 GMT", False, OTHER), (False, "Tue, 07 May 2024 07:08:09 GMT", True, OTHER),
    (False, "", True, BODY[:-1]), (False, "", True, BODY[:400_000])])
def test_a_file_that_changed_starts_again(server, tmp_path, etag, date, heedless, new):
    server.heedless, server.etag = heedless, etag
    stop_after(server, tmp_path / "a.zip", 500_000, size=None, sha256=None)
    server.files["/a.zip"], server.date = new, date or server.date
    assert get(server, tmp_path / "a.zip", size=None, sha256=None) == hashlib.sha256(new).hexdigest()
    assert (tmp_path / "a.zip").read_bytes() == new
    assert len(server.log) == (3 if heedless else 2), "asked on condition, the server sends the new file at once"


def test_a_part_of_another_address_or_without_a_note_is_not_used(server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(OTHER[:500_000])
    assert get(server, tmp_path / "a.zip") == SHA
    (tmp_path / "a.zip").unlink()
    server.etag, server.date = False, ""  # nothing but the address tells the two files apart
    stop_after(server, tmp_path / "a.zip", 500_000)
    server.files["/b.zip"] = OTHER
    remote = Remote(f"{server.address}/b.zip", len(OTHER), hashlib.sha256(OTHER).hexdigest())
    assert fetch(remote, tmp_path / "a.zip", progress=False) == hashlib.sha256(OTHER).hexdigest()


def test_a_whole_part_of_a_killed_run_needs_no_network(server, tmp_path):
    stop_after(server, tmp_path / "a.zip", 500_000)
    (tmp_path / "a.zip.part").write_bytes(BODY)
    requests = len(server.log)
    assert get(server, tmp_path / "a.zip") == SHA and len(server.log) == requests


def test_a_part_longer_than_the_file_starts_again(server, tmp_path):
    stop_after(server, tmp_path / "a.zip", 500_000)
    (tmp_path / "a.zip.part").write_bytes(BODY + b"x")
    assert get(server, tmp_path / "a.zip") == SHA


def test_damage_before_the_cut_is_found_and_not_kept(server, tmp_path):
    stop_after(server, tmp_path / "a.zip", 500_000)
    with open(tmp_path / "a.zip.part", "r+b") as file:
        file.write(b"damaged")
    with pytest.raises(StudyError, match="SHA-256") as error:
        get(server, tmp_path / "a.zip")
    assert SHA in str(error.value) and "repeat the command" in str(error.value)
    assert os.listdir(tmp_path) == []
    assert get(server, tmp_path / "a.zip") == SHA


def test_wrong_checksum_leaves_nothing_behind(server, tmp_path):
    server.files["/a.zip"] = OTHER
    with pytest.raises(StudyError, match=f"SHA-256 {hashlib.sha256(OTHER).hexdigest()} instead of {SHA}"):
        get(server, tmp_path / "a.zip")
    assert os.listdir(tmp_path) == []


def test_a_wrong_file_put_there_by_hand_is_named_and_kept(server, tmp_path):
    (tmp_path / "a.zip").write_bytes(OTHER)
    with pytest.raises(StudyError, match="a.zip: has the SHA-256 .* remove it"):
        get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == OTHER and server.log == []


def test_another_length_than_published_is_refused_before_it_is_fetched(server, tmp_path):
    server.files["/a.zip"] = b"<html>please log in</html>"
    with pytest.raises(StudyError, match="offers 26 bytes, but the file is known to have 1024000"):
        get(server, tmp_path / "a.zip")
    assert os.listdir(tmp_path) == []


def test_a_server_that_states_no_length(server, tmp_path):
    server.length = False
    with pytest.raises(StudyError, match="does not say how long"):
        get(server, tmp_path / "a.zip", size=None, sha256=None)
    server.cuts = [1000]
    assert get(server, tmp_path / "a.zip") == SHA, "with a published length a cut is noticed and resumed"
    assert len(server.log) == 3


@pytest.mark.parametrize("status", [403, 404, 410])
def test_final_answers_are_not_repeated(server, tmp_path, status):
    server.statuses = [status] * 9
    with pytest.raises(StudyError, match=f"{server.address}/a.zip: the server answers {status}"):
        get(server, tmp_path / "a.zip")
    assert len(server.log) == 1


def test_passing_answers_are_repeated(server, tmp_path):
    server.statuses = [503, 429]
    assert get(server, tmp_path / "a.zip") == SHA


def test_gives_up_only_after_failures_without_progress(server, tmp_path):
    server.cuts = [1000] * 12  # more than the failures in a row that are borne
    assert get(server, tmp_path / "a.zip", retries=1) == SHA
    (tmp_path / "a.zip").unlink()
    server.cuts = [1000, 0, 0, 0]  # one that brought something, then three retries
    with pytest.raises(StudyError, match="1000 bytes are kept and the same command goes on"):
        get(server, tmp_path / "a.zip", retries=3)
    assert len(server.cuts) == 0


def test_without_a_network_one_message_says_what_to_do(tmp_path):
    with socket.socket() as free:  # a port on which nobody listens
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/zips/a.zip"
    with pytest.raises(StudyError) as error:
        fetch(Remote(url), tmp_path / "a.zip", progress=False, pause_s=0.0)
    for part in ("a.zip", url, "refused", f"put it at {tmp_path / 'a.zip'}", "repeat the command"):
        assert part in str(error.value)
    with pytest.raises(StudyError, match="begins with http"):
        fetch(Remote("file:/" "//etc/passwd"), tmp_path / "b.zip")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_named(server, tmp_path):
    (tmp_path / "a.zip.part").symlink_to("/dev/full")
    with pytest.raises(StudyError, match="a.zip: no space left on the disk; free some and repeat"):
        get(server, tmp_path / "a.zip")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(server, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StudyError, match="not writable"):
            get(server, tmp_path / "a.zip")
    finally:
        tmp_path.chmod(0o700)


def test_space_is_compared_with_what_is_free(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage(10**11, 0, 20_000_000_000))
    assert require_space(tmp_path / "not" / "yet", 20_000_000_000, "COCO") == 20_000_000_000
    with pytest.raises(StudyError) as error:
        require_space(tmp_path / "not" / "yet", 40_400_000_000, "COCO")
    for part in ("COCO needs 40.4 GB", "20.0 GB are free", "free 20.4 GB"):
        assert part in str(error.value)


def test_the_note_names_the_version(server, tmp_path):
    stop_after(server, tmp_path / "a.zip", 500_000)
    note = json.loads((tmp_path / "a.zip.part.json").read_text())
    assert note["url"] == f"{server.address}/a.zip" and note["size"] == len(BODY) and note["etag"].startswith('"')
