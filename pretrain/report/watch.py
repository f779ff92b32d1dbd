"""`--watch`: the page on localhost, with newer data as the runs go on. Nobody else on the network can reach it."""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pretrain.errors import UserError
from pretrain.report.page import as_json, render
from pretrain.report.reading import Source, sources, with_unique_names
from pretrain.report.run import RUNNING, Run

_LOCAL = ("localhost", "127.0.0.1")
_LOOK_AGAIN_SECONDS = 20.0
"""At a run that was going on and has been quiet since."""


class Latest:
    """The page's data as the runs stand now. A run is read again when its files have changed, or to see whether it still goes on."""

    def __init__(self, paths: list[str], make: Callable[[list[Run]], dict[str, Any]]) -> None:
        """Raises UserError where `paths` are no runs."""
        self._paths, self._make = paths, make
        self._known: dict[Source, _Known] = {}
        self._shown: list[Run] = []
        self._data: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.data()

    def data(self) -> dict[str, Any]:
        with self._lock:
            found = sources(self._paths)
            runs = [self._run(source) for source in found]
            if runs != self._shown:
                self._shown, self._data = runs, self._make(with_unique_names(found, runs))
            return self._data

    def _run(self, source: Source) -> Run:
        version, known = source.version(), self._known.get(source)
        if known is not None and known.version == version:
            if known.run.state != RUNNING or time.monotonic() - known.read_at < _LOOK_AGAIN_SECONDS:
                return known.run
        self._known[source] = _Known(version, time.monotonic(), source.read())
        return self._known[source].run


@dataclass(frozen=True)
class _Known:
    version: tuple
    read_at: float
    run: Run


def serve(latest: Latest, port: int) -> ThreadingHTTPServer:
    """A server that is bound but does not run yet; `port` 0 takes a free one. Raises UserError where the port is taken."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host", "").rpartition(":")[0] not in _LOCAL:  # a page elsewhere whose name was made to lead here
                self.send_error(HTTPStatus.FORBIDDEN)
            elif self.path not in ("/", "/data.json"):
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                try:
                    data = latest.data()
                except UserError as error:  # gone since
                    self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, explain=str(error))
                    return
                if self.path == "/":
                    self._answer(render(data, watched=True), "text/html; charset=utf-8")
                else:
                    self._answer(as_json(data), "application/json")

        def _answer(self, text: str, kind: str) -> None:
            content = text.encode()
            version = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            unchanged = self.headers.get("If-None-Match") == version
            self.send_response(HTTPStatus.NOT_MODIFIED if unchanged else HTTPStatus.OK)
            self.send_header("ETag", version)
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            if not unchanged:
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if not unchanged:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """The terminal stays quiet."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise UserError(f"port {port} cannot be used ({error.strerror}); give another one: --port N") from error
