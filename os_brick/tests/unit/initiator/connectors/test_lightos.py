# SPDX-License-Identifier: Apache-2.0
"""LightOS on a fake host, with its discovery client as a reader of real files."""

from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_concurrency import processutils
from oslo_config import cfg

from os_brick import exception, privileged
from os_brick.initiator import connector as front_door
from os_brick.initiator.connectors import lightos
from os_brick.initiator.vendors import lightos_client
from os_brick.initiator.vendors.lightos_volume import LightOSVolume
from os_brick.testing import FakeHost
from os_brick.testing.nvme_storage import NvmeVolume
from os_brick.tests.unit.initiator.vendors import servers
from os_brick.tests.unit.initiator.vendors.clock import Clock
from os_brick.tests.unit.initiator.vendors.servers import Answering, Asked, Said

NQN = "nqn.2016-01.com.lightbitslabs:uuid:11111111-2222-3333-4444-555555555555"


class Daemon:
    """The discovery client: connects what files in its directory name."""

    def __init__(self, host: FakeHost, directory: pathlib.Path) -> None:
        self.host, self.directory = host, directory
        self.subsystem = host.nvme_subsystem(portals=2, nqn=NQN)
        self.running = True
        self.told: dict[str, str] = {}
        host.after(0.5, self._look)

    def _look(self) -> None:
        self.host.after(0.5, self._look)
        for path in self.directory.iterdir():
            if not self.running or path.name in self.told:
                continue
            assert path.suffix == ".conf", "the client would read it as it is being made"
            self.told[path.name] = path.read_text()
            identity = self.host.nvme_identity
            for index in range(len(self.subsystem.portals)):
                self.host.nvme.add(self.subsystem, index, identity.nqn, identity.host_id)


@pytest.fixture(autouse=True)
def in_process() -> Iterator[Any]:
    privileged.default.set_client_mode(False)
    yield
    privileged.default.set_client_mode(True)


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    path = tmp_path / "discovery-client/discovery.d"
    path.mkdir(parents=True)
    cfg.CONF.set_override("lightos_discovery_client_dir_path", str(path), group="os_brick")
    yield path
    cfg.CONF.clear_override("lightos_discovery_client_dir_path", group="os_brick")


@pytest.fixture
def daemon(fake_host: FakeHost, directory: pathlib.Path) -> Daemon:
    return Daemon(fake_host, directory)


@pytest.fixture
def volume(daemon: Daemon) -> NvmeVolume:
    return daemon.subsystem.namespace()


@pytest.fixture
def properties(volume: NvmeVolume) -> dict[str, Any]:
    node = {"transport_type": "tcp", "target_portal": "10.0.1.1", "target_port": 8009}
    return {
        "uuid": volume.unit.uuid,
        "subsysnqn": NQN,
        "lightos_nodes": {
            "10.0.1.1": node,
            "fd00::2": {**node, "target_portal": "fd00::2"},
        },
    }


@pytest.fixture
def connector(fake_host: FakeHost, daemon: Daemon) -> Any:
    return fake_host.connector("LIGHTOS")


def files(directory: pathlib.Path) -> list[str]:
    return [
        str(path.relative_to(directory.parent))
        for path in directory.parent.rglob("*")
        if path.is_file()
    ]


# -- attach (LO-02, LO-03) -------------------------------------------------------------------
def test_the_client_is_told_and_the_device_comes(
    fake_host: FakeHost,
    daemon: Daemon,
    connector: Any,
    properties: dict[str, Any],
    directory: pathlib.Path,
) -> None:
    before = {**properties}

    info = connector.connect_volume(properties)

    assert info["type"] == "block"
    assert info["path"] == "/dev/nvme2n1"
    path = directory / f"{properties['uuid']}.conf"
    host_nqn = fake_host.nvme_identity.nqn
    first, *nodes = path.read_text().splitlines()
    assert first.startswith("#")
    assert properties["uuid"] in first
    assert nodes == [
        f"-t tcp -a 10.0.1.1 -s 8009 -q {host_nqn} -n {NQN}",
        f"-t tcp -a fd00::2 -s 8009 -q {host_nqn} -n {NQN}",
    ]
    assert path.stat().st_mode & 0o777 == 0o644
    assert files(directory) == [f"discovery.d/{path.name}"]
    assert properties == before


def test_nodes_may_be_a_list(connector: Any, daemon: Daemon, properties: dict[str, Any]) -> None:
    nodes = list(properties["lightos_nodes"].values())

    connector.connect_volume({**properties, "lightos_nodes": nodes})

    assert "-a 10.0.1.1 -s 8009" in next(iter(daemon.told.values()))


def test_a_file_that_is_there_stays(
    connector: Any, properties: dict[str, Any], directory: pathlib.Path
) -> None:
    path = directory / f"{properties['uuid']}.conf"
    path.write_text("# by hand\n")

    connector.connect_volume(properties)
    connector.connect_volume(properties)

    assert path.read_text() == "# by hand\n"


def test_the_device_comes_late(
    fake_host: FakeHost, daemon: Daemon, connector: Any, properties: dict[str, Any]
) -> None:
    daemon.running = False
    fake_host.at(50.0, lambda: setattr(daemon, "running", True))

    assert connector.connect_volume(properties)["path"] == "/dev/nvme2n1"


def test_the_device_never_comes(
    fake_host: FakeHost,
    daemon: Daemon,
    connector: Any,
    properties: dict[str, Any],
    directory: pathlib.Path,
) -> None:
    daemon.running = False

    with pytest.raises(
        exception.BrickException, match=f"Device with uuid {properties['uuid']} did not show up"
    ):
        connector.connect_volume(properties)
    assert files(directory) == []
    assert fake_host.now < 70


def test_a_file_of_others_stays_when_the_device_does_not_come(
    daemon: Daemon, connector: Any, properties: dict[str, Any], directory: pathlib.Path
) -> None:
    daemon.running = False
    path = directory / f"{properties['uuid']}.conf"
    path.write_text("#\n")

    with pytest.raises(exception.VolumeDeviceNotFound):
        connector.connect_volume(properties)
    assert path.exists()


def test_a_path_that_takes_no_io_is_not_handed_out(
    daemon: Daemon, connector: Any, properties: dict[str, Any], volume: NvmeVolume
) -> None:
    for index in range(2):
        daemon.subsystem.set_ana(index, volume.nsid, "inaccessible")

    with pytest.raises(exception.VolumeDeviceNotFound):
        connector.connect_volume(properties)


def test_a_namespace_of_another_subsystem_does_not_count(
    fake_host: FakeHost, daemon: Daemon, connector: Any, properties: dict[str, Any]
) -> None:
    other = fake_host.nvme_subsystem(connected=True)
    other.namespace(uuid=properties["uuid"])
    daemon.running = False

    with pytest.raises(exception.VolumeDeviceNotFound):
        connector.connect_volume(properties)


def test_a_namespace_that_was_the_volumes_before_is_looked_for_again(
    fake_host: FakeHost,
    daemon: Daemon,
    connector: Any,
    properties: dict[str, Any],
    volume: NvmeVolume,
    caplog: pytest.LogCaptureFixture,
) -> None:
    connector.connect_volume(properties)
    other = daemon.subsystem.namespace(mapped=False)
    daemon.subsystem.sends_events = False
    daemon.subsystem.namespaces = {volume.nsid: other.unit, 9: volume.unit}

    info = connector.connect_volume(properties)

    assert "was another namespace before" in caplog.text
    device = fake_host.device(info["path"])
    assert device.storage()[1] is volume.unit


def test_a_cluster_that_cannot_tell_who_a_namespace_is(
    daemon: Daemon, connector: Any, properties: dict[str, Any]
) -> None:
    daemon.subsystem.describes = False

    assert connector.connect_volume(properties)["path"]


def test_a_cluster_that_cannot_be_asked_has_not_confirmed(
    fake_host: FakeHost, connector: Any, properties: dict[str, Any], directory: pathlib.Path
) -> None:
    fake_host.faults.failing_writes["identify"] = errno.EIO

    with pytest.raises(exception.VolumeDeviceNotFound, match="could not be asked"):
        connector.connect_volume(properties)
    assert files(directory) == []


def test_a_cluster_that_cannot_be_asked_for_a_moment(
    fake_host: FakeHost, connector: Any, properties: dict[str, Any]
) -> None:
    fake_host.faults.failing_writes["identify"] = errno.EIO
    fake_host.after(12, fake_host.faults.mend)

    assert connector.connect_volume(properties)["path"]
    assert fake_host.now < 20


def test_a_detach_from_a_cluster_that_cannot_be_asked(
    fake_host: FakeHost, connector: Any, properties: dict[str, Any]
) -> None:
    info = connector.connect_volume(properties)
    fake_host.faults.failing_writes["identify"] = errno.EIO

    connector.disconnect_volume(properties, info)


def test_without_the_client_on_this_host(
    connector: Any, properties: dict[str, Any], directory: pathlib.Path
) -> None:
    directory.rmdir()

    with pytest.raises(exception.BrickException, match="is LightOS's discovery client installed"):
        connector.connect_volume(properties)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("uuid", None),
        ("uuid", "../../etc/passwd"),
        ("uuid", "00000000-0000-0000-0000-000000000000"),
        ("subsysnqn", None),
        ("subsysnqn", "nqn with blank"),
        ("lightos_nodes", None),
        ("lightos_nodes", {}),
        ("lightos_nodes", "10.0.0.1"),
        ("lightos_nodes", ["10.0.0.1"]),
        ("lightos_nodes", [{"target_portal": "a\nb", "target_port": 1, "transport_type": "tcp"}]),
        ("lightos_nodes", [{"target_portal": "a", "target_port": 0, "transport_type": "tcp"}]),
        ("lightos_nodes", [{"target_portal": "a", "target_port": 1}]),
    ],
)
def test_properties_that_cannot_be_used_are_refused_by_key(
    connector: Any,
    properties: dict[str, Any],
    directory: pathlib.Path,
    key: str,
    value: Any,
) -> None:
    with pytest.raises(exception.InvalidParameterValue, match=key):
        connector.connect_volume({**properties, key: value})
    assert files(directory) == []


# -- detach (LO-04) --------------------------------------------------------------------------
def test_a_detach_writes_out_and_the_client_forgets(
    fake_host: FakeHost,
    connector: Any,
    properties: dict[str, Any],
    volume: NvmeVolume,
    directory: pathlib.Path,
) -> None:
    info = connector.connect_volume(properties)
    fake_host.write(info["path"], b"data")

    connector.disconnect_volume(properties, info)

    assert volume.data == b"data"
    assert files(directory) == []


def test_a_detach_of_what_is_not_here_takes_no_time(
    fake_host: FakeHost, connector: Any, properties: dict[str, Any], directory: pathlib.Path
) -> None:
    (directory / f"{properties['uuid']}.conf").write_text("#\n")
    connector.disconnect_volume(properties, None)
    connector.disconnect_volume(properties, {}, force=True)

    assert fake_host.now < 1
    assert files(directory) == []


@pytest.mark.parametrize(
    ("force", "ignore_errors", "raised"),
    [
        (False, False, processutils.ProcessExecutionError),
        (False, True, processutils.ProcessExecutionError),
        (True, False, exception.ExceptionChainer),
        (True, True, None),
    ],
)
def test_a_write_out_that_fails(
    fake_host: FakeHost,
    daemon: Daemon,
    connector: Any,
    properties: dict[str, Any],
    directory: pathlib.Path,
    force: bool,
    ignore_errors: bool,
    raised: type[Exception] | None,
) -> None:
    info = connector.connect_volume(properties)
    fake_host.write(info["path"], b"data")
    fake_host.faults.fail("sync", times=9)

    if raised is None:
        connector.disconnect_volume(properties, info, force, ignore_errors)
    else:
        with pytest.raises(raised) as caught:
            connector.disconnect_volume(properties, info, force, ignore_errors)
        assert str(caught.value)
    assert bool(files(directory)) is not force


def test_a_volume_in_use_is_refused(
    fake_host: FakeHost, connector: Any, properties: dict[str, Any], directory: pathlib.Path
) -> None:
    info = connector.connect_volume(properties)
    fake_host.mount(info["path"], "/mnt")

    with pytest.raises(exception.DeviceInUse, match="mounted at /mnt"):
        connector.disconnect_volume(properties, info)
    assert files(directory)


def test_data_is_not_written_to_another_volume_that_was_given_the_number(
    fake_host: FakeHost,
    daemon: Daemon,
    connector: Any,
    properties: dict[str, Any],
    volume: NvmeVolume,
) -> None:
    info = connector.connect_volume(properties)
    fake_host.write(info["path"], b"data")
    daemon.subsystem.sends_events = False
    other = daemon.subsystem.namespace(mapped=False)
    daemon.subsystem.namespaces[volume.nsid] = other.unit

    with pytest.raises(exception.WrongVolume):
        connector.disconnect_volume(properties, info)
    assert other.data == b""


def test_a_file_that_cannot_be_removed(
    connector: Any, properties: dict[str, Any], directory: pathlib.Path
) -> None:
    messages: queue.Queue[Any] = queue.Queue()
    connector.message_queue = messages
    connector.connect_volume(properties)
    path = directory / f"{properties['uuid']}.conf"
    path.unlink()
    path.mkdir()

    with pytest.raises(OSError, match=r"\.conf"):
        connector.disconnect_volume(properties, None)
    assert [messages.get()[0] for _ in range(messages.qsize())] == ["add", "delete", "add"]


# -- size and paths (LO-05) ------------------------------------------------------------------
def test_extend_tells_the_size_that_the_cluster_has(
    connector: Any, daemon: Daemon, properties: dict[str, Any], volume: NvmeVolume
) -> None:
    connector.connect_volume(properties)
    daemon.subsystem.sends_events = False
    volume.unit.size = 7 * 1024**3

    assert connector.extend_volume(properties) == 7 * 1024**3


def test_extend_of_what_is_not_here(connector: Any, properties: dict[str, Any]) -> None:
    assert connector.extend_volume(properties) is None


def test_paths(connector: Any, properties: dict[str, Any]) -> None:
    assert connector.get_volume_paths(properties) == []
    info = connector.connect_volume(properties)

    assert connector.get_volume_paths(properties) == [info["path"]]
    assert connector.get_volume_paths({**properties, "device_path": "/dev/x"}) == ["/dev/x"]
    assert connector.get_search_path() == "/dev"


def test_an_encrypted_volume_gets_a_link_of_ours(
    fake_host: FakeHost, connector: Any, properties: dict[str, Any], directory: pathlib.Path
) -> None:
    properties = {**properties, "encrypted": True}
    info = connector.connect_volume(properties)
    assert info["path"] == "/dev/disk/by-id/os-brick+dev+nvme2n1"

    connector.disconnect_volume({**properties, "device_path": info["path"]}, None)
    assert files(directory) == []


def test_a_late_detach_leaves_the_link_of_the_next_volume(
    fake_host: FakeHost, connector: Any, volume: NvmeVolume, properties: dict[str, Any]
) -> None:
    volume.subsystem.namespace()  # keeps the subsystem connected
    properties = {**properties, "encrypted": True}
    info = connector.connect_volume(properties)
    connector.disconnect_volume(properties, info)
    volume.vanish()
    fake_host.pass_time(1)
    other = volume.remap()
    fake_host.pass_time(1)
    others = {**properties, "uuid": other.unit.uuid}
    assert connector.connect_volume(others) == info
    link = info["path"].removeprefix("/dev/")
    connector.disconnect_volume(properties, info)  # once more
    assert fake_host.host.dev.link_target(link)
    connector.disconnect_volume(others, info)
    assert fake_host.host.dev.link_target(link) is None


# -- this host (LO-01) -----------------------------------------------------------------------
class Metrics(Answering):
    """The discovery client's own port."""

    status = 200

    def answer(self, asked: Asked) -> Said:
        assert (asked.method, asked.path) == ("HEAD", "/metrics")
        return Said(self.status)


@pytest.fixture
def port() -> Iterator[Any]:
    def listen_at(number: int) -> None:
        cfg.CONF.set_override("lightos_discovery_client_port", number, group="os_brick")
        cfg.CONF.set_override("lightos_discovery_client_address", "127.0.0.1", group="os_brick")

    yield listen_at
    for name in ("port", "address"):
        cfg.CONF.clear_override(f"lightos_discovery_client_{name}", group="os_brick")


def test_what_storage_is_told_of_this_host(fake_host: FakeHost, connector: Any, port: Any) -> None:
    with Metrics() as server:
        port(server.port)
        found = connector.read_host_properties()
        server.status = 500
        without = connector.read_host_properties()

    assert found["nqn"] == fake_host.nvme_identity.nqn
    assert (found["found_dsc"], without["found_dsc"]) == ("found", "")
    assert "127.0.0.1" not in found["host_ips"]
    assert not any("%" in one or one == "::1" for one in found["host_ips"])


def test_a_client_that_never_answers_is_not_waited_for() -> None:
    with servers.silent() as number:
        assert not lightos_client.answers("127.0.0.1", number, 0.05)


def test_a_host_without_nvme_is_left_as_it_is(
    fake_host: FakeHost, connector: Any, directory: pathlib.Path, port: Any
) -> None:
    directory.rmdir()
    fake_host.nvme_identity.files.clear()
    fake_host.faults.fail("nvme", "version", code=127)

    assert connector.read_host_properties() == {}
    assert fake_host.nvme_identity.files == {}


def test_a_host_that_nvme_makes_a_name_for_tells_it_at_once(
    fake_host: FakeHost, connector: Any, directory: pathlib.Path, port: Any
) -> None:
    """NVMe's connector is asked at the same time, and either may be first."""
    directory.rmdir()
    fake_host.nvme_identity.files.clear()
    port(servers.closed_port())

    found = connector.read_host_properties()

    assert found["nqn"] == fake_host.nvme_identity.nqn != ""
    assert found["found_dsc"] == ""


def test_a_host_with_the_client_gets_its_name(
    fake_host: FakeHost, connector: Any, port: Any
) -> None:
    fake_host.nvme_identity.files.clear()
    port(servers.closed_port())

    found = connector.read_host_properties()

    assert found["nqn"] == fake_host.nvme_identity.nqn != ""
    assert found["found_dsc"] == ""


def test_names_and_options_that_services_use() -> None:
    assert front_door.LightOSConnector is lightos.LightOSConnector
    ((group, options),) = lightos.list_opts()
    assert group == "os_brick"
    assert {option.name: option.default for option in options} == {
        "lightos_discovery_client_address": "localhost",
        "lightos_discovery_client_port": 6060,
        "lightos_discovery_client_dir_path": "/etc/discovery-client/discovery.d/",
    }
    assert lightos.nvmec_match.match("nvme0c0n1")
    assert not lightos.nvmec_match.match("nvme0n1")
    made = front_door.InitiatorConnector.factory("lightos", root_helper=None, message_queue=None)
    assert (made.device_scan_attempts, made.WAIT_DEVICE_TIMEOUT) == (3, 60)


# -- the monitor (LO-06) ---------------------------------------------------------------------
class Stopped(Exception):
    """The monitor has run long enough."""


class ShortClock(Clock):
    """Stops who waits for the fourth time."""

    def wait(self, seconds: float, event: threading.Event | None = None) -> None:
        super().wait(seconds, event)
        if len(self.pauses) == 4:
            raise Stopped


def test_the_monitor_restores_what_is_known(
    fake_host: FakeHost,
    connector: Any,
    properties: dict[str, Any],
    directory: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ShortClock()
    made = lightos.LightOSConnector(None, host=dataclasses.replace(fake_host.host, clock=clock))
    messages: queue.Queue[Any] = queue.Queue()
    other = {**properties, "uuid": "c9f1b0de-1111-2222-3333-444455556666"}
    bad = {**properties, "uuid": "no uuid"}
    known = {"no uuid": bad, properties["uuid"]: properties}
    for message in (("add", other), ("delete", bad), ("delete", bad)):
        messages.put(message)

    with pytest.raises(Stopped):
        made.lightos_monitor(known, messages)

    assert clock.pauses == [5, 1, 1, 1]
    assert sorted(known) == sorted([properties["uuid"], other["uuid"]])
    assert sorted(files(directory)) == sorted(
        f"discovery.d/{one['uuid']}.conf" for one in (properties, other)
    )
    assert "is not connected" in caplog.text
    assert "is not known" in caplog.text


def test_the_monitor_does_not_restore_what_has_just_been_detached(
    fake_host: FakeHost, daemon: Daemon, properties: dict[str, Any], directory: pathlib.Path
) -> None:
    messages: queue.Queue[Any] = queue.Queue()
    service = fake_host.connector("LIGHTOS", message_queue=messages)
    info = service.connect_volume(properties)

    class DetachInBetween(Clock):
        """The volume is detached in the monitor's second pause."""

        def wait(self, seconds: float, event: threading.Event | None = None) -> None:
            super().wait(seconds, event)
            if len(self.pauses) == 2:
                service.disconnect_volume(properties, info)
                assert files(directory) == []
            if len(self.pauses) == 5:
                raise Stopped

    host = dataclasses.replace(fake_host.host, clock=DetachInBetween())
    known: dict[str, Any] = {}
    with pytest.raises(Stopped):
        lightos.LightOSConnector(None, host=host).lightos_monitor(known, messages)
    assert known == {}
    assert files(directory) == []


def test_the_queue_hears_of_attach_and_detach(
    fake_host: FakeHost, daemon: Daemon, properties: dict[str, Any]
) -> None:
    messages: queue.Queue[Any] = queue.Queue()
    connector = fake_host.connector("LIGHTOS", message_queue=messages)
    daemon.running = False
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector.connect_volume(properties)
    assert messages.empty()

    daemon.running = True
    info = connector.connect_volume(properties)
    connector.disconnect_volume(properties, info)

    assert [messages.get_nowait() for _ in range(2)] == [
        ("add", properties),
        ("delete", properties),
    ]


# -- by programs -----------------------------------------------------------------------------
def run_here(*words: str, **keywords: Any) -> tuple[str, str]:
    """An execute function as a service supplies it, for files that need no root."""
    for name in ("run_as_root", "root_helper"):
        keywords.pop(name, None)
    out, err = processutils.execute(*words, **keywords)
    return out, err


def test_with_an_execute_function_of_the_services_own_files_are_made_by_programs(
    directory: pathlib.Path, properties: dict[str, Any]
) -> None:
    from os_brick.initiator.linux.call import Call, SystemClock
    from os_brick.initiator.linux.host import Host
    from os_brick.initiator.vendors.lightos_client import Files

    call = Call("test", SystemClock(), 60)
    host = Host.of_execute(run_here, None, foreign=True)
    made = Files(host, str(directory), foreign=True)
    text = LightOSVolume.parse(properties).text("nqn.2014-08.org.example:host")

    made.write(call, properties["uuid"], text)
    path = directory / f"{properties['uuid']}.conf"
    assert path.read_text() == text
    assert path.stat().st_mode & 0o777 == 0o644
    assert files(directory) == [f"discovery.d/{path.name}"]
    made.delete(call, properties["uuid"])
    made.delete(call, properties["uuid"])
    assert files(directory) == []

    path.mkdir()
    (path / "x").touch()
    with pytest.raises(processutils.ProcessExecutionError):
        made.write(call, properties["uuid"], text)
    assert os.listdir(directory.parent) == ["discovery.d"]
