"""A proxy on loopback between a study and its tracking server, that goes wrong when it is told to."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests


@dataclass(frozen=True)
class Answer:
    """What the client gets."""

    status: int
    body: bytes
    kind: str = "application/json"


Forward = Callable[[], Answer]
Fault = Callable[[Forward], "Answer | None"]
"""What becomes of a request, given the way to have it served; None drops the connection."""


def answers(status: int, text: str = "out of order", error_code: str | None = None) -> Fault:
    """The request is not served; as a proxy says so, or with a code as MLflow does."""
    if error_code is None:
        return lambda forward: Answer(status, text.encode(), "text/html")
    body = json.dumps({"error_code": error_code, "message": text}).encode()
    return lambda forward: Answer(status, body)


def loses_answer(status: int | None = 503) -> Fault:
    """The request is served, but the client does not hear of it."""

    def fault(forward: Forward) -> Answer | None:
        forward()
        return Answer(status, b"lost", "text/html") if status is not None else None

    return fault


def slow(seconds: float) -> Fault:
    """The request is served late."""

    def fault(forward: Forward) -> Answer:
        time.sleep(seconds)
        return forward()

    return fault


def well(forward: Forward) -> Answer:
    """The request is served."""
    return forward()


def drops(forward: Forward) -> None:
    """The connection is closed without an answer."""


# as MLflow's server answers when all its database connections are taken
pool = answers(400, "QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00", "BAD_REQUEST")


@dataclass
class _Rule:
    """A fault, for the next so many requests to a path that ends so."""

    fault: Fault
    path: str
    left: float


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """The client has gone: nobody is to hear of it."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Proxy:
    """Forwards requests, unless a rule says otherwise.

    Attributes:
        served: What was asked for, as ``POST runs/create``; also what went wrong then.
    """

    def __init__(self, upstream: str) -> None:
        self.served: list[str] = []
        self._upstream = upstream
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def go_wrong(self, fault: Fault, path: str = "", times: float = float("inf")) -> None:
        """From now on serve the next requests to paths that end so in this way."""
        with self._lock:
            self._rules.append(_Rule(fault, path, times))

    def be_well(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._rules.clear()

    def count(self, path: str) -> int:
        """How many requests to paths that end so there were."""
        return sum(each.endswith(path) for each in self.served)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _fault(self, path: str) -> Fault | None:
        with self._lock:
            for rule in self._rules:
                if rule.left > 0 and path.endswith(rule.path):
                    rule.left -= 1
                    return rule.fault
        return None

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                proxy.served.append(f"{self.command} {path}")
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = proxy._fault(path)
                answer = fault(lambda: self._forward(body)) if fault is not None else self._forward(body)
                self._answer(answer)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

            def _forward(self, body: bytes) -> Answer:
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
                try:
                    answer = requests.request(
                        self.command, proxy._upstream + self.path, data=body, headers=headers, timeout=60
                    )
                except requests.RequestException:
                    return Answer(502, b"bad gateway", "text/html")
                return Answer(answer.status_code, answer.content, answer.headers.get("Content-Type", "text/plain"))

            def _answer(self, answer: Answer | None) -> None:
                if answer is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.kind)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return Handler


_HOP = {"host", "connection", "content-length", "accept-encoding"}


@contextmanager
def proxy_before(upstream: str) -> Iterator[Proxy]:
    """A proxy for as long as the block runs."""
    proxy = Proxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
