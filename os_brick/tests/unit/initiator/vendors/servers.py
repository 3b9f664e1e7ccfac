# SPDX-License-Identifier: Apache-2.0
"""Small servers that stand in for what vendors run: real sockets on 127.0.0.1, real HTTP and
TLS."""

from __future__ import annotations

import contextlib
import http.server
import json
import pathlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

DATA = pathlib.Path(__file__).parent / "data"
#: The authority that has signed the servers' certificate.
CA = str(DATA / "ca.pem")


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    body: bytes

    @property
    def data(self) -> Any:
        """Its body's value."""
        return json.loads(self.body)


@dataclass
class Said:
    """One answer to give. ``drop`` closes the connection without one."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Said:
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


class Answering(http.server.ThreadingHTTPServer):
    """A server that keeps what it was asked, and answers by :meth:`answer`."""

    daemon_threads = True

    def __init__(self, *, tls: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(DATA / "server.pem")
            # The handshake belongs to the connection's own thread: a client that refuses it must
            # not stop the server.
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self.asked: list[Asked] = []
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    def server_bind(self) -> None:
        """Bind without asking the name service who 127.0.0.1 is, which may take its time."""
        socketserver.TCPServer.server_bind(self)

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return int(self.server_address[1])

    def answer(self, asked: Asked) -> Said:
        """Return the answer to a request."""
        raise NotImplementedError

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave whenever they like."""

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes
    server: Answering

    def _serve(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            raise NotImplementedError("no client of ours sends chunks")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(self.command, self.path, dict(self.headers.items()), body)
        self.server.asked.append(asked)
        said = self.server.answer(asked)
        if said.drop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(said.status)
        said.headers.setdefault("Content-Length", str(len(said.body)))
        for name, value in said.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said.body)

    do_GET = do_POST = do_PUT = do_HEAD = _serve

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests read ``asked``."""


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


@contextlib.contextmanager
def dripping(seconds: float = 0.05) -> Iterator[int]:
    """A port that sends an endless answer byte by byte, so that no socket timeout ever hits."""
    stop = threading.Event()

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _address = listening.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not stop.wait(seconds):
                    connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        yield int(listening.getsockname()[1])
        stop.set()
        thread.join(5)


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
