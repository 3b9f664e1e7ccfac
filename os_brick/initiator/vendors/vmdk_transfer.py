# SPDX-License-Identifier: Apache-2.0
"""Disks over HTTP: an export's stream into a file, and a file into a folder of a datastore.

Both go chunk by chunk with the transfer's own limit, the server proves who it is, and the status
of its answer counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import os
import ssl
import urllib.parse
from collections.abc import Callable, Iterator
from typing import IO, TypeVar

from os_brick import exception
from os_brick.initiator.linux.call import Call
from os_brick.initiator.vendors.http import FAILURES, Server, Tls, shut
from os_brick.initiator.vendors.limits import run_within
from os_brick.initiator.vendors.vsphere import Session

_CHUNK = 1024 * 1024
T = TypeVar("T")

# Between two chunks; all of them together have the transfer's limit.
_SILENCE_S = 120.0
# Of a sparse extent (VMware Virtual Disk Format 5.0): what an export has to begin with.
_MAGIC = b"KDMV"
_SHA1_HEX_DIGITS = 40


class TransferError(exception.BrickException):
    """A disk did not go through whole."""


def download(
    session: Session, url: str, thumbprint: str, file: IO[bytes], progress: Callable[[int], None]
) -> int:
    """Write an export's stream to a file.

    :param url: of the lease; ``*`` as its host is the server itself.
    :param thumbprint: of the certificate of its host, which the server has told; may be empty.
    :param progress: told now and then how many bytes have come.
    :returns: their number.
    :raises TransferError: it is not whole, or no disk.
    """
    where = urllib.parse.urlsplit(url)
    vcenter = session.vcenter.server
    host = vcenter.bare_host if where.netloc.startswith("*") else where.hostname or ""
    port = where.port if not where.netloc.startswith("*") else vcenter.port
    tls = where.scheme == "https"
    server = Server(host, port or (443 if tls else 80), vcenter.tls if tls else None)
    target = where.path + (f"?{where.query}" if where.query else "")
    headers = {"Cookie": session.cookie}
    with _told(server, "Download"), _connection(server, thumbprint) as connection:

        def transfer() -> int:
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
            _check(response, (200,))
            return _receive(session.call, response, file, progress)

        return _bounded(session.call, server, connection, transfer)


def _receive(
    call: Call,
    response: http.client.HTTPResponse,
    file: IO[bytes],
    progress: Callable[[int], None],
) -> int:
    size = 0
    while chunk := response.read1(_CHUNK):
        if size == 0 and not chunk.startswith(_MAGIC[: len(chunk)]):
            raise TransferError("what came is no disk of VMware's")
        file.write(chunk)
        size += len(chunk)
        call.check("transfer of the disk")
        progress(size)
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    if size == 0:
        raise TransferError("nothing came")
    return size


def upload(session: Session, path: str, target: str) -> None:
    """Send a file to the server.

    :param path: of the file here.
    :param target: path and query of the place there.
    :raises TransferError: it is not there whole.
    """
    server = session.vcenter.server
    size = os.path.getsize(path)
    headers = {
        "Cookie": session.cookie,
        "Content-Length": str(size),
        "Content-Type": "application/octet-stream",
    }
    with (
        _told(server, "Upload"),
        _connection(server, "") as connection,
        open(path, "rb") as file,
    ):

        def transfer() -> None:
            connection.request("PUT", target, body=_chunks(session.call, file), headers=headers)
            _check(connection.getresponse(), (200, 201, 204))

        _bounded(session.call, server, connection, transfer)


def _chunks(call: Call, file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        call.check("transfer of the disk")
        yield chunk


def _bounded(
    call: Call, server: Server, connection: http.client.HTTPConnection, transfer: Callable[[], T]
) -> T:
    """Run a transfer within the call's time, however slowly bytes come."""
    return run_within(call.remaining_s(), transfer, str(server), lambda: shut(connection))


@contextlib.contextmanager
def _connection(server: Server, thumbprint: str) -> Iterator[http.client.HTTPConnection]:
    """Open a connection to a server that has proved who it is.

    Hosts have certificates that only their vCenter knows; it has told their thumbprint over its own
    proven connection.
    """
    expected = thumbprint.replace(":", "").lower()
    pinned = server.tls is not None and server.tls.verify and len(expected) == _SHA1_HEX_DIGITS
    if pinned:
        server = Server(server.host, server.port, Tls(verify=False))
    connection = server.connection(_SILENCE_S)
    try:
        connection.connect()
        if pinned and isinstance(connection.sock, ssl.SSLSocket):
            shown = hashlib.sha1(  # noqa: S324 - the kind of thumbprint that the API has
                connection.sock.getpeercert(binary_form=True) or b""
            ).hexdigest()
            if not hmac.compare_digest(shown, expected):
                raise ssl.SSLCertVerificationError(
                    f"the certificate of {server} has not the thumbprint that vCenter tells"
                )
        yield connection
    finally:
        connection.close()


def _check(response: http.client.HTTPResponse, good: tuple[int, ...]) -> None:
    if response.status not in good:
        raise TransferError(f"status {response.status} {response.reason}")


@contextlib.contextmanager
def _told(server: Server, what: str) -> Iterator[None]:
    """Say in one error what failed and where."""
    try:
        yield
    except exception.DeadlineExceeded:
        raise
    except (TransferError, *FAILURES) as exc:
        raise TransferError(f"{what} from or to {server} failed: {exc}") from exc
