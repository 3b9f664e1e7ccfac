# SPDX-License-Identifier: Apache-2.0
"""What the base of the connectors gives to all, also to those outside of this library."""

from __future__ import annotations

import logging
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_concurrency import lockutils
from oslo_config import cfg

from os_brick import exception, opts
from os_brick.initiator.connectors import base, fake

PROGRAM = """
import sys
from oslo_concurrency import lockutils
from oslo_config import cfg
from os_brick.initiator.connectors import base
lockutils.get_lock_path(cfg.CONF)
cfg.CONF.set_override("lock_path", sys.argv[1], group="os_brick")
cfg.CONF.set_override("lock_path", sys.argv[2], group="oslo_concurrency")

@base.synchronized("connect_volume", external=True)
def work():
    print("entered", flush=True)
    sys.stdin.readline()

work()
"""


class Other:
    """Another process that wants the lock ``connect_volume`` and holds it until told."""

    def __init__(self, brick: pathlib.Path, service: pathlib.Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(brick), str(service)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.communicate("go\n", timeout=60)


@pytest.fixture
def lock_path(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """``[os_brick] lock_path``; oslo.concurrency's is another."""
    lockutils.get_lock_path(cfg.CONF)
    cfg.CONF.set_override("lock_path", str(tmp_path / "brick"), group=opts.GROUP)
    cfg.CONF.set_override("lock_path", str(tmp_path / "service"), group="oslo_concurrency")
    yield tmp_path / "brick"
    cfg.CONF.clear_override("lock_path", group=opts.GROUP)
    cfg.CONF.clear_override("lock_path", group="oslo_concurrency")


# -- MI-03 synchronized ----------------------------------------------------------------------
def test_the_directory_is_looked_up_at_the_call(lock_path: pathlib.Path) -> None:
    @base.synchronized("connect_volume", external=True)
    def work(first: int, *, second: int) -> tuple[list[str], int]:
        """Say what is locked."""
        return os.listdir(lock_path), first + second

    cfg.CONF.set_override("lock_path", str(lock_path), group=opts.GROUP)

    assert work(1, second=2) == (["os-brick-connect_volume"], 3)
    assert (work.__name__, work.__doc__) == ("work", "Say what is locked.")


def test_a_prefix_and_a_directory_of_ones_own(lock_path: pathlib.Path) -> None:
    own = lock_path.parent / "own"

    @base.synchronized("scaleio", "scaleio-", external=True, lock_path=str(own))
    def work() -> list[str]:
        return os.listdir(own)

    assert work() == ["scaleio-scaleio"]
    assert not lock_path.exists()


def test_without_a_file_no_directory_is_needed() -> None:
    lockutils.get_lock_path(cfg.CONF)
    for group in (opts.GROUP, "oslo_concurrency"):
        cfg.CONF.set_override("lock_path", None, group=group)
    try:
        assert base.synchronized("volume_op")(lambda: 5)() == 5
        with pytest.raises(cfg.RequiredOptError):
            base.synchronized("volume_op", external=True)(lambda: 5)()
    finally:
        for group in (opts.GROUP, "oslo_concurrency"):
            cfg.CONF.clear_override("lock_path", group=group)


@pytest.mark.parametrize("external", [False, True])
def test_threads_take_turns(lock_path: pathlib.Path, external: bool) -> None:
    events: list[str] = []
    inside = threading.Event()
    tried = threading.Event()

    @base.synchronized("connect_volume", external=external)
    def work(name: str) -> None:
        events.append(f"{name} in")
        inside.set()
        tried.wait(30)
        events.append(f"{name} out")

    threads = [threading.Thread(target=work, args=(name,)) for name in ("first", "second")]
    threads[0].start()
    inside.wait(30)
    threads[1].start()
    tried.set()
    for thread in threads:
        thread.join(30)

    assert events == ["first in", "first out", "second in", "second out"]


def test_services_exclude_each_other_if_they_share_the_directory(tmp_path: pathlib.Path) -> None:
    """Whatever their own directories of locks are."""
    nova = Other(tmp_path / "brick", tmp_path / "nova")
    apart = Other(tmp_path / "elsewhere", tmp_path / "nova")
    assert nova.says() == "entered"
    cinder = Other(tmp_path / "brick", tmp_path / "cinder")
    told: list[str] = []
    listener = threading.Thread(target=lambda: told.append(cinder.says()))
    listener.start()
    assert apart.says() == "entered"
    apart.end()
    assert told == []
    nova.end()
    listener.join(60)
    assert told == ["entered"]
    cinder.end()


def test_waiting_and_holding_are_told_for_debugging(
    lock_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    base.synchronized("connect_volume", external=True)(lambda: None)()

    assert "connect_volume" in caplog.text


# -- MI-12, MI-13 base helpers ---------------------------------------------------------------
def test_multipath_is_supported_by_connectors_that_say_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = fake.FakeConnector("sudo")
    wanting = fake.FakeConnector("sudo", use_multipath=True)

    assert plain.supports_multipath() is False
    assert plain.check_multipath({"enforce_multipath": True}) is False
    assert caplog.text == ""
    assert wanting.check_multipath({}) is False
    assert "Multipathing is requested but the host doesn't support multipathing." in caplog.text
    with pytest.raises(
        exception.BrickException,
        match=r"^Multipathing is enforced but the host doesn't support multipathing\.$",
    ):
        wanting.check_multipath({"enforce_multipath": True})


class Searching(fake.FakeConnector):
    """One with a search path of its own, and the base's way to look into it."""

    def __init__(self, path: str | None) -> None:
        super().__init__("sudo")
        self.path = path

    def get_search_path(self) -> Any:
        return self.path

    get_all_available_volumes = base.BaseLinuxConnector.get_all_available_volumes


def test_all_available_volumes(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").touch()

    assert Searching(str(tmp_path)).get_all_available_volumes() == [str(tmp_path / "a")]
    assert Searching(str(tmp_path / "a")).get_all_available_volumes() == []
    assert Searching(str(tmp_path / "none")).get_all_available_volumes({}) == []
    assert Searching(None).get_all_available_volumes() == []


def test_handles_have_a_type() -> None:
    connector = fake.FakeConnector("sudo")

    connector.check_IO_handle_valid("handle", str, "RBD")
    connector.check_IO_handle_valid(None, str, "RBD")
    with pytest.raises(
        exception.InvalidIOHandleObject,
        match=r"IO handle of RBD has wrong object type <class 'int'>\.",
    ):
        connector.check_IO_handle_valid(5, str, "RBD")


def test_the_driver_and_the_attempts_are_remembered() -> None:
    driver = object()
    connector = fake.FakeConnector("sudo", driver, device_scan_attempts=7)
    assert (connector.driver, connector.device_scan_attempts) == (driver, 7)

    connector.set_driver(None)
    assert connector.driver is None
    assert fake.FakeConnector("sudo").driver.get_all_block_devices() is not None
