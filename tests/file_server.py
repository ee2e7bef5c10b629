"""An HTTP server on this machine that serves bytes from memory and misbehaves on demand."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """What is served and how; ``log`` has (path, Range header, status) of every request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.files: dict[str, bytes] = {}
        # Of the first request, the second, ...; None, or no entry, is no misbehaviour:
        self.cuts: list[int | None] = []  # bytes of the body that are sent before the connection is dropped
        self.stalls: list[int | None] = []  # bytes after which it falls silent without being closed
        self.statuses: list[int | None] = []  # answers other than the file
        self.ranges = True  # whether parts are sent
        self.tag = ""  # of the version, by which the rest is asked for
        self.length = True  # whether the length of a whole file is sent
        self.log: list[tuple[str, str | None, int]] = []
        self.closing = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *_arguments) -> None:
        pass

    def answer(self, status: int, **headers: str) -> None:
        self.server.log.append((self.path, self.headers.get("Range"), status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        status, stall = (plan.pop(0) if plan else None for plan in (server.statuses, server.stalls))
        cut = stall if stall is not None else server.cuts.pop(0) if server.cuts else None
        body = server.files.get(self.path)
        if status is not None or body is None:
            return self.answer(status or 404)
        total = len(body)
        same = self.headers.get("If-Range", server.tag) == server.tag
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges and same else None
        tag = {"ETag": server.tag} if server.tag else {}
        if start is None:
            self.answer(200, **tag, **{"Content_Length": str(total)} if server.length else {})
        elif start < total:
            self.answer(206, **tag, Content_Range=f"bytes {start}-{total - 1}/{total}",
                        Content_Length=str(total - start))
        else:
            return self.answer(416)
        self.wfile.write(body[start or 0:][:cut])
        if stall is not None:
            self.wfile.flush()
            server.closing.wait(20)


@contextmanager
def serving() -> Iterator[FileServer]:
    """A running server with no files yet."""
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
