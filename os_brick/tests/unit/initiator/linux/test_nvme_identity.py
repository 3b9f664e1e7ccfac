# SPDX-License-Identifier: Apache-2.0
"""Who this host is for NVMe subsystems, and what it tells storage of itself."""

from __future__ import annotations

import errno
import pathlib
import shutil
from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import exception, privileged, utils
from os_brick.initiator.connectors.nvmeof import NVMeOFConnector
from os_brick.initiator.linux import nvme_changes, nvme_identity
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.nvme_changes import HostIdentity, PrivilegedNvme
from os_brick.privileged import nvmeof
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.connectors.nvme_helpers import connector

MACHINE = "7a1b2c3d-0000-4000-8000-000000000001"
OTHER = "9a2d9b1f-5be6-4c5a-a1ea-b9d2e6fc0bd5"
PREFIX = "nqn.2014-08.org.nvmexpress:uuid:"


def properties(host: FakeHost, *, foreign: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = connector(host, foreign=foreign).read_host_properties(
        nvme_identity.Facts()
    )
    return found


@pytest.mark.parametrize("foreign", [False, True])
def test_all_keys(fake_host: FakeHost, foreign: bool) -> None:
    """NV-09, NV-10, NV-11."""
    fake_host.nvme.load()
    fake_host.coreutils.files["/sys/class/dmi/id/product_uuid"] = f"{MACHINE}\n"
    assert properties(fake_host, foreign=foreign) == {
        "uuid": "cf2b9d3e-5f0a-4b6e-9d0a-3a4d5b8a7c11",
        "system uuid": MACHINE,
        "nqn": PREFIX + MACHINE,
        "nvme_hostid": MACHINE,
        "nvme_native_multipath": True,
    }


@pytest.mark.parametrize("code", [1, 127])
def test_without_nvme_cli_nothing_is_made(fake_host: FakeHost, code: int) -> None:
    """Bugs 1929074, 1929075."""
    fake_host.nvme_identity.files.clear()
    fake_host.faults.fail("nvme", "version", code=code, times=9)
    found = properties(fake_host)
    assert found["nvme_native_multipath"] is False
    assert "nqn" not in found
    assert "nvme_hostid" not in found
    assert fake_host.nvme_identity.files == {}


def test_the_root_of_a_container(fake_host: FakeHost, caplog: pytest.LogCaptureFixture) -> None:
    """Bug 2045557."""
    fake_host.nvme.load()
    fake_host.programs.install("findmnt", lambda process: _answer("overlay\n"))
    assert "uuid" not in properties(fake_host)
    assert not [words for words in fake_host.started if words[0] == "blkid"]
    assert not caplog.records


def _answer(text: str) -> Any:
    from os_brick.testing.process import Answer

    return Answer(out=text)


@pytest.mark.parametrize("program", ["findmnt", "blkid"])
def test_a_root_that_is_not_told_is_a_warning(
    fake_host: FakeHost, program: str, caplog: pytest.LogCaptureFixture
) -> None:
    fake_host.faults.fail(program, code=1)
    assert "uuid" not in properties(fake_host)
    assert program in caplog.text


def test_what_does_not_change_is_asked_once(fake_host: FakeHost) -> None:
    one, facts = connector(fake_host), nvme_identity.Facts()
    first = one.read_host_properties(facts)
    fake_host.forget()
    assert one.read_host_properties(facts) == first
    assert fake_host.started == []


def test_nvme_cli_that_did_not_run_once_is_asked_again(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_how: f"/usr/sbin/{name}")
    one, facts = connector(fake_host), nvme_identity.Facts()
    fake_host.faults.fail("nvme", "version", code=1, err="Cannot allocate memory")
    assert "nqn" not in one.read_host_properties(facts)
    assert "nqn" in one.read_host_properties(facts)


@pytest.mark.parametrize("there", [False, True])
def test_files_that_only_root_can_read(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, there: bool
) -> None:
    """NV-05."""
    if there:
        (tmp_path / "hostnqn").write_text(f"{PREFIX}{OTHER}\n")
        (tmp_path / "hostid").write_text(f"{OTHER}\n")
    monkeypatch.setattr(utils, "HOST_NQN_FILE", str(tmp_path / "hostnqn"))
    monkeypatch.setattr(utils, "HOST_ID_FILE", str(tmp_path / "hostid"))
    monkeypatch.setattr(nvmeof, "NVME_DIR", str(tmp_path))

    def refuse(path: str, **_how: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(nvme_changes, "open", refuse, raising=False)
    privileged.default.set_client_mode(False)
    try:
        found = PrivilegedNvme().read_identity(Call("test", fake_host.host.clock, 10))
    finally:
        privileged.default.set_client_mode(True)
    assert (found.nqn, found.host_id) == ((PREFIX + OTHER, OTHER) if there else (None, None))


def test_that_a_container_has_no_root_of_its_own_is_asked_once(fake_host: FakeHost) -> None:
    fake_host.programs.install("findmnt", lambda process: _answer("overlay\n"))
    one, facts = connector(fake_host), nvme_identity.Facts()
    one.read_host_properties(facts)
    fake_host.forget()
    one.read_host_properties(facts)
    assert fake_host.started == []


def test_what_could_not_be_learned_is_asked_again(fake_host: FakeHost) -> None:
    fake_host.faults.fail("findmnt", code=1)
    one, facts = connector(fake_host), nvme_identity.Facts()
    assert "uuid" not in one.read_host_properties(facts)
    assert "uuid" in one.read_host_properties(facts)


def test_no_system_uuid(fake_host: FakeHost) -> None:
    fake_host.nvme_identity.system_uuid = ""
    assert "system uuid" not in properties(fake_host)


def test_an_identity_that_cannot_be_made_costs_its_keys(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    fake_host.nvme_identity.files.clear()
    fake_host.nvme_identity.system_uuid = ""
    fake_host.faults.fail("nvme", "gen-hostnqn", code=1, err="no entropy")
    found = properties(fake_host, foreign=True)
    assert "uuid" in found
    assert "nqn" not in found
    assert "no entropy" in caplog.text or "identity is not known" in caplog.text


def test_an_identity_that_cannot_be_read_is_never_replaced(fake_host: FakeHost) -> None:
    before = dict(fake_host.nvme_identity.files)
    fake_host.nvme_identity.system_uuid = OTHER
    fake_host.faults.fail("cat", code=1, times=99, err="sudo: a password is required")
    volume = fake_host.nvme_subsystem().namespace()
    one = fake_host.connector("NVMEOF", foreign=True)
    with pytest.raises(processutils.ProcessExecutionError, match="a password is required"):
        one.connect_volume(volume.properties)
    assert "nqn" not in properties(fake_host, foreign=True)
    assert fake_host.nvme_identity.files == before
    assert fake_host.nvme.controllers == []


def test_with_force_a_volume_is_detached_without_this_hosts_identity(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem().namespace()
    one = fake_host.connector("NVMEOF", foreign=True)
    info = one.connect_volume(volume.properties)
    fake_host.faults.fail("cat", code=1, times=99, err="sudo: a password is required")
    with pytest.raises(processutils.ProcessExecutionError):
        one.disconnect_volume(volume.properties, info)
    assert len(fake_host.nvme.controllers) == 1
    with pytest.raises(exception.ExceptionChainer, match="a password is required"):
        one.disconnect_volume(volume.properties, info, force=True)
    assert fake_host.nvme.controllers == []


@pytest.mark.parametrize("program", ["mkdir", "tee", "ln", "mv"])
def test_an_identity_that_cannot_be_stored_is_an_error(fake_host: FakeHost, program: str) -> None:
    fake_host.nvme_identity.files = {"hostnqn": "\n"} if program == "mv" else {}
    before = dict(fake_host.nvme_identity.files)
    fake_host.faults.fail(program, code=1, times=99, err="Read-only file system")
    volume = fake_host.nvme_subsystem().namespace()
    one = fake_host.connector("NVMEOF", foreign=True)
    with pytest.raises(processutils.ProcessExecutionError, match="Read-only"):
        one.connect_volume(volume.properties)
    assert fake_host.nvme_identity.files == before


# -- a consistent pair ---------------------------------------------------------------------
@pytest.mark.parametrize("foreign", [False, True])
def test_a_missing_id_agrees_with_the_nqn(fake_host: FakeHost, foreign: bool) -> None:
    """Not with the machine's UUID where the NQN has another."""
    fake_host.nvme_identity.files = {"hostnqn": f"{PREFIX}{OTHER.upper()}\n"}
    fake_host.coreutils.files["/sys/class/dmi/id/product_uuid"] = MACHINE
    assert properties(fake_host, foreign=foreign)["nvme_hostid"] == OTHER
    assert fake_host.nvme_identity.host_id == OTHER


def test_a_missing_id_is_the_one_in_use(fake_host: FakeHost) -> None:
    fake_host.nvme_identity.files = {"hostnqn": "nqn.mine\n"}
    subsystem = fake_host.nvme_subsystem()
    fake_host.nvme.add(subsystem, 0, "nqn.mine", OTHER)
    assert properties(fake_host)["nvme_hostid"] == OTHER


@pytest.mark.parametrize("content", ["", "\n"])
@pytest.mark.parametrize("foreign", [False, True])
def test_an_empty_file_counts_as_missing(fake_host: FakeHost, content: str, foreign: bool) -> None:
    fake_host.nvme_identity.files = {"hostnqn": content, "hostid": content}
    fake_host.coreutils.files["/sys/class/dmi/id/product_uuid"] = MACHINE
    found = properties(fake_host, foreign=foreign)
    assert found["nqn"] == PREFIX + MACHINE
    assert found["nvme_hostid"] == MACHINE
    assert set(fake_host.nvme_identity.files) == {"hostnqn", "hostid"}


@pytest.mark.parametrize("version", [(1, 9), (1, 12), (2, 3)])
@pytest.mark.parametrize("foreign", [False, True])
def test_without_a_machines_uuid_nvme_cli_makes_the_nqn(
    fake_host: FakeHost, version: tuple[int, int], foreign: bool
) -> None:
    fake_host.nvme_identity.files.clear()
    fake_host.nvme_identity.system_uuid = ""
    fake_host.nvme_cli.version = version
    found = properties(fake_host, foreign=foreign)
    assert found["nqn"] == PREFIX + found["nvme_hostid"]
    assert properties(fake_host, foreign=foreign) == found


def test_presented_pairs(fake_host: FakeHost) -> None:
    sysfs = fake_host.host.sysfs
    own = HostIdentity(PREFIX + MACHINE, MACHINE)
    assert nvme_identity.presented(sysfs, own, None) == ()
    assert nvme_identity.presented(sysfs, own, own.nqn) == ("-q", own.nqn)
    nqn = PREFIX + OTHER
    assert nvme_identity.presented(sysfs, own, nqn) == ("-q", nqn, "-I", OTHER)
    # The UUID of that NQN is the host id of this host's own: another one has to do.
    custom = HostIdentity("nqn.custom", OTHER)
    (_q, _nqn, _i, made) = nvme_identity.presented(sysfs, custom, nqn)
    assert made != OTHER
    subsystem = fake_host.nvme_subsystem()
    fake_host.nvme.add(subsystem, 0, nqn, "in-use")
    assert nvme_identity.presented(sysfs, own, nqn)[-1] == "in-use"


# -- the machine ---------------------------------------------------------------------------
def test_stored_identity(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "HOST_NQN_FILE", str(tmp_path / "hostnqn"))
    monkeypatch.setattr(utils, "HOST_ID_FILE", str(tmp_path / "hostid"))
    call = Call("test", FakeClock(), 10)
    door = PrivilegedNvme()
    assert door.read_identity(call) == HostIdentity(None, None)
    (tmp_path / "hostnqn").write_text("nqn.a\n")
    (tmp_path / "hostid").write_text("")
    assert door.read_identity(call) == HostIdentity("nqn.a", None)


class FakeClock:
    def now(self) -> float:
        return 0.0

    def wait(self, seconds: float, event: object = None) -> None:
        """Nothing here waits."""


def test_properties_of_a_host_with_its_own_execute(fake_host: FakeHost) -> None:
    fake_host.coreutils.files["/sys/class/dmi/id/product_uuid"] = MACHINE
    found = NVMeOFConnector.get_connector_properties(None, execute=fake_host.execute)
    assert found["nqn"] == PREFIX + MACHINE
    assert found["system uuid"] == MACHINE
