# SPDX-License-Identifier: Apache-2.0
"""multipathd's own socket: what its client asks there for anybody, without starting the client.

A request and an answer are each a length (``size_t`` of the machine) and so many bytes, the last of
them NUL; see ``mpath_cmd.h`` of multipath-tools. Who is not root may ask what begins with ``show``.
"""

from __future__ import annotations

import socket
import struct
import time

#: In the abstract name space of the network name space that the daemon runs in.
SOCKET = "\0/org/kernel/linux/storage/multipathd"
_LENGTH = struct.Struct("N")
_LONGEST = 32 << 20
#: What the client takes for a failure.
FAILURES = ("fail", "timeout", "permission deny")


def ask(words: tuple[str, ...], limit_s: float, address: str = SOCKET) -> str:
    """Return the daemon's answer.

    :raises TimeoutError: it did not answer in time.
    :raises OSError: there is no daemon, or none that can be asked so.
    """
    end = time.monotonic() + limit_s
    question = " ".join(f'"{word}"' if " " in word else word for word in words)
    request = question.encode() + b"\0"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
        daemon.settimeout(limit_s)
        daemon.connect(address)
        daemon.sendall(_LENGTH.pack(len(request)) + request)
        (length,) = _LENGTH.unpack(_receive(daemon, _LENGTH.size, end))
        if length > _LONGEST:
            raise ConnectionError(f"multipathd announces an answer of {length} bytes")
        answer = _receive(daemon, length, end)
    return answer.rstrip(b"\0").decode(errors="replace")


def _receive(daemon: socket.socket, length: int, end: float) -> bytes:
    received = bytearray()
    while len(received) < length:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("multipathd does not answer")
        daemon.settimeout(left)
        piece = daemon.recv(length - len(received))
        if not piece:
            raise ConnectionError("multipathd ended the connection")
        received += piece
    return bytes(received)
