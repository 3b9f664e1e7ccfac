# SPDX-License-Identifier: Apache-2.0
"""One HTTP request and its answer, within a time that holds.

By the standard library's ``http.client``: nothing more is loaded, nothing is sent again behind the
caller's back, no redirect is followed with credentials, and a failure is the system's own error,
which says whether the request can have arrived.

A socket's timeout counts from byte to byte, so that a server which sends one now and then could
hold a caller for ever. The exchange therefore has a thread of its own, and the caller leaves at the
limit; the connection is shut then, which ends the thread.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from os_brick.initiator.vendors.limits import run_within

#: What an exchange may raise: the system's answer, or that the server does not speak HTTP.
FAILURES = (OSError, http.client.HTTPException)

#: Those of them that come before the request can have been sent.
NEVER_SENT = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)

# Lists of all volumes of a system are the longest answers; whatever is longer is not for us.
_LONGEST_ANSWER = 64 * 1024 * 1024
_SHORTEST_LIMIT_S = 0.01
# The caller leaves first, and says which server it was; then the socket's own timeout may come.
_AFTER_LIMIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server proves who it is.

    :ivar verify: whether its certificate and name are checked at all.
    :ivar ca: a file or directory of certificates to check against; None for the system's.
    """

    verify: bool = True
    ca: str | None = None

    def context(self) -> ssl.SSLContext:
        """Return the settings for a connection.

        :raises OSError: the certificates cannot be read.
        """
        if not self.verify:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        if self.ca is None:
            return ssl.create_default_context()
        if os.path.isdir(self.ca):
            return ssl.create_default_context(capath=self.ca)
        return ssl.create_default_context(cafile=self.ca)


@dataclass(frozen=True, slots=True)
class Server:
    """Where to ask.

    :ivar host: name or address; an IPv6 address with or without brackets.
    :ivar tls: None for plain HTTP.
    """

    host: str
    port: int
    tls: Tls | None = None

    def __str__(self) -> str:
        host = f"[{self.bare_host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def bare_host(self) -> str:
        """The host without brackets."""
        return self.host.strip("[]")

    def connection(self, limit_s: float) -> http.client.HTTPConnection:
        """Return a connection that is not open yet."""
        if self.tls is None:
            return http.client.HTTPConnection(self.bare_host, self.port, timeout=limit_s)
        return http.client.HTTPSConnection(
            self.bare_host, self.port, timeout=limit_s, context=self.tls.context()
        )


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask. Its text shows neither headers nor body: they may hold secrets."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)

    @classmethod
    def of_json(
        cls, method: str, path: str, data: Any = None, headers: Mapping[str, str] | None = None
    ) -> Request:
        """Return a request with a JSON body; None is no body."""
        body = None if data is None else json.dumps(data).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        return cls(method, path, {"Accept": "application/json", **kind, **(headers or {})}, body)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    reason: str
    body: bytes

    def json(self) -> Any:
        """Return the body's value.

        :raises ValueError: it is no JSON.
        """
        return json.loads(self.body)


def exchange(server: Server, request: Request, limit_s: float) -> Answer:
    """Send a request once, and return the answer whatever its status is.

    :param limit_s: seconds for all of it: name look-up, connection, TLS, request and answer.
    :raises TimeoutError: it had not ended by then.
    :raises OSError: no connection, or it broke; ``ssl.SSLCertVerificationError`` if the server did
        not prove who it is.
    :raises http.client.HTTPException: what came is no HTTP, or too much.
    """
    running = _Exchange(server, request, max(limit_s, _SHORTEST_LIMIT_S))
    return run_within(running.limit_s, running.run, str(server), running.abort)


class _Exchange:
    """One exchange as a thread runs it."""

    def __init__(self, server: Server, request: Request, limit_s: float) -> None:
        self._server = server
        self._request = request
        self.limit_s = limit_s
        self._connection: http.client.HTTPConnection | None = None

    def run(self) -> Answer:
        request = self._request
        connection = self._connection = self._server.connection(self.limit_s + _AFTER_LIMIT_S)
        try:
            connection.request(request.method, request.path, request.body, dict(request.headers))
            response = connection.getresponse()
            body = response.read(_LONGEST_ANSWER + 1)
            missing = response.length  # read() with a limit does not tell that the end is missing
        finally:
            connection.close()
        if len(body) > _LONGEST_ANSWER:
            raise http.client.HTTPException(f"the answer of {self._server} is too long")
        if missing:
            raise http.client.IncompleteRead(body, missing)
        return Answer(response.status, response.reason, body)

    def abort(self) -> None:
        """Have the thread end."""
        if self._connection is not None:
            shut(self._connection)


def shut(connection: http.client.HTTPConnection) -> None:
    """Have a thread end that waits for bytes of a connection."""
    if connection.sock is not None:
        with contextlib.suppress(OSError, ValueError):  # it has ended by itself meanwhile
            connection.sock.shutdown(socket.SHUT_RDWR)
