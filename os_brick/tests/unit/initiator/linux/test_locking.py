# SPDX-License-Identifier: Apache-2.0
"""Locks across threads and processes, of one file in all."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from os_brick import exception
from os_brick.initiator.linux.call import Call, SystemClock
from os_brick.initiator.linux.locking import Locks


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "locks"


@pytest.fixture
def locks(directory: pathlib.Path) -> Locks:
    return Locks(lambda: str(directory))


@pytest.fixture
def pool() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(max_workers=16) as one:
        yield one


def call(limit_s: float = 60) -> Call:
    return Call("test", SystemClock(), limit_s)


def is_free(locks: Locks, name: str, *, shared: bool = False) -> bool:
    with locks.tried(name, shared=shared) as got:
        return got


# -- one process -----------------------------------------------------------------------------------
def test_one_holder_excludes_all_others_and_then_lets_them_in(locks: Locks) -> None:
    with locks.held(call(), ["volume 1"]):
        assert not is_free(locks, "volume 1")
        assert not is_free(locks, "volume 1", shared=True)
        assert is_free(locks, "volume 2")
    assert is_free(locks, "volume 1")


def test_those_who_share_exclude_only_who_wants_it_alone(locks: Locks) -> None:
    with locks.held(call(), ["session"], shared=True):
        with locks.held(call(), ["session"], shared=True):
            assert not is_free(locks, "session")
        assert not is_free(locks, "session"), "one of two has gone"
        assert is_free(locks, "session", shared=True)
    assert is_free(locks, "session")


def test_a_lock_is_let_go_of_when_the_work_fails(locks: Locks) -> None:
    with pytest.raises(PermissionError), locks.held(call(), ["volume 1", "volume 2"]):
        raise PermissionError
    assert is_free(locks, "volume 1")
    assert is_free(locks, "volume 2")


def test_threads_exclude_each_other(
    locks: Locks, pool: concurrent.futures.ThreadPoolExecutor
) -> None:
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with locks.held(call(), ["volume"]):
                inside += 1
                most = max(most, inside)
                inside -= 1

    for done in [pool.submit(work) for _ in range(8)]:
        done.result(60)
    assert (inside, most) == (0, 1)


def test_several_are_taken_in_one_order_so_that_none_wait_for_each_other(
    locks: Locks, pool: concurrent.futures.ThreadPoolExecutor
) -> None:
    def work(names: list[str]) -> None:
        for _ in range(20):
            with locks.held(call(), names):
                pass

    orders = [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a", "b"], ["c", "a"]]
    for done in [pool.submit(work, order) for order in orders * 2]:
        done.result(60)


def test_waiting_for_a_lock_counts_against_the_deadline(locks: Locks) -> None:
    with locks.held(call(), ["volume 1"]):
        short = call(limit_s=0.1)
        with (
            pytest.raises(exception.DeadlineExceeded, match="the lock of volume 1"),
            locks.held(short, ["volume 0", "volume 1"]),
        ):
            pytest.fail("two hold one lock")
        assert "lock volume 1" in str(short.timeline)
        assert is_free(locks, "volume 0"), "what it had got already is free again"


def test_a_lock_that_is_free_is_not_worth_a_line(locks: Locks) -> None:
    one = call()
    with locks.held(one, ["volume"]):
        pass
    assert str(one.timeline) == ""


def test_a_lock_that_was_taken_is_held_until_its_keeper_closes(locks: Locks) -> None:
    with contextlib.ExitStack() as keep:
        assert locks.taken("path", keep)
        assert not is_free(locks, "path", shared=True)
        with contextlib.ExitStack() as other:
            assert not locks.taken("path", other)
            assert not locks.taken("path", other, shared=True)
        assert not is_free(locks, "path"), "who did not get it has let go of it"
    assert is_free(locks, "path")


def test_one_who_has_to_have_them_soon_is_told_whether_he_has(locks: Locks) -> None:
    with locks.held_if_soon(call(), ["volume 0", "volume 1"], 0.1) as had:
        assert had
        with locks.held_if_soon(call(), ["volume 1", "volume 2"], 0.1) as again:
            assert not again
            assert is_free(locks, "volume 2")
    assert is_free(locks, "volume 0")
    assert is_free(locks, "volume 1")


def test_a_deadline_that_passes_while_they_are_held_is_not_taken_for_not_having_them(
    locks: Locks,
) -> None:
    def work() -> None:
        with locks.held_if_soon(call(), ["volume"], 0.1) as had:
            assert had
            raise exception.DeadlineExceeded(what="a flush", seconds=1)

    with pytest.raises(exception.DeadlineExceeded, match="a flush"):
        work()
    assert is_free(locks, "volume")


# -- the file --------------------------------------------------------------------------------------
def test_any_number_of_locks_is_one_file(locks: Locks, directory: pathlib.Path) -> None:
    for number in range(300):
        with locks.held(call(), [f"iscsi session 10.0.0.1:3260 iqn.example:{number}"]):
            pass
    (file,) = directory.iterdir()
    assert file.stat().st_size == 0


def test_holding_and_trying_leave_no_file_open(locks: Locks) -> None:
    with locks.held(call(), ["volume"]):
        pass
    before = os.listdir("/proc/self/fd")
    for _ in range(50):
        with locks.held(call(), ["volume"]), locks.tried("volume"):
            pass
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("mode", [0o755, 0o775, 0o777])
def test_who_may_write_to_the_directory_may_lock(
    locks: Locks, directory: pathlib.Path, mode: int
) -> None:
    directory.mkdir()
    directory.chmod(mode)
    with locks.held(call(), ["volume"]):
        pass
    (file,) = directory.iterdir()
    writers = stat.S_IWGRP | stat.S_IWOTH
    assert file.stat().st_mode & writers == mode & writers


def test_two_directories_know_nothing_of_each_other(tmp_path: pathlib.Path) -> None:
    one = Locks(lambda: str(tmp_path / "one"))
    other = Locks(lambda: str(tmp_path / "other"))
    with one.held(call(), ["volume"]):
        assert not is_free(one, "volume")
        assert is_free(other, "volume")


def test_the_directory_is_looked_up_at_each_use(tmp_path: pathlib.Path) -> None:
    where = [tmp_path / "before"]
    locks = Locks(lambda: str(where[0]))
    with locks.held(call(), ["volume"]):
        where[0] = tmp_path / "after"
        assert is_free(locks, "volume")
    assert (tmp_path / "after").is_dir()


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    locks = Locks(lambda: str(tmp_path / "file" / "locks"))
    with pytest.raises(OSError, match="Not a directory"), locks.held(call(), ["volume"]):
        pass


# -- processes -------------------------------------------------------------------------------------
HOLDER = """
import sys
from os_brick.initiator.linux.call import Call, SystemClock
from os_brick.initiator.linux.locking import Locks

directory, name, shared = sys.argv[1:]
call = Call("test", SystemClock(), 60)
with Locks(lambda: directory).held(call, [name], shared=shared == "shared"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_process(directory: pathlib.Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that holds a lock until its standard input is closed."""
    with contextlib.ExitStack() as stack:

        def start(name: str, *, shared: bool = False) -> subprocess.Popen[str]:
            words = [sys.executable, "-c", HOLDER, str(directory), name]
            process = stack.enter_context(
                subprocess.Popen(
                    [*words, "shared" if shared else "alone"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            return process

        yield start


def test_processes_exclude_each_other(
    locks: Locks, other_process: Callable[..., subprocess.Popen[str]]
) -> None:
    process = other_process("volume")
    assert not is_free(locks, "volume")
    assert is_free(locks, "another")
    process.communicate(timeout=50)
    with locks.held(call(), ["volume"]):
        pass


def test_processes_share(locks: Locks, other_process: Callable[..., subprocess.Popen[str]]) -> None:
    other_process("session", shared=True)
    assert is_free(locks, "session", shared=True)
    assert not is_free(locks, "session")


def test_a_process_that_is_killed_holds_nothing(
    locks: Locks, other_process: Callable[..., subprocess.Popen[str]]
) -> None:
    process = other_process("volume")
    waiting = threading.Event()

    def wait_for_it() -> bool:
        waiting.set()
        with locks.held(call(), ["volume"]):
            return True

    with concurrent.futures.ThreadPoolExecutor() as pool:
        got_it = pool.submit(wait_for_it)
        assert waiting.wait(50)
        assert not got_it.done()
        process.send_signal(signal.SIGKILL)
        assert got_it.result(50)


def test_a_process_started_meanwhile_does_not_go_on_holding(locks: Locks) -> None:
    with locks.held(call(), ["volume"]):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert is_free(locks, "volume")
    finally:
        child.communicate(timeout=50)


def test_a_process_forked_meanwhile_does_not_go_on_holding(locks: Locks) -> None:
    reader, writer = os.pipe()
    with locks.held(call(), ["volume"]):
        child = os.fork()
        if child == 0:  # it has all that its parent has open, and waits for the end of the test
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    try:
        assert is_free(locks, "volume")
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(child, 0)
