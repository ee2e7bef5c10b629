"""Fetching files: interruption, resumption, changed and wrong files, no network, a full disk."""

import hashlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.file_server import FileServer
from yolopose.utils import download
from yolopose.utils.download import BLOCK, fetch
from yolopose.utils.errors import StudyError

BODY = bytes(range(256)) * 4000  # 1,024,000 bytes
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = BODY[::-1]  # as long, another content
HALF = 8 * BLOCK  # where a connection is cut: what came is written block by block


@pytest.fixture(autouse=True)
def server(file_server):
    file_server.files["/a.zip"] = BODY
    return file_server


def get(server: FileServer, path: Path, sha256: str | None = SHA, size: int | None = len(BODY)) -> str:
    return fetch(f"{server.address}/a.zip", path, sha256, size, progress=False)


def stop_half_way(server: FileServer, path: Path, monkeypatch, **more) -> None:
    """Leave a part of ``HALF`` bytes, as an interrupted run does."""
    server.cuts = [HALF]
    with monkeypatch.context() as patch, pytest.raises(StudyError, match="cannot be fetched"):
        patch.setattr(download, "RETRIES", -1)
        get(server, path, **more)
    assert path.with_name("a.zip.part").stat().st_size == HALF and not path.exists()


def test_whole_file_and_nothing_beside_it_and_a_long_check_is_announced(server, tmp_path, monkeypatch, capsys):
    path = tmp_path / "new" / "a.zip"
    assert get(server, path) == SHA
    assert path.read_bytes() == BODY and os.listdir(path.parent) == ["a.zip"]
    assert server.log == [("/a.zip", None, 200)]
    for limit, said in ((len(BODY), False), (len(BODY) - 1, True)):
        monkeypatch.setattr(download, "LONG", limit)
        assert fetch(f"{server.address}/a.zip", path, SHA) == SHA and len(server.log) == 1, "checked, not fetched"
        assert ("a.zip: checking 1.0 MB" in capsys.readouterr().err) == said


def test_cut_and_silent_connections_are_resumed_where_they_broke(server, tmp_path, monkeypatch):
    server.cuts = [4 * BLOCK, 1, 6 * BLOCK]
    assert get(server, tmp_path / "a.zip") == SHA
    assert [asked for _, asked, _ in server.log] == [None, *[f"bytes={n * BLOCK}-" for n in (4, 4, 10)]]
    assert (tmp_path / "a.zip").read_bytes() == BODY
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    server.stalls = [HALF]
    assert get(server, tmp_path / "b.zip") == SHA and server.log[-1] == ("/a.zip", f"bytes={HALF}-", 206)


def test_a_killed_process_loses_nothing(server, tmp_path):
    """SIGKILL in the middle: no chance to tidy up, and the part is still no more than a part."""
    server.stalls = [600_000]
    arguments = (f"{server.address}/a.zip", str(tmp_path / "a.zip"), SHA)
    code = f"from yolopose.utils.download import *; fetch(*{arguments!r})"
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


def test_an_interrupted_run_goes_on_where_checksum_and_parts_are_known_unless_damaged(server, tmp_path, monkeypatch):
    for server.ranges, status in ((True, 206), (False, 200)):
        stop_half_way(server, tmp_path / "a.zip", monkeypatch)
        assert get(server, tmp_path / "a.zip") == SHA
        assert server.log[-1] == ("/a.zip", f"bytes={HALF}-", status) and (tmp_path / "a.zip").read_bytes() == BODY
        (tmp_path / "a.zip").unlink()
    server.ranges = True
    stop_half_way(server, tmp_path / "a.zip", monkeypatch, sha256=None)
    assert get(server, tmp_path / "a.zip", sha256=None) == SHA
    assert server.log[-1] == ("/a.zip", None, 200), "else the part might be of another version"
    (tmp_path / "a.zip").unlink()
    stop_half_way(server, tmp_path / "a.zip", monkeypatch)
    with open(tmp_path / "a.zip.part", "r+b") as file:
        file.write(b"damaged")
    assert get(server, tmp_path / "a.zip") == SHA, "fetched anew, once"
    assert server.log[-2:] == [("/a.zip", f"bytes={HALF}-", 206), ("/a.zip", None, 200)]
    assert os.listdir(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("sha256", [None, SHA])
def test_a_file_that_changes_between_two_connections_is_never_glued(server, tmp_path, sha256, monkeypatch):
    """The server names its version; the rest is asked for of that one alone, even where no checksum is known."""
    server.tag, server.cuts, server.files["/a.zip"] = '"1"', [HALF], OTHER

    def change(*_):
        server.tag, server.files["/a.zip"] = '"2"', BODY

    monkeypatch.setattr(download.time, "sleep", change)
    assert get(server, tmp_path / "a.zip", sha256) == SHA
    assert server.log == [("/a.zip", None, 200), ("/a.zip", f"bytes={HALF}-", 200)]
    server.cuts = [HALF]
    assert get(server, tmp_path / "b.zip", None) == SHA and server.log[-1] == ("/a.zip", f"bytes={HALF}-", 206)


@pytest.mark.parametrize("new, size, words", [
    (OTHER, len(BODY), "SHA-256"), (OTHER, None, "SHA-256"), (BODY + b"more", len(BODY), "offers 1024004 bytes"),
    (BODY[:-1], None, "SHA-256"), (BODY[:400_000], None, "SHA-256")])
def test_a_file_that_changed_is_never_joined_to_the_old_part(server, tmp_path, monkeypatch, new, size, words):
    stop_half_way(server, tmp_path / "a.zip", monkeypatch, size=size)
    server.files["/a.zip"] = new
    with pytest.raises(StudyError, match=words):
        get(server, tmp_path / "a.zip", size=size)
    server.files["/a.zip"] = BODY
    assert get(server, tmp_path / "a.zip", size=size) == SHA


@pytest.mark.parametrize("part, requests", [(BODY, 0), (BODY + b"x", 2)], ids=["whole", "too long"])
def test_a_whole_part_needs_no_network_and_a_longer_one_starts_again(server, tmp_path, part, requests):
    (tmp_path / "a.zip.part").write_bytes(part)
    assert get(server, tmp_path / "a.zip") == SHA and len(server.log) == requests


@pytest.mark.parametrize("content, offered, found", [
    (OTHER, f"SHA-256 {hashlib.sha256(OTHER).hexdigest()} instead of {SHA}", "has the SHA-256"),
    (b"short", "offers 5 bytes, but the file is known to have 1024000", "has 5 bytes instead of 1024000")])
def test_a_wrong_file_leaves_nothing_and_one_put_there_by_hand_is_kept(server, tmp_path, content, offered, found):
    server.files["/a.zip"] = content
    with pytest.raises(StudyError, match=offered):
        get(server, tmp_path / "a.zip")
    assert os.listdir(tmp_path) == [] and len(server.log) == 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(StudyError, match=f"a.zip: {found}.* remove it"):
        get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == content and len(server.log) == 1


def test_a_server_that_states_no_length(server, tmp_path):
    server.length = False
    with pytest.raises(StudyError, match="does not say how long"):
        get(server, tmp_path / "a.zip", None, None)
    server.cuts = [1000]
    assert get(server, tmp_path / "a.zip") == SHA, "with a published length a cut is noticed and resumed"
    assert len(server.log) == 3


@pytest.mark.parametrize("status", [403, 404, 410])
def test_final_answers_are_not_repeated(server, tmp_path, status):
    server.statuses = [status] * 9
    with pytest.raises(StudyError, match=f"{server.address}/a.zip: the server answers {status}"):
        get(server, tmp_path / "a.zip")
    assert len(server.log) == 1 and os.listdir(tmp_path) == []
    server.statuses = [503, 429]  # these pass
    assert get(server, tmp_path / "a.zip") == SHA


def test_gives_up_only_after_failures_without_progress(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 1)
    server.cuts = [BLOCK] * 12  # more than the failures in a row that are borne
    assert get(server, tmp_path / "a.zip") == SHA
    (tmp_path / "a.zip").unlink()
    server.cuts = [BLOCK, 0, 0]  # one that brought something, then a retry
    with pytest.raises(StudyError, match="65536 bytes are kept and the same command goes on"):
        get(server, tmp_path / "a.zip")
    assert len(server.cuts) == 0


def test_without_a_network_one_message_says_what_to_do(tmp_path):
    with socket.socket() as free:  # a port on which nobody listens
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/zips/a.zip"
    with pytest.raises(StudyError) as error:
        fetch(url, tmp_path / "a.zip", progress=False)
    for part in ("a.zip", url, "refused", f"put it at {tmp_path / 'a.zip'}", "repeat the command"):
        assert part in str(error.value)
    with pytest.raises(StudyError, match="cannot be fetched"):
        fetch("file:/" "//etc/passwd", tmp_path / "b.zip", progress=False)
    assert os.listdir(tmp_path) == []


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
