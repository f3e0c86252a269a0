"""A webhook's receiver on a real socket. It checks signatures by the scheme's own words, not by our code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

RAW = b"a secret of 24 bytes ok."
SECRET = "whsec_" + base64.b64encode(RAW).decode()


class Receiver:
    """`got` are the bodies that it took, with their ids; `status` is what it answers."""

    def __init__(self, port: int = 0) -> None:
        self.status = 200
        self.ids: list[str] = []
        self.got: list[dict[str, Any]] = []
        self.at: list[float] = []
        self.refused = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _answering(self))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    def take(self, headers: dict[str, str], body: bytes) -> int:
        if self.status != 200:
            self.refused += 1
            return self.status
        said = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        mark = "v1," + base64.b64encode(hmac.new(RAW, said, hashlib.sha256).digest()).decode()
        fresh = abs(time.time() - int(headers["webhook-timestamp"])) < 60
        if not (hmac.compare_digest(mark, headers["webhook-signature"]) and fresh):
            return 401
        self.ids.append(headers["webhook-id"])
        self.got.append(json.loads(body))
        self.at.append(time.monotonic())
        return 200

    def of(self, kind: str, to: str) -> list[dict[str, Any]]:
        """The data of what it took of this type, about a change to `to`."""
        return [one["data"] for one in self.got if one["type"] == kind and one["data"]["to"] == to]

    @contextmanager
    def listening(self) -> Iterator[Receiver]:
        thread = Thread(target=self._server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _answering(receiver: Receiver) -> Callable[..., BaseHTTPRequestHandler]:
    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(receiver.take({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Answering
