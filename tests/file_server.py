"""An HTTP server on this machine that serves bytes from memory and misbehaves on demand."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What is served and how; ``log`` has (path, Range header, status) of every request.

    Attributes:
        cuts: bytes sent of the body of the first request, the second, ... before the connection is dropped; ``None``,
            or no entry, for all.
        stalls: bytes after which the first, the second, ... connection falls silent without being closed.
        statuses: answers other than the file to the first request, the second, ...; ``None`` for the file.
        ranges: whether parts are sent.
        length: whether the length of a whole file is sent.
    """

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int | None] = field(default_factory=list)
    stalls: list[int | None] = field(default_factory=list)
    statuses: list[int | None] = field(default_factory=list)
    ranges: bool = True
    length: bool = True
    log: list[tuple[str, str | None, int]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


def _handler(get_server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_arguments) -> None:
            pass

        def do_GET(self) -> None:
            server: FileServer = get_server()
            asked = self.headers.get("Range")
            status = server.statuses.pop(0) if server.statuses else None
            stall = server.stalls.pop(0) if server.stalls else None
            cut = stall if stall is not None else server.cuts.pop(0) if server.cuts else None
            body = server.files.get(self.path)
            if status is None and body is None:
                status = 404
            if status is not None:
                server.log.append((self.path, asked, status))
                self.send_response(status)
                self.end_headers()
                return
            total, start, code = len(body), 0, 200
            if asked and server.ranges:
                start, code = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]), 206
                if start >= total:
                    server.log.append((self.path, asked, 416))
                    self.send_response(416)
                    self.end_headers()
                    return
            server.log.append((self.path, asked, code))
            self.send_response(code)
            if code == 206:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            if server.length or code == 206:
                self.send_header("Content-Length", str(total - start))
            self.end_headers()
            self.wfile.write(body[start:] if cut is None else body[start:start + cut])
            if stall is not None:
                self.wfile.flush()
                server.closing.wait(20)

    return Handler


@contextmanager
def serving() -> Iterator[FileServer]:
    """A running server with no files yet."""
    found: list[FileServer] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(lambda: found[0])) as http:
        found.append(FileServer(f"http://127.0.0.1:{http.server_address[1]}"))
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield found[0]
        finally:
            found[0].closing.set()
            http.shutdown()
            thread.join()
