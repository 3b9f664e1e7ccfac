# SPDX-License-Identifier: Apache-2.0
import fcntl
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

from os_brick import opts
from os_brick.initiator import host_driver
from os_brick.initiator import utils as initiator_utils

MANUAL_SCAN = "ISCSI_SUPPORTS_MANUAL_SCAN"
UUID = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"


class Volume:
    """A Cinder volume: an object with keys."""

    def __init__(self, **keys: Any) -> None:
        self.keys = keys

    def __getitem__(self, name: Any) -> Any:
        return self.keys[name]

    def get(self, name: Any, default: Any = None) -> Any:
        return self.keys.get(name, default)


@pytest.fixture
def lock_path(tmp_path: pathlib.Path) -> Iterator[Any]:
    """``[os_brick] lock_path``; oslo.concurrency's is another."""
    lockutils.get_lock_path(cfg.CONF)
    cfg.CONF.set_override("lock_path", str(tmp_path / "brick"), group=opts.GROUP)
    cfg.CONF.set_override("lock_path", str(tmp_path / "service"), group="oslo_concurrency")
    yield tmp_path / "brick"
    cfg.CONF.clear_override("lock_path", group=opts.GROUP)
    cfg.CONF.clear_override("lock_path", group="oslo_concurrency")


@pytest.fixture
def unset_lock_path() -> Iterator[Any]:
    lockutils.get_lock_path(cfg.CONF)
    cfg.CONF.set_override("lock_path", None, group=opts.GROUP)
    cfg.CONF.set_override("lock_path", None, group="oslo_concurrency")
    yield
    cfg.CONF.clear_override("lock_path", group=opts.GROUP)
    cfg.CONF.clear_override("lock_path", group="oslo_concurrency")


def is_locked(path: Any) -> Any:
    """Whether another process (file locks are per process) could not lock the file."""
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'a')\n"
        "try: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except OSError: sys.exit(7)"
    )
    return subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 7


@pytest.mark.parametrize("kind", [dict, Volume])
@pytest.mark.parametrize(
    ("shared_targets", "manual_scan", "locked"),
    [
        (False, False, False),
        (False, True, False),
        (True, True, False),
        (True, False, True),
        (None, True, True),
        (None, False, True),
    ],
)
def test_when_a_lock_is_held(
    lock_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    shared_targets: Any,
    manual_scan: Any,
    locked: Any,
) -> None:
    monkeypatch.setattr(initiator_utils, MANUAL_SCAN, manual_scan)
    path = lock_path / f"os-brick-{UUID}"

    with initiator_utils.guard_connection(kind(shared_targets=shared_targets, service_uuid=UUID)):
        assert path.exists() == locked
        assert not locked or is_locked(path)

    assert not locked or not is_locked(path)


@pytest.mark.parametrize("volume", [{}, {"shared_targets": False}, {"shared_targets": True}])
def test_no_uuid_and_no_directory_needed_without_a_lock(
    unset_lock_path: Any, monkeypatch: pytest.MonkeyPatch, volume: Any
) -> None:
    monkeypatch.setattr(initiator_utils, MANUAL_SCAN, True)

    with initiator_utils.guard_connection(volume):
        pass


def test_a_lock_needs_a_directory(unset_lock_path: Any) -> None:
    with (
        pytest.raises(cfg.RequiredOptError),
        initiator_utils.guard_connection({"shared_targets": None, "service_uuid": UUID}),
    ):
        pytest.fail("entered without a lock")


def test_volumes_of_unknown_services_exclude_each_other(lock_path: Any) -> None:
    with initiator_utils.guard_connection({"shared_targets": None, "service_uuid": None}):
        (name,) = os.listdir(lock_path)
        assert is_locked(lock_path / name)


def test_threads_wait_for_each_other(lock_path: Any) -> None:
    volume = {"shared_targets": None, "service_uuid": UUID}
    events = []

    def other() -> None:
        with initiator_utils.guard_connection(volume):
            events.append("second")

    with initiator_utils.guard_connection(volume):
        thread = threading.Thread(target=other)
        thread.start()
        events.append("first")
    thread.join()

    assert events == ["first", "second"]


def test_a_failure_inside_releases_the_lock(lock_path: Any) -> None:
    volume = {"shared_targets": None, "service_uuid": UUID}

    with pytest.raises(ValueError, match="x"), initiator_utils.guard_connection(volume):
        raise ValueError("x")

    assert not is_locked(lock_path / f"os-brick-{UUID}")


def test_another_process_waits(lock_path: Any) -> None:
    lock_path.mkdir()
    path = lock_path / f"os-brick-{UUID}"
    with open(path, "a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        code = (
            "import sys\n"
            "from oslo_config import cfg\n"
            "from os_brick import opts\n"
            "from os_brick.initiator import utils\n"
            "cfg.CONF.set_override('lock_path', sys.argv[1], group='os_brick')\n"
            "print('ready', flush=True)\n"
            "volume = {'shared_targets': None, 'service_uuid': sys.argv[2]}\n"
            "with utils.guard_connection(volume): print('entered', flush=True)\n"
        )
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(lock_path), UUID], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.5)
        fcntl.lockf(file, fcntl.LOCK_UN)
    assert other.communicate()[0] == "entered\n"


# --- manual scan ----------------------------------------------------------------------------------


@pytest.fixture
def iscsiadm(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands in for the installed program, wherever it is looked for."""
    monkeypatch.setattr(initiator_utils, "PLACES", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(content: Any) -> None:
        program = tmp_path / "iscsiadm"
        program.write_bytes(content)
        program.chmod(0o755)

    return install


@pytest.mark.parametrize(
    ("content", "supported"),
    [(b"\x7fELF\0node.session.scan\0", True), (b"\x7fELF\0node.session\0", False), (b"", False)],
)
def test_manual_scan_is_a_setting_that_the_program_knows(
    iscsiadm: Any, content: Any, supported: Any
) -> None:
    iscsiadm(content)

    assert initiator_utils.check_manual_scan() is supported


def test_no_iscsiadm(iscsiadm: Any) -> None:
    assert initiator_utils.check_manual_scan() is False


def test_the_variable_is_found_out_when_first_asked_for(
    iscsiadm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(initiator_utils, MANUAL_SCAN, raising=False)
    iscsiadm(b"node.session.scan")

    assert initiator_utils.ISCSI_SUPPORTS_MANUAL_SCAN is True

    iscsiadm(b"")
    assert initiator_utils.ISCSI_SUPPORTS_MANUAL_SCAN is True
    initiator_utils.ISCSI_SUPPORTS_MANUAL_SCAN = initiator_utils.check_manual_scan()
    assert initiator_utils.ISCSI_SUPPORTS_MANUAL_SCAN is False
    del initiator_utils.ISCSI_SUPPORTS_MANUAL_SCAN


def test_no_other_variable() -> None:
    with pytest.raises(AttributeError, match="OTHER"):
        _ = initiator_utils.OTHER


# --- host driver ----------------------------------------------------------------------------------


def test_block_devices(tmp_path: pathlib.Path) -> None:
    for name in ("ip-1.2.3.4:3260-iscsi-iqn.a-lun-1", "pci-0000"):
        (tmp_path / name).touch()

    driver = host_driver.HostDriver(by_path=f"{tmp_path}/")

    assert sorted(driver.get_all_block_devices()) == [
        f"{tmp_path}/ip-1.2.3.4:3260-iscsi-iqn.a-lun-1",
        f"{tmp_path}/pci-0000",
    ]


def test_no_directory_of_block_devices(tmp_path: pathlib.Path) -> None:
    assert host_driver.HostDriver(by_path=f"{tmp_path}/none").get_all_block_devices() == []


def test_block_devices_that_cannot_be_listed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(NotADirectoryError):
        host_driver.HostDriver(by_path=f"{tmp_path}/file").get_all_block_devices()
