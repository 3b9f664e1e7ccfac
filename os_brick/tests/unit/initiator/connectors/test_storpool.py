# SPDX-License-Identifier: Apache-2.0
"""StorPool on a fake host, with its API on a real socket."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_concurrency import processutils
from oslo_config import cfg

from os_brick import exception
from os_brick.initiator import connector as front_door
from os_brick.initiator import storpool_utils
from os_brick.initiator.connectors import storpool
from os_brick.initiator.linux.locking import Locks
from os_brick.testing import FakeHost
from os_brick.testing.vendor_disk import VendorDisk
from os_brick.tests.unit.initiator.vendors import servers
from os_brick.tests.unit.initiator.vendors.servers import Said
from os_brick.tests.unit.initiator.vendors.storpool import TOKEN, Cluster, Stored, data, error

ID = "c9f1b0de-1111-2222-3333-444455556666"
NAME = f"os--volume-{ID}"
GLOBAL = "abcd.b.efg"
PATH = f"/dev/storpool-byid/{GLOBAL}"
BY_NAME = f"/dev/storpool/{NAME}"
PROPERTIES = {"client_id": 1, "volume": ID, "access_mode": "rw"}


@pytest.fixture
def cluster(fake_host: FakeHost) -> Iterator[Cluster]:
    def appear(volume: Stored) -> None:
        if fake_host.devices.find("/dev/sp-0") is None:
            VendorDisk.appear(fake_host, "sp-0", [PATH, BY_NAME], size=volume.size)

    def vanish(volume: Stored) -> None:
        disk = fake_host.devices.find("/dev/sp-0")
        if isinstance(disk, VendorDisk):
            disk.vanish()

    with Cluster() as one:
        one.add(NAME, GLOBAL)
        one.when_attached, one.when_detached = appear, vanish
        yield one


@pytest.fixture
def conf(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    path = tmp_path / "storpool.conf"
    monkeypatch.setattr(storpool_utils, "CONF_FILE", path)
    monkeypatch.setattr(storpool_utils, "CONF_DIRECTORY", tmp_path / "none")
    for name in storpool_utils.ENV_OVERRIDE:
        monkeypatch.delenv(name, raising=False)
    return path


@pytest.fixture
def connector(fake_host: FakeHost, cluster: Cluster, conf: pathlib.Path) -> Any:
    conf.write_text(f"SP_API_HTTP_PORT={cluster.port}\nSP_AUTH_TOKEN={TOKEN}\nSP_OURID=7\n")
    return fake_host.connector("STORPOOL")


# -- construction ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "Could not initialize the StorPool API: .*storpool.conf is missing"),
        ("", "Could not initialize the StorPool API: SP_AUTH_TOKEN is not configured"),
        ("SP_AUTH_TOKEN=t\nSP_API_HTTP_PORT=x\n", "Could not initialize the StorPool API"),
        ("SP_AUTH_TOKEN=t\n", "SP_OURID.*is not configured"),
        ("SP_AUTH_TOKEN=t\nSP_OURID=one\n", "SP_OURID is 'one'"),
    ],
)
def test_a_node_that_is_not_configured_shows_it_at_once(
    fake_host: FakeHost, conf: pathlib.Path, text: str | None, named: str
) -> None:
    if text is not None:
        conf.write_text(text)

    with pytest.raises(exception.BrickException, match=named):
        fake_host.connector("STORPOOL")


def test_storage_is_told_nothing_of_this_host(conf: pathlib.Path) -> None:
    assert storpool.StorPoolConnector.get_connector_properties(None) == {}


# -- attach (SP-04, SP-05) -------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["rw", "ro"])
def test_attach(connector: Any, cluster: Cluster, mode: str) -> None:
    properties = {**PROPERTIES, "access_mode": mode}

    info = connector.connect_volume(properties)

    assert info == {"type": "block", "path": PATH}
    assert cluster.volumes[0].attached == {7: mode}
    assert connector.connect_volume({**properties, "device_path": PATH}) == info
    assert properties == {**PROPERTIES, "access_mode": mode}


@pytest.mark.parametrize("key", ["client_id", "volume", "access_mode"])
def test_each_key_is_needed(connector: Any, cluster: Cluster, key: str) -> None:
    properties = {name: value for name, value in PROPERTIES.items() if name != key}

    with pytest.raises(exception.BrickException, match=f"no {key} specified"):
        connector.connect_volume(properties)
    assert cluster.asked == []


def test_other_modes_are_refused(connector: Any, cluster: Cluster) -> None:
    with pytest.raises(exception.InvalidParameterValue, match="access_mode is 'w'"):
        connector.connect_volume({**PROPERTIES, "access_mode": "w"})
    assert cluster.asked == []


def test_the_prefix_of_this_host(
    fake_host: FakeHost, connector: Any, cluster: Cluster, conf: pathlib.Path
) -> None:
    conf.write_text(conf.read_text() + "SP_OPENSTACK_VOLUME_PREFIX=cloud1\n")
    cluster.add(f"cloud1--volume-{ID}", "other")
    VendorDisk.appear(fake_host, "sp-1", ["/dev/storpool-byid/other"])

    info = fake_host.connector("STORPOOL").connect_volume(PROPERTIES)

    assert info["path"] == "/dev/storpool-byid/other"


def test_the_link_comes_a_moment_later(
    fake_host: FakeHost, connector: Any, cluster: Cluster
) -> None:
    appear = cluster.when_attached

    def later(volume: Stored) -> None:
        fake_host.after(2.0, lambda: appear(volume))

    cluster.when_attached = later
    assert connector.connect_volume(PROPERTIES)["path"] == PATH
    assert fake_host.devices.find(PATH) is not None


def test_a_volume_that_storpool_does_not_know(connector: Any) -> None:
    with pytest.raises(
        exception.BrickException,
        match="Communication with the StorPool API failed: HTTP: 404, objectDoesNotExist",
    ):
        connector.connect_volume({**PROPERTIES, "volume": "none"})


def test_an_answer_without_global_id(connector: Any, cluster: Cluster) -> None:
    cluster.first = [data({"name": NAME})]

    with pytest.raises(exception.BrickException, match="tells no globalId"):
        connector.connect_volume(PROPERTIES)
    assert cluster.volumes[0].attached == {}


def test_an_attach_that_fails_is_undone(
    fake_host: FakeHost, connector: Any, cluster: Cluster
) -> None:
    cluster.drops = 6  # the request and all its repetitions are carried out, and nobody hears of it

    with pytest.raises(exception.BrickException, match="Communication with the StorPool API"):
        connector.connect_volume(PROPERTIES)

    assert cluster.volumes[0].attached == {}
    assert fake_host.leftovers() == []


def test_transient_errors_are_sat_out(
    fake_host: FakeHost, connector: Any, cluster: Cluster
) -> None:
    cluster.first = [error(500, "later", "soon", transient=True)] * 2

    assert connector.connect_volume(PROPERTIES)["path"] == PATH
    assert 3 <= fake_host.now < 5


def test_nobody_answers(fake_host: FakeHost, connector: Any, conf: pathlib.Path) -> None:
    port = servers.closed_port()
    conf.write_text(f"SP_API_HTTP_PORT={port}\nSP_AUTH_TOKEN={TOKEN}\nSP_OURID=7\n")

    with pytest.raises(exception.BrickException, match="Connection refused"):
        fake_host.connector("STORPOOL").connect_volume(PROPERTIES)


# -- detach (SP-06) --------------------------------------------------------------------------
@pytest.mark.parametrize("path", [PATH, BY_NAME])
@pytest.mark.parametrize("in_properties", [True, False])
def test_detach(
    fake_host: FakeHost, connector: Any, cluster: Cluster, path: str, in_properties: bool
) -> None:
    connector.connect_volume(PROPERTIES)
    disk = fake_host.devices.find("/dev/sp-0")
    assert isinstance(disk, VendorDisk)
    fake_host.write("/dev/sp-0", b"data")

    if in_properties:
        connector.disconnect_volume({**PROPERTIES, "device_path": path}, None)
    else:
        connector.disconnect_volume(PROPERTIES, {"type": "block", "path": path})

    assert cluster.volumes[0].attached == {}
    assert disk.unit.data == b"data"
    assert fake_host.leftovers() == []


def test_detach_again(connector: Any, cluster: Cluster) -> None:
    info = connector.connect_volume(PROPERTIES)
    connector.disconnect_volume(PROPERTIES, info)
    connector.disconnect_volume(PROPERTIES, info)
    cluster.volumes.clear()
    connector.disconnect_volume(PROPERTIES, info)


@pytest.mark.parametrize(
    ("properties", "info", "named"),
    [
        ({"volume": ID, "device_path": PATH}, None, "client_id"),
        (PROPERTIES, None, "device_path"),
        (PROPERTIES, {}, "device_path"),
        (PROPERTIES, {"path": "/dev/sda"}, "Unexpected device path '/dev/sda'"),
        (PROPERTIES, {"path": "/dev/storpool/a/b"}, "Unexpected device path"),
    ],
)
def test_detaches_that_cannot_be_meant(
    connector: Any, cluster: Cluster, properties: dict[str, Any], info: Any, named: str
) -> None:
    with pytest.raises(exception.BrickException, match=named):
        connector.disconnect_volume(properties, info)
    assert cluster.asked == []


@pytest.mark.parametrize(
    "said",
    [
        {"name": "busy", "descr": "open"},
        {"name": "invalidParam", "descr": "Volume is open at client 7"},
    ],
)
def test_a_volume_that_is_open_for_a_moment(
    connector: Any, cluster: Cluster, said: dict[str, str]
) -> None:
    info = connector.connect_volume(PROPERTIES)
    cluster.busy, cluster.busy_error = 3, said

    connector.disconnect_volume(PROPERTIES, info)

    assert cluster.volumes[0].attached == {}


def test_a_volume_that_stays_open_is_not_cut_off_without_force(
    connector: Any, cluster: Cluster
) -> None:
    info = connector.connect_volume(PROPERTIES)
    cluster.busy = 11

    with pytest.raises(exception.DeviceInUse, match="the volume is open"):
        connector.disconnect_volume(PROPERTIES, info)
    assert cluster.volumes[0].attached == {7: "rw"}

    cluster.busy = 11
    connector.disconnect_volume(PROPERTIES, info, force=True)
    assert cluster.volumes[0].attached == {}


def test_other_refusals_are_not_tried_again(connector: Any, cluster: Cluster) -> None:
    info = connector.connect_volume(PROPERTIES)
    cluster.busy, cluster.busy_error = 1, {"name": "invalidParam", "descr": "no such client"}

    with pytest.raises(exception.BrickException, match="no such client"):
        connector.disconnect_volume(PROPERTIES, info)


def test_what_cannot_be_written_out_stays_attached(
    fake_host: FakeHost, connector: Any, cluster: Cluster
) -> None:
    info = connector.connect_volume(PROPERTIES)
    disk = fake_host.devices.find("/dev/sp-0")
    assert isinstance(disk, VendorDisk)
    disk.state = "fails"
    fake_host.write("/dev/sp-0", b"data")

    with pytest.raises(processutils.ProcessExecutionError):
        connector.disconnect_volume(PROPERTIES, info)
    assert cluster.volumes[0].attached == {7: "rw"}

    with pytest.raises(exception.ExceptionChainer):
        connector.disconnect_volume(PROPERTIES, info, force=True)
    assert cluster.volumes[0].attached == {}


def test_a_mounted_volume_is_refused(fake_host: FakeHost, connector: Any, cluster: Cluster) -> None:
    info = connector.connect_volume(PROPERTIES)
    fake_host.mount("/dev/sp-0", "/mnt")

    with pytest.raises(exception.DeviceInUse, match="mounted at /mnt"):
        connector.disconnect_volume(PROPERTIES, info)
    assert cluster.volumes[0].attached == {7: "rw"}


def test_a_device_that_stays_is_told(fake_host: FakeHost, connector: Any, cluster: Cluster) -> None:
    info = connector.connect_volume(PROPERTIES)
    cluster.when_detached = lambda volume: None

    with pytest.raises(exception.VolumePathNotRemoved):
        connector.disconnect_volume(PROPERTIES, info)


# -- size and paths (SP-07) ------------------------------------------------------------------
def test_extend_waits_for_the_size_that_storpool_tells(
    fake_host: FakeHost, connector: Any, cluster: Cluster
) -> None:
    connector.connect_volume(PROPERTIES)
    disk = fake_host.devices.find("/dev/sp-0")
    assert isinstance(disk, VendorDisk)
    cluster.volumes[0].size = 16 * 1024**3
    fake_host.after(3.0, lambda: disk.grow(16 * 1024**3))

    assert connector.extend_volume({**PROPERTIES, "device_path": PATH}) == 16 * 1024**3


def test_an_old_size_is_no_answer(connector: Any, cluster: Cluster) -> None:
    connector.connect_volume(PROPERTIES)
    cluster.volumes[0].size = 16 * 1024**3

    with pytest.raises(exception.BrickException, match="StorPool says 17179869184"):
        connector.extend_volume(PROPERTIES)


def test_extend_of_what_is_not_here(connector: Any) -> None:
    with pytest.raises(exception.BrickException, match="is not here"):
        connector.extend_volume(PROPERTIES)


@pytest.mark.parametrize("told", [[], [{}], None, [{"size": "big"}]])
def test_a_size_that_is_not_told(connector: Any, cluster: Cluster, told: Any) -> None:
    cluster.first = [data(told)]

    with pytest.raises(exception.BrickException, match="it tells no size"):
        connector.extend_volume(PROPERTIES)


def test_the_path_of_an_attach_is_a_path_of_the_volume(connector: Any, cluster: Cluster) -> None:
    assert connector.get_volume_paths(PROPERTIES) == []
    info = connector.connect_volume(PROPERTIES)

    assert connector.get_volume_paths({**PROPERTIES, "device_path": info["path"]}) == [PATH]
    assert connector.get_volume_paths({**PROPERTIES, "device_path": BY_NAME}) == [BY_NAME]
    assert connector.get_volume_paths(PROPERTIES) == [BY_NAME]
    assert connector.get_search_path() == "/dev/storpool"


@pytest.mark.parametrize("path", ["/dev/storpool/os--volume-x", "/dev/storpool-byid/x", "/dev/sda"])
def test_paths_of_other_volumes_are_refused(fake_host: FakeHost, connector: Any, path: str) -> None:
    connector.connect_volume(PROPERTIES)
    VendorDisk.appear(fake_host, "sp-1", [path] if path != "/dev/sda" else [])

    with pytest.raises(exception.BrickException, match="device"):
        connector.get_volume_paths({**PROPERTIES, "device_path": path})


def test_all_volumes_of_this_host(fake_host: FakeHost, connector: Any) -> None:
    assert connector.get_all_available_volumes() == []
    connector.connect_volume(PROPERTIES)
    fake_host.stale_link("/dev/storpool/template-1", "/dev/null")

    assert connector.get_all_available_volumes() == [ID]


def test_an_encrypted_volume_gets_a_link_of_ours(
    fake_host: FakeHost, connector: Any, cluster: Cluster
) -> None:
    properties = {**PROPERTIES, "encrypted": True}
    info = connector.connect_volume(properties)
    assert info["path"] == f"/dev/disk/by-id/os-brick+dev+storpool-byid+{GLOBAL}"

    connector.disconnect_volume({**properties, "device_path": info["path"]}, None)
    assert cluster.volumes[0].attached == {}
    assert fake_host.leftovers() == []


def test_the_token_is_told_nowhere(
    connector: Any, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    cluster.first = [Said(500, b"{}")]
    with pytest.raises(exception.BrickException) as caught:
        connector.connect_volume(PROPERTIES)
    connector.connect_volume(PROPERTIES)

    assert TOKEN not in caplog.text + repr(caught.value) + str(caught.value.timeline)


@pytest.mark.parametrize(
    ("path", "name"), [(PATH, f"~{GLOBAL}"), (BY_NAME, NAME), (pathlib.Path(BY_NAME), NAME)]
)
def test_names_of_paths(path: Any, name: str) -> None:
    assert storpool.path_to_volname(path) == name


def test_names_that_services_use() -> None:
    assert front_door.StorPoolConnector is storpool.StorPoolConnector
    assert str(storpool.DEV_STORPOOL_BYID) == "/dev/storpool-byid"


def test_it_works_without_a_lock_directory(
    fake_host: FakeHost,
    connector: Any,
    cluster: Cluster,
) -> None:
    def no_directory() -> str:
        raise cfg.RequiredOptError("lock_path", cfg.OptGroup("os_brick"))

    object.__setattr__(fake_host.host, "locks", Locks(no_directory))
    info = connector.connect_volume(PROPERTIES)
    assert info["path"] == PATH
    connector.extend_volume({**PROPERTIES, "device_path": PATH})
    connector.disconnect_volume(PROPERTIES, info)


def test_a_device_that_does_not_appear_is_no_success(
    connector: Any,
    cluster: Cluster,
) -> None:
    cluster.when_attached = lambda volume: None
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector.connect_volume(PROPERTIES)
    assert cluster.volumes[0].attached == {}
