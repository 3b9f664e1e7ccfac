# SPDX-License-Identifier: Apache-2.0
"""Asking multipathd on its socket, over a real one."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from os_brick.initiator.linux import multipath, multipathd
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.changes import PrivilegedChanges
from os_brick.testing import FakeHost
from os_brick.testing.clock import VirtualClock

LENGTH = struct.Struct("N")
PATHS = "sda 3:0:0:1\nsdb 4:0:0:1\n"


class Daemon:
    """Takes one question and does what the test wants."""

    def __init__(self, deed: Callable[[socket.socket], object]) -> None:
        self.address = f"\0os-brick-test-{os.getpid()}-{id(self)}"
        self.questions: list[bytes] = []
        self._deed = deed
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(self.address)
        self._socket.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            peer, _ = self._socket.accept()
            with peer:
                (length,) = LENGTH.unpack(peer.recv(LENGTH.size, socket.MSG_WAITALL))
                self.questions.append(peer.recv(length, socket.MSG_WAITALL))
                self._deed(peer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


@pytest.fixture
def daemon() -> Iterator[Callable[[Callable[[socket.socket], object]], Daemon]]:
    running: list[Daemon] = []

    def start(deed: Callable[[socket.socket], object]) -> Daemon:
        running.append(Daemon(deed))
        return running[-1]

    yield start
    for one in running:
        one.close()


Start = Callable[[Callable[[socket.socket], object]], Daemon]


def answer(text: str) -> Callable[[socket.socket], object]:
    data = text.encode() + b"\0"
    return lambda peer: peer.sendall(LENGTH.pack(len(data)) + data)


@pytest.mark.parametrize("text", [PATHS, "", "ok\n", "path \N{SNOWMAN}\n"])
def test_an_answer(daemon: Start, text: str) -> None:
    one = daemon(answer(text))
    assert multipathd.ask(("show", "paths", "raw", "format", "%d %i"), 10, one.address) == text
    assert one.questions == [b'show paths raw format "%d %i"\0']


def test_an_answer_in_pieces(daemon: Start) -> None:
    def deed(peer: socket.socket) -> None:
        data = PATHS.encode() + b"\0"
        for byte in LENGTH.pack(len(data)) + data:
            peer.sendall(bytes([byte]))

    assert multipathd.ask(("show", "paths"), 10, daemon(deed).address) == PATHS


def test_no_answer_in_time(daemon: Start) -> None:
    over = threading.Event()
    one = daemon(lambda peer: over.wait(10))
    with pytest.raises(TimeoutError):
        multipathd.ask(("show", "status"), 0.05, one.address)
    over.set()


@pytest.mark.parametrize(
    "deed",
    [
        lambda peer: None,
        lambda peer: peer.sendall(LENGTH.pack(50) + b"half"),
        lambda peer: peer.sendall(LENGTH.pack(1 << 40)),
    ],
)
def test_an_answer_that_is_none(daemon: Start, deed: Callable[[socket.socket], object]) -> None:
    with pytest.raises(ConnectionError):
        multipathd.ask(("show", "status"), 10, daemon(deed).address)


def test_no_daemon() -> None:
    with pytest.raises(ConnectionRefusedError):
        multipathd.ask(("show", "status"), 10, "\0os-brick-test-nobody")


def test_without_the_socket_the_client_is_to_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipathd, "ask", _refuse)
    call = Call("test", VirtualClock(), 60)
    assert PrivilegedChanges().ask_multipathd(call, "show", "status") is None
    assert "refused" in str(call.timeline)


def _refuse(words: tuple[str, ...], limit_s: float) -> str:
    raise ConnectionRefusedError("refused")


@pytest.mark.parametrize("foreign", [False, True])
def test_who_supplies_an_execute_function_sees_the_client(
    fake_host: FakeHost, foreign: bool
) -> None:
    host = fake_host.foreign_host if foreign else fake_host.host
    call = Call("test", host.clock, 60)
    assert multipath.daemon_answers(host, call)
    assert multipath.known_paths(host, call) == set()
    expected = [
        ("multipathd", "show", "status"),
        ("multipathd", "show", "paths", "raw", "format", "%d %i"),
    ]
    assert fake_host.started == (expected if foreign else [])


def test_a_daemon_that_is_late_is_told_from_one_that_is_not_there(fake_host: FakeHost) -> None:
    def seen() -> list[bool | None]:
        hosts = (fake_host.host, fake_host.foreign_host)
        return [multipath.is_daemon_there(host, Call("test", host.clock, 60)) for host in hosts]

    assert seen() == [True, True]
    fake_host.faults.hang("multipathd", "show")
    assert seen() == [None, None]
    fake_host.faults.mend()
    fake_host.faults.fail("multipathd", "show", code=1, out="timeout\n", times=2)
    assert seen() == [None, None]
    fake_host.faults.mend()
    fake_host.multipathd.stop()
    assert seen() == [False, False]


def test_a_daemon_that_hangs_is_not_running(fake_host: FakeHost) -> None:
    fake_host.faults.hang("multipathd", "show")
    call = Call("test", fake_host.host.clock, 60)
    assert not multipath.daemon_answers(fake_host.host, call)
    assert fake_host.now < 30
