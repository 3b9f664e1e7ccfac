# SPDX-License-Identifier: Apache-2.0
"""VMDK with a vCenter server behind real TLS, through oslo.vmware's own SOAP client."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from oslo_config import cfg

from os_brick import exception
from os_brick.initiator import connector as front_door
from os_brick.initiator.vendors.vmdk_volume import DatastorePath, VmdkVolume
from os_brick.tests.unit.initiator.vendors import servers, vcenter
from os_brick.tests.unit.initiator.vendors.clock import Clock
from os_brick.tests.unit.initiator.vendors.servers import Said
from os_brick.tests.unit.initiator.vendors.vcenter import DISK, PASSWORD, Fault, Vcenter

pytest.importorskip("oslo_vmware")

from os_brick.initiator.connectors.vmware import VmdkConnector

NEW = b"KDMV restored"
OLD_FILES = {DISK: b"FLAT:KDMV old"}


@pytest.fixture(scope="module")
def running() -> Iterator[Vcenter]:
    with Vcenter() as one:
        yield one


@pytest.fixture
def server(running: Vcenter) -> Iterator[Vcenter]:
    running.reset()
    yield running
    assert running.sessions == 0, "a session was left"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connector(clock: Clock) -> VmdkConnector:
    return VmdkConnector(None, clock=clock, use_multipath=False, driver=None)


@pytest.fixture
def properties(server: Vcenter, tmp_path: pathlib.Path) -> dict[str, Any]:
    return vcenter.properties(server, str(tmp_path / "new/tmp"))


def write(info: dict[str, Any], data: bytes = NEW) -> None:
    pathlib.Path(info["path"]).write_bytes(data)


def changed(properties: dict[str, Any]) -> dict[str, Any]:
    """Return what an attach gives, with the file written to since."""
    folder = pathlib.Path(properties["config"]["vmware_tmp_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    info = {"path": str(folder / "c9f1b0de-1111x.vmdk"), "last_modified": 1.0}
    write(info)
    return info


# -- attach ----------------------------------------------------------------------------------
def test_the_disk_comes_as_a_file(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any]
) -> None:
    server.lease_looks = 3
    before = {**properties, "config": {**properties["config"]}}

    info = connector.connect_volume(properties)

    path = pathlib.Path(info["path"])
    assert path.name.startswith("c9f1b0de-1111")
    assert path.suffix == ".vmdk"
    assert str(path.parent) == properties["config"]["vmware_tmp_dir"]
    assert path.read_bytes() == server.exported
    assert info == {"path": str(path), "last_modified": path.stat().st_mtime}
    assert list(server.leases.values()) == ["complete"]
    assert properties == before
    assert connector.check_valid_device(info["path"])


class Hurrying(Clock):
    """Forty seconds pass between two looks at it."""

    def now(self) -> float:
        self.pauses.append(40)
        return super().now()


def test_the_server_hears_now_and_then_that_the_export_goes_on(
    server: Vcenter, properties: dict[str, Any]
) -> None:
    server.exported = b"KDMV" + bytes(5 * 1024**2)
    properties["config"]["vmware_image_transfer_timeout_secs"] = 1e6

    VmdkConnector(None, clock=Hurrying()).connect_volume(properties)

    assert "HttpNfcLeaseProgress" in server.methods
    assert list(server.leases.values()) == ["complete"]


def test_nothing_is_left_of_an_attach_that_fails(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any]
) -> None:
    folder = properties["config"]["vmware_tmp_dir"]
    for said in (
        Said(404),
        Said(200, b"<html>not a disk</html>"),
        Said(200, b""),
        Said(200, b"KDMV", {"Content-Length": "4096", "Connection": "close"}),
        Said(drop=True),
    ):
        server.instead["GET"] = said
        with pytest.raises(exception.BrickException, match="Download"):
            connector.connect_volume(properties)
        assert os.listdir(folder) == []
    assert set(server.leases.values()) == {"aborted"}


def test_a_lease_that_fails(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any]
) -> None:
    def fail(method: str) -> None:
        server.leases = dict.fromkeys(server.leases, "error")

    server.before = fail

    with pytest.raises(exception.BrickException, match="no host can do it"):
        connector.connect_volume(properties)


def test_a_lease_that_is_never_ready(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any], clock: Clock
) -> None:
    server.lease_looks = 10**9

    properties["config"]["vmware_task_poll_interval"] = 100
    with pytest.raises(exception.DeadlineExceeded):
        connector.connect_volume(properties)
    assert clock.now() <= 660
    assert set(server.leases.values()) == {"aborted"}


def test_a_log_in_that_is_refused(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any]
) -> None:
    properties["config"]["vmware_host_password"] = "wr0ng"

    with pytest.raises(exception.BrickException, match="Login failed") as caught:
        connector.connect_volume(properties)
    assert "wr0ng" not in str(caught.value)
    assert server.methods.count("Login") == 1


# -- who the servers are ---------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_vcenter_has_to_prove_who_it_is(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any]
) -> None:
    properties["config"].update(vmware_ca_file=None, vmware_api_retry_count=0)

    with pytest.raises(exception.BrickException, match=r"(?i)certificate"):
        connector.connect_volume(properties)
    assert server.asked == []

    server.thumbprint = ""
    properties["config"]["vmware_insecure"] = True
    assert connector.connect_volume(properties)["path"]


@pytest.mark.parametrize(
    "url", ["https://*:443/nfc/{lease}/d", "https://127.0.0.1:{port}/nfc/{lease}/d"]
)
def test_the_host_of_the_disk_has_to_prove_who_it_is(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any], url: str
) -> None:
    server.url = url
    connector.connect_volume(properties)

    server.thumbprint = server.thumbprint.replace(server.thumbprint[:2], "00")
    with pytest.raises(exception.BrickException, match="has not the thumbprint"):
        connector.connect_volume(properties)
    assert not any("/nfc/" in asked.path for asked in server.asked[-6:])


def test_without_a_thumbprint_the_certificate_itself_is_checked(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any]
) -> None:
    server.thumbprint = ""

    connector.connect_volume(properties)
    server.url = "https://localhost:{port}/nfc/{lease}/d"
    with pytest.raises(exception.BrickException, match="CERTIFICATE_VERIFY_FAILED"):
        connector.connect_volume(properties)


def test_a_server_that_never_answers(properties: dict[str, Any]) -> None:
    connector = VmdkConnector(None)
    cfg.CONF.set_override("call_timeout", 1, group="os_brick")
    try:
        with servers.silent() as port:
            properties["config"].update(
                vmware_host_port=port,
                vmware_image_transfer_timeout_secs=0,
                vmware_api_retry_count=0,
            )
            with pytest.raises(exception.BrickException, match="did not answer within"):
                connector.connect_volume(properties)
    finally:
        cfg.CONF.clear_override("call_timeout", group="os_brick")


def test_a_server_that_is_not_there_is_tried_as_often_as_configured(
    connector: VmdkConnector, properties: dict[str, Any], clock: Clock
) -> None:
    properties["config"]["vmware_host_port"] = servers.closed_port()

    with pytest.raises(exception.BrickException, match="connect failed"):
        connector.connect_volume(properties)
    assert clock.pauses == [1, 2]


# -- detach ----------------------------------------------------------------------------------
def test_an_unchanged_file_is_deleted_and_nobody_is_asked(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any]
) -> None:
    info = connector.connect_volume(properties)
    server.asked.clear()

    connector.disconnect_volume(properties, info)

    assert not os.path.exists(info["path"])
    assert server.asked == []


def test_a_changed_file_takes_the_disks_place(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any]
) -> None:
    info = connector.connect_volume(properties)
    write(info)

    connector.disconnect_volume(properties, info)

    assert server.files == {DISK: b"FLAT:" + NEW}
    (disk,) = server.vm.disks
    assert (disk.file, disk.uuid, disk.capacity) == (DISK, "6000C29a-new", len(NEW) + 5)
    assert not os.path.exists(info["path"])
    assert server.folders == {"cinder_temp"}


@pytest.mark.parametrize("seconds", [0.0, 1.0, 2.0])
def test_any_write_shows_however_coarse_the_times_are(
    connector: VmdkConnector, properties: dict[str, Any], seconds: float
) -> None:
    info = connector.connect_volume(properties)
    before = os.path.getmtime(info["path"])
    write(info)
    now = os.path.getmtime(info["path"])

    # As a file system would show it that counts in steps.
    assert (now // seconds * seconds if seconds else now) > before
    assert now > before + 2


@pytest.mark.parametrize("info", [None, {}])
def test_what_is_not_known_to_be_unchanged_is_uploaded(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any], info: Any
) -> None:
    path = connector.connect_volume(properties)["path"]

    connector.disconnect_volume({**properties, "device_path": path}, info)

    assert server.files == {DISK: b"FLAT:" + server.exported}


@pytest.mark.parametrize("info", [None, {"path": "/nowhere.vmdk", "last_modified": 1.0}])
def test_a_file_that_is_not_there(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any], info: Any
) -> None:
    with pytest.raises(exception.NotFound, match=r"Vmdk: .* not found\."):
        connector.disconnect_volume(properties, info)
    with pytest.raises(exception.ExceptionChainer):
        connector.disconnect_volume(properties, info, force=True)
    connector.disconnect_volume(properties, info, force=True, ignore_errors=True)
    assert server.asked == []


def test_a_machine_with_snapshots_is_refused(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any]
) -> None:
    info = changed(properties)
    server.vm.snapshots = 1

    with pytest.raises(
        exception.BrickException,
        match="Backing of volume: c9f1b0de-1111 contains one or more snapshots; cannot disconnect",
    ):
        connector.disconnect_volume(properties, info)
    assert server.files == OLD_FILES
    assert os.path.exists(info["path"])


def test_a_machine_without_the_disk_is_refused(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any]
) -> None:
    info = changed(properties)
    server.vm.disks[0].file = "[ds 1] other/other.vmdk"

    with pytest.raises(exception.WrongVolume, match="has no such disk"):
        connector.disconnect_volume(properties, info)
    assert server.files == OLD_FILES


def nth(number: int, method: str, fault: str) -> Callable[[Vcenter], None]:
    """Have the n-th call of a method fail."""

    def arrange(server: Vcenter) -> None:
        seen = []

        def before(called: str) -> None:
            seen.append(called)
            if called == method and seen.count(method) == number:
                raise Fault(fault, f"{method} number {number}")

        server.before = before

    return arrange


@pytest.mark.parametrize(
    "arrange",
    [
        lambda server: server.instead.update(PUT=Said(507)),
        lambda server: server.instead.update(PUT=Said(drop=True)),
        lambda server: server.task_faults.update(
            CopyVirtualDisk_Task=Fault("NoDiskSpace", "no space")
        ),
        lambda server: server.faults.update(MakeDirectory=Fault("NoDiskSpace", "no space")),
        nth(1, "ReconfigVM_Task", "MethodFault"),
        nth(1, "MoveVirtualDisk_Task", "MethodFault"),
        nth(2, "MoveVirtualDisk_Task", "MethodFault"),
        nth(2, "ReconfigVM_Task", "MethodFault"),
    ],
)
def test_whatever_fails_both_the_file_and_the_old_disk_stay(
    server: Vcenter,
    connector: VmdkConnector,
    properties: dict[str, Any],
    arrange: Callable[[Vcenter], None],
) -> None:
    info = changed(properties)
    arrange(server)

    with pytest.raises(exception.BrickException):
        connector.disconnect_volume(properties, info)
    assert server.files == OLD_FILES
    assert [disk.file for disk in server.vm.disks] == [DISK]
    assert pathlib.Path(info["path"]).read_bytes() == NEW


def test_a_detach_that_failed_can_be_called_again(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any]
) -> None:
    info = changed(properties)

    def before(method: str) -> None:
        if method == "MoveVirtualDisk_Task":
            raise Fault("MethodFault")

    server.before = before
    with pytest.raises(exception.BrickException):
        connector.disconnect_volume(properties, info)
    assert server.files == OLD_FILES

    server.before = lambda method: None
    connector.disconnect_volume(properties, info)
    assert server.files == {DISK: b"FLAT:" + NEW}


def test_with_force_the_file_goes_whatever_fails(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any]
) -> None:
    for ignore_errors in (False, True):
        info = changed(properties)
        server.vm.snapshots = 1
        if ignore_errors:
            connector.disconnect_volume(properties, info, force=True, ignore_errors=True)
        else:
            with pytest.raises(exception.ExceptionChainer, match="snapshots"):
                connector.disconnect_volume(properties, info, force=True)
        assert not os.path.exists(info["path"])
        assert server.files == OLD_FILES


def test_tidying_up_that_fails_does_not_undo_success(
    server: Vcenter,
    connector: VmdkConnector,
    properties: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    info = changed(properties)
    server.faults["DeleteDatastoreFile_Task"] = Fault("FileNotFound")
    server.task_faults["DeleteVirtualDisk_Task"] = Fault("FileNotFound")

    connector.disconnect_volume(properties, info)

    assert server.files[DISK] == b"FLAT:" + NEW
    assert caplog.text.count("Leftovers may remain") == 2


def test_the_folder_may_be_there_already(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any]
) -> None:
    server.folders.add("cinder_temp")
    info = changed(properties)

    connector.disconnect_volume(properties, info)

    assert server.files == {DISK: b"FLAT:" + NEW}


def test_a_session_that_has_ended_meanwhile_is_renewed(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any]
) -> None:
    info = changed(properties)

    def before(method: str) -> None:
        if method == "CopyVirtualDisk_Task" and server.methods.count(method) == 1:
            server.sessions -= 1
            raise Fault("NotAuthenticated")

    server.before = before
    connector.disconnect_volume(properties, info)

    assert server.files == {DISK: b"FLAT:" + NEW}


# -- secrets, properties, the rest -----------------------------------------------------------
def test_the_password_is_told_nowhere(
    server: Vcenter,
    connector: VmdkConnector,
    properties: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    connector.connect_volume(properties)
    server.faults["Login"] = Fault("InvalidLogin")
    with pytest.raises(exception.BrickException) as caught:
        connector.connect_volume(properties)

    told = caplog.text + repr(caught.value) + str(caught.value.timeline)
    for secret in (PASSWORD, PASSWORD.replace("<", "&lt;").replace(">", "&gt;"), "V3ry"):
        assert secret not in told


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("volume", None),
        ("volume_id", ""),
        ("volume_id", "../x"),
        ("vmdk_path", "vol/vol.vmdk"),
        ("vmdk_path", "[ds] /vol.vmdk"),
        ("vmdk_path", None),
        ("vmdk_size", 0),
        ("vmdk_size", "big"),
        ("datastore", 7),
        ("datacenter", None),
        ("config", None),
        ("vmware_host_ip", None),
        ("vmware_host_port", 70000),
        ("vmware_host_username", ""),
        ("vmware_host_password", None),
        ("vmware_api_retry_count", -1),
        ("vmware_task_poll_interval", "often"),
        ("vmware_ca_file", True),
        ("vmware_insecure", "no"),
        ("vmware_image_transfer_timeout_secs", float("inf")),
    ],
)
def test_properties_that_cannot_be_used_are_refused_by_key(
    server: Vcenter, connector: VmdkConnector, properties: dict[str, Any], key: str, value: Any
) -> None:
    where = properties["config"] if key.startswith("vmware_") else properties
    where[key] = value

    with pytest.raises(exception.InvalidParameterValue, match=key):
        connector.connect_volume(properties)
    assert server.asked == []


def test_defaults_of_the_settings(properties: dict[str, Any]) -> None:
    for key in list(properties["config"]):
        if key.removeprefix("vmware_host_") not in ("ip", "username", "password"):
            del properties["config"][key]

    vcenter = VmdkVolume.parse(properties).vcenter

    assert str(vcenter.server) == "https://127.0.0.1:443"
    assert vcenter.server.tls is not None
    assert vcenter.server.tls.verify
    assert PASSWORD not in repr(VmdkVolume.parse(properties))


def test_datastore_paths() -> None:
    path = DatastorePath.parse("[ds 1] a/b.vmdk")
    assert path is not None
    assert str(path) == "[ds 1] a/b.vmdk"
    assert str(path.beside("x")) == "[ds 1] a/b-x.vmdk"
    assert DatastorePath.parse("[ds 1]a/b.vmdk") == path


@pytest.mark.parametrize(
    ("content", "valid"), [(b"\xff\xfe\x00", True), (b"", False), (None, False)]
)
def test_files_that_can_be_read(
    connector: VmdkConnector, tmp_path: pathlib.Path, content: bytes | None, valid: bool
) -> None:
    path = tmp_path / "x.vmdk"
    if content is not None:
        path.write_bytes(content)

    assert connector.check_valid_device(str(path)) is valid
    assert connector.check_valid_device(str(path), True, run_as_root=False) is valid


def test_without_oslo_vmware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "oslo_vmware", None)

    with pytest.raises(
        exception.BrickException,
        match=r"Missing oslo_vmware python module, ensure oslo\.vmware library is installed",
    ):
        VmdkConnector(None)


def test_the_rest(connector: VmdkConnector) -> None:
    assert connector.get_volume_paths({}) == []
    assert connector.get_all_available_volumes() == []
    assert VmdkConnector.get_connector_properties(None) == {}
    assert connector.TMP_IMAGES_DATASTORE_FOLDER_PATH == "cinder_temp"
    assert isinstance(front_door.InitiatorConnector.factory("vmdk", None), VmdkConnector)
    with pytest.raises(NotImplementedError):
        connector.extend_volume({})


def test_no_vendor_is_loaded_before_somebody_uses_it() -> None:
    program = (
        "import sys\n"
        "from os_brick.initiator import connector\n"
        "early = [m for m in sys.modules if '.vendors' in m or '.connectors.' in m]\n"
        "for name in ('ScaleIO', 'StorPool', 'HuaweiStorHyper', 'Vmdk'):\n"
        "    getattr(connector, name + 'Connector')\n"
        "connector.VmdkConnector(None)\n"
        "heavy = [m for m in ('requests', 'suds', 'oslo_vmware.vim', 'eventlet')"
        " if m in sys.modules]\n"
        "print(early, heavy)\n"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout

    assert out == b"[] []\n"


def test_an_old_file_looks_older_than_now(
    connector: VmdkConnector, properties: dict[str, Any]
) -> None:
    assert connector.connect_volume(properties)["last_modified"] < time.time() - 5


def lost(number: int, method: str) -> Callable[[Vcenter], None]:
    """The n-th task of a method is carried out, and vCenter then does not tell how it ended."""

    def arrange(server: Vcenter) -> None:
        seen: list[str] = []
        asked: list[int] = []

        def before(called: str) -> None:
            at_last = seen.count(method) == number and seen[-1] == method and not asked
            if called == "RetrievePropertiesEx" and at_last:
                asked.append(1)
                raise Fault("ManagedObjectNotFound", "the task is gone")
            seen.append(called)

        server.before = before

    return arrange


@pytest.mark.parametrize(
    ("number", "method"),
    [(1, "ReconfigVM_Task"), (1, "MoveVirtualDisk_Task"), (2, "MoveVirtualDisk_Task")],
)
def test_what_was_done_though_its_answer_was_lost_is_undone(
    server: Vcenter,
    connector: Any,
    properties: dict[str, Any],
    number: int,
    method: str,
) -> None:
    info = changed(properties)
    lost(number, method)(server)
    with pytest.raises(exception.BrickException):
        connector.disconnect_volume(properties, info)
    server.before = lambda method: None
    assert [disk.file for disk in server.vm.disks] == [DISK]
    assert server.files == OLD_FILES
    assert pathlib.Path(info["path"]).read_bytes() == NEW
    connector.disconnect_volume(properties, info)
    assert server.files == {DISK: b"FLAT:" + NEW}
