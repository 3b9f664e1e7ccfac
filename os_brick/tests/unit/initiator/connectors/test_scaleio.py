# SPDX-License-Identifier: Apache-2.0
"""ScaleIO (PowerFlex) on a fake host, with a gateway behind real TLS."""

from __future__ import annotations

import fcntl
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import exception, privileged
from os_brick.initiator import connector as front_door
from os_brick.initiator.connectors import scaleio
from os_brick.initiator.vendors.scaleio_volume import ScaleIOVolume
from os_brick.privileged import scaleio as priv_scaleio
from os_brick.testing import FakeHost
from os_brick.testing.process import Answer, Process
from os_brick.testing.vendor_disk import VendorDisk
from os_brick.tests.unit.initiator.vendors import servers
from os_brick.tests.unit.initiator.vendors.powerflex import PASSWORD, USER, Gateway, Mapped
from os_brick.tests.unit.initiator.vendors.servers import Said

GUID = "9E6B2C1A-1111-2222-3333-444455556666"
ID = "a1b2c3d400000007"
NAME = "Volume/ä 1"
LINK = f"/dev/disk/by-id/emc-vol-5d9af0e11a2b3c4d-{ID}"
CONF = (
    "[backend]\nsan_username = newadmin\nsan_password = from%%file\n"
    "replicating_san_password = other\n[bare]\nsan_password = p%x\n"
)
GIB = 1024**3


class Client:
    """The client's tool, and the host's file of credentials."""

    def __init__(self, host: FakeHost) -> None:
        host.programs.install("drv_cfg", self.run)
        host.coreutils.files[scaleio.CONNECTOR_CONF_PATH] = CONF
        self.host = host
        self.grows: tuple[float, int] | None = None
        self.code = 0

    def run(self, process: Process) -> Answer:
        if self.code:
            return Answer(self.code, err="Failed to open kernel device\n")
        if process.words[1] == "--query_guid":
            return Answer(out=f"{GUID}\n")
        assert process.words[1] == "--rescan"
        if self.grows:
            seconds, size = self.grows
            self.grows = None
            disk = self.host.devices.find("/dev/scinia")
            assert isinstance(disk, VendorDisk)
            self.host.after(seconds, lambda: disk.grow(size))
        return Answer()


@pytest.fixture
def client(fake_host: FakeHost) -> Client:
    return Client(fake_host)


@pytest.fixture
def gateway(fake_host: FakeHost) -> Iterator[Gateway]:
    def appear(volume: Mapped) -> None:
        VendorDisk.appear(fake_host, "scinia", [LINK], size=volume.kib * 1024)

    def vanish(volume: Mapped) -> None:
        disk = fake_host.devices.find("/dev/scinia")
        if isinstance(disk, VendorDisk):
            disk.vanish()

    with Gateway() as one:
        one.volumes.append(Mapped(ID, NAME))
        one.when_mapped, one.when_unmapped = appear, vanish
        yield one


@pytest.fixture
def connector(fake_host: FakeHost, client: Client) -> Any:
    return fake_host.connector("SCALEIO", foreign=True)


def managed(**more: Any) -> dict[str, Any]:
    """Properties of a volume that storage maps."""
    return {
        "scaleIO_volname": NAME,
        "scaleIO_volume_id": ID,
        "sdc_guid": GUID,
        "config_group": "backend",
        "failed_over": False,
        "iopsLimit": None,
        "bandwidthLimit": None,
        **more,
    }


def legacy(gateway: Gateway, **more: Any) -> dict[str, Any]:
    """Properties of a volume that the connector maps, with the password in the host's file."""
    return {
        "scaleIO_volname": NAME,
        "scaleIO_volume_id": ID,
        "hostIP": "10.0.0.7",
        "serverIP": "127.0.0.1",
        "serverPort": str(gateway.port),
        "serverUsername": USER,
        "iopsLimit": None,
        "bandwidthLimit": None,
        "config_group": "bare",
        "verify_certificate": True,
        "certificate_path": servers.CA,
        **more,
    }


def oldest(gateway: Gateway, **more: Any) -> dict[str, Any]:
    """Properties with the password inside."""
    properties = legacy(gateway, serverPassword=PASSWORD, serverToken="too old", **more)
    del properties["config_group"]
    return properties


# -- storage maps (SI-04, SI-06, SI-08) ------------------------------------------------------
def test_storage_maps_and_the_connector_finds(fake_host: FakeHost, connector: Any) -> None:
    VendorDisk.appear(fake_host, "scinia", [LINK])
    properties = managed()

    info = connector.connect_volume(properties)

    assert info == {"type": "block", "path": LINK}
    assert connector.connect_volume({**properties, "device_path": LINK}) == info
    assert properties == managed()
    assert fake_host.started == []


def test_the_device_comes_late(fake_host: FakeHost, connector: Any) -> None:
    fake_host.at(14.0, lambda: VendorDisk.appear(fake_host, "scinia", [LINK]))

    assert connector.connect_volume(managed())["path"] == LINK
    assert fake_host.now < 14.6


def test_the_device_never_comes(fake_host: FakeHost, connector: Any) -> None:
    with pytest.raises(exception.BrickException, match=f"ScaleIO volume {ID} not found[.]"):
        connector.connect_volume(managed())


def test_there_is_not_even_a_directory(fake_host: FakeHost, connector: Any) -> None:
    fake_host._world.dev.remove("disk/by-id")

    with pytest.raises(exception.BrickException, match="not found at expected path"):
        connector.connect_volume(managed())


@pytest.mark.parametrize(
    "link",
    [
        f"/dev/disk/by-id/scsi-{ID}",
        f"/dev/disk/by-id/emc-vol-5d9af0e1-f{ID}",
        f"/dev/disk/by-id/emc-vol-5d9af0e1-{ID}-part1",
        f"/dev/disk/by-id/emc-vol-5d9af0e1-{ID[1:]}",
    ],
)
def test_links_of_others_do_not_count(fake_host: FakeHost, connector: Any, link: str) -> None:
    VendorDisk.appear(fake_host, "scinia", [link])

    assert connector.get_volume_paths(managed()) == []
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector.connect_volume(managed())


def test_a_link_that_leads_nowhere_does_not_count(fake_host: FakeHost, connector: Any) -> None:
    fake_host.stale_link(LINK, "/dev/scinia")

    assert connector.get_volume_paths(managed()) == []
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector.connect_volume(managed())


def test_two_systems_with_the_same_id_are_refused(fake_host: FakeHost, connector: Any) -> None:
    VendorDisk.appear(fake_host, "scinia", [LINK])
    VendorDisk.appear(fake_host, "scinib", [f"/dev/disk/by-id/emc-vol-other-{ID}"])

    with pytest.raises(exception.WrongVolume, match="Several systems"):
        connector.connect_volume(managed())


def test_a_detach_writes_out_and_leaves_the_unmapping_to_storage(
    fake_host: FakeHost, connector: Any
) -> None:
    disk = VendorDisk.appear(fake_host, "scinia", [LINK])
    fake_host.write("/dev/scinia", b"data")

    connector.disconnect_volume(managed(device_path=LINK), None)

    assert disk.unit.data == b"data"
    assert fake_host.lost == []


def test_a_detach_of_what_is_not_here(fake_host: FakeHost, connector: Any) -> None:
    connector.disconnect_volume(managed(), None)
    connector.disconnect_volume(managed(), {}, force=True)

    assert fake_host.started == []


def test_a_write_out_that_fails_stops_the_detach(fake_host: FakeHost, connector: Any) -> None:
    disk = VendorDisk.appear(fake_host, "scinia", [LINK])
    disk.state = "fails"
    fake_host.write("/dev/scinia", b"data")

    with pytest.raises(processutils.ProcessExecutionError):
        connector.disconnect_volume(managed(), None)
    with pytest.raises(exception.ExceptionChainer):
        connector.disconnect_volume(managed(), None, force=True)
    connector.disconnect_volume(managed(), None, force=True, ignore_errors=True)


def test_a_volume_in_use_is_refused(fake_host: FakeHost, connector: Any) -> None:
    VendorDisk.appear(fake_host, "scinia", [LINK])
    fake_host.mount("/dev/scinia", "/mnt")

    with pytest.raises(exception.DeviceInUse, match="mounted at /mnt"):
        connector.disconnect_volume(managed(), None)


# -- the gateway maps (SI-05, SI-08) ---------------------------------------------------------
def test_the_connector_maps_by_itself(
    fake_host: FakeHost, connector: Any, gateway: Gateway
) -> None:
    gateway.password = "p%x"
    properties = legacy(gateway, iopsLimit="500", bandwidthLimit=10240)

    info = connector.connect_volume(properties)

    (volume,) = gateway.volumes
    assert info == {"type": "block", "path": LINK}
    assert volume.guids == [GUID]
    assert volume.limits == {"guid": GUID, "iopsLimit": "500", "bandwidthLimitInKbps": 10240}
    fake_host.write("/dev/scinia", b"data")
    connector.disconnect_volume({**properties, "device_path": LINK}, info)
    assert volume.guids == []
    assert fake_host.lost == []
    assert fake_host.leftovers() == []


def test_one_log_in_serves_a_whole_call(connector: Any, gateway: Gateway) -> None:
    connector.connect_volume(oldest(gateway, scaleIO_volume_id=None, iopsLimit=5))

    assert gateway.said[1:] == [
        "login",
        gateway.said[0],
        "addMappedSdc",
        "setMappedSdcLimits",
    ]
    assert "getByName::Volume%252F" in gateway.said[0]


def test_an_expired_token_is_renewed_once(connector: Any, gateway: Gateway) -> None:
    gateway.instead["addMappedSdc"] = Said.json({"message": "no"}, 403)

    with pytest.raises(exception.BrickException, match=r"Error mapping volume .*: no"):
        connector.connect_volume(oldest(gateway))

    assert gateway.said[:3] == ["addMappedSdc", "login", "addMappedSdc"]


@pytest.mark.parametrize("newer", [False, True])
def test_what_is_mapped_already_is_attached(
    fake_host: FakeHost, connector: Any, gateway: Gateway, newer: bool
) -> None:
    gateway.newer = newer
    first = connector.connect_volume(oldest(gateway))

    assert connector.connect_volume(oldest(gateway)) == first


@pytest.mark.parametrize("newer", [False, True])
def test_what_is_not_mapped_is_detached(
    fake_host: FakeHost, connector: Any, gateway: Gateway, newer: bool
) -> None:
    gateway.newer = newer

    connector.disconnect_volume(oldest(gateway), None)


@pytest.mark.parametrize(
    "said",
    [
        Said.json({"message": "Unauthorized", "httpStatusCode": 401}, 401),
        Said.json({"message": "not a token"}, 200),
        Said(200, b"<html>"),
        Said.json("", 200),
    ],
)
def test_a_refused_log_in_is_an_error_and_no_token(
    connector: Any, gateway: Gateway, said: Said
) -> None:
    gateway.instead["/login"] = said

    with pytest.raises(exception.BrickException, match="refused the log-in"):
        connector.connect_volume(legacy(gateway))

    assert "addMappedSdc" not in gateway.said


def test_the_gateways_own_words_reach_the_caller(connector: Any, gateway: Gateway) -> None:
    properties = oldest(gateway, scaleIO_volume_id="0000000000000bad")

    with pytest.raises(
        exception.BrickException,
        match=r"Error mapping volume .*Could not find the volume \(status 500, error 79\)",
    ):
        connector.connect_volume(properties)
    with pytest.raises(exception.BrickException, match="Error unmapping volume"):
        connector.disconnect_volume(properties, None)


def test_a_name_that_nobody_has(connector: Any, gateway: Gateway) -> None:
    properties = oldest(gateway, scaleIO_volume_id=None, scaleIO_volname="who")

    with pytest.raises(exception.BrickException, match="Volume with name who wasn't found"):
        connector.connect_volume(properties)


def test_a_name_that_cannot_be_asked_for(connector: Any, gateway: Gateway) -> None:
    gateway.instead["who"] = Said.json({"message": "down"}, 500)
    properties = oldest(gateway, scaleIO_volume_id=None, scaleIO_volname="who")

    with pytest.raises(exception.BrickException, match=r"volume id from name who: down"):
        connector.connect_volume(properties)


def test_an_attach_that_fails_unmaps_what_it_mapped(connector: Any, gateway: Gateway) -> None:
    gateway.when_mapped = lambda volume: None

    with pytest.raises(exception.VolumeDeviceNotFound):
        connector.connect_volume(oldest(gateway))

    assert gateway.volumes[0].guids == []


def test_what_others_mapped_stays_when_an_attach_fails(connector: Any, gateway: Gateway) -> None:
    gateway.volumes[0].guids.append(GUID)

    with pytest.raises(exception.VolumeDeviceNotFound):
        connector.connect_volume(oldest(gateway))

    assert gateway.volumes[0].guids == [GUID]


def test_a_mapping_whose_answer_gets_lost_is_undone(connector: Any, gateway: Gateway) -> None:
    gateway.drops.add("addMappedSdc")

    with pytest.raises(exception.BrickException, match="Error mapping volume"):
        connector.connect_volume(oldest(gateway))

    assert gateway.volumes[0].guids == []
    assert "removeMappedSdc" in gateway.said


def test_an_unmapping_whose_answer_gets_lost_is_no_success(
    connector: Any, gateway: Gateway
) -> None:
    properties = oldest(gateway)
    info = connector.connect_volume(properties)
    gateway.drops.add("removeMappedSdc")

    with pytest.raises(exception.BrickException, match="Error unmapping volume"):
        connector.disconnect_volume(properties, info)
    gateway.drops.clear()
    connector.disconnect_volume(properties, info)


def test_limits_that_fail_do_not_fail_the_attach(
    connector: Any, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.instead["setMappedSdcLimits"] = Said.json({"message": "too much"}, 500)

    assert connector.connect_volume(oldest(gateway, iopsLimit=5))["path"] == LINK
    assert "Error setting limits" in caplog.text


def test_a_device_that_stays_after_unmapping_is_told(
    fake_host: FakeHost, connector: Any, gateway: Gateway
) -> None:
    properties = oldest(gateway)
    info = connector.connect_volume(properties)
    gateway.when_unmapped = lambda volume: None

    with pytest.raises(exception.VolumePathNotRemoved, match="emc-vol"):
        connector.disconnect_volume({**properties, "device_path": LINK}, info)


def test_a_device_that_goes_late_is_waited_for(
    fake_host: FakeHost, connector: Any, gateway: Gateway
) -> None:
    properties = oldest(gateway)
    info = connector.connect_volume(properties)
    disk = fake_host.devices.find("/dev/scinia")
    assert isinstance(disk, VendorDisk)

    def go_late(volume: Mapped) -> None:
        fake_host.after(9.0, disk.vanish)

    gateway.when_unmapped = go_late

    connector.disconnect_volume({**properties, "device_path": "/dev/scinia"}, info)

    assert disk.gone


def test_a_path_of_another_volume_is_not_waited_for(
    fake_host: FakeHost, connector: Any, gateway: Gateway
) -> None:
    properties = oldest(gateway)
    info = connector.connect_volume(properties)
    VendorDisk.appear(fake_host, "scinib")

    connector.disconnect_volume({**properties, "device_path": "/dev/scinib"}, info)

    assert fake_host.now < 5


def test_what_cannot_be_written_out_stays_mapped(
    fake_host: FakeHost, connector: Any, gateway: Gateway
) -> None:
    properties = oldest(gateway)
    info = connector.connect_volume(properties)
    disk = fake_host.devices.find("/dev/scinia")
    assert isinstance(disk, VendorDisk)
    disk.state = "fails"
    fake_host.write("/dev/scinia", b"data")

    with pytest.raises(processutils.ProcessExecutionError):
        connector.disconnect_volume(properties, info)
    assert gateway.volumes[0].guids == [GUID]

    connector.disconnect_volume(properties, info, force=True, ignore_errors=True)
    assert gateway.volumes[0].guids == []


def test_with_force_what_the_gateway_says_is_kept_to_the_end(
    fake_host: FakeHost, connector: Any, gateway: Gateway
) -> None:
    gateway.instead["removeMappedSdc"] = Said.json({"message": "busy"}, 500)

    with pytest.raises(exception.ExceptionChainer, match="busy"):
        connector.disconnect_volume(oldest(gateway), None, force=True)
    connector.disconnect_volume(oldest(gateway), None, force=True, ignore_errors=True)


# -- TLS and limits --------------------------------------------------------------------------
def test_the_gateway_has_to_prove_who_it_is(connector: Any, gateway: Gateway) -> None:
    properties = oldest(gateway)
    for key in ("verify_certificate", "certificate_path"):
        del properties[key]

    with pytest.raises(exception.BrickException, match="CERTIFICATE_VERIFY_FAILED"):
        connector.connect_volume(properties)
    assert gateway.asked == []

    connector.connect_volume({**properties, "verify_certificate": False})


def test_a_gateway_that_never_answers_costs_its_time_only(
    fake_host: FakeHost, connector: Any, conf: Any
) -> None:
    conf.set_override("call_timeout", 1, group="os_brick")
    with servers.silent() as port:
        properties = legacy(FixedPort(port))
        with pytest.raises(exception.BrickException, match="cannot be asked"):
            connector.connect_volume(properties)


class FixedPort(Gateway):
    """A gateway that is only an address."""

    def __init__(self, port: int) -> None:
        self._port = port

    @property
    def port(self) -> int:
        return self._port


@pytest.fixture
def conf() -> Iterator[Any]:
    from oslo_config import cfg

    yield cfg.CONF
    cfg.CONF.clear_override("call_timeout", group="os_brick")


# -- credentials (SI-01) ---------------------------------------------------------------------
def test_the_accounts_name_in_the_file_wins(connector: Any, gateway: Gateway) -> None:
    gateway.user, gateway.password = "newadmin", "from%file"

    connector.connect_volume(legacy(gateway, config_group="backend"))


def test_a_section_without_name_leaves_that_of_the_properties(
    connector: Any, gateway: Gateway
) -> None:
    gateway.password = "other"

    connector.connect_volume(legacy(gateway, config_group="backend", failed_over=True))


@pytest.mark.parametrize(
    ("text", "group"),
    [(None, "bare"), ("[other]\n", "bare"), ("[bare]\nsan_username=x\n", "bare"), ("#\n", "x")],
)
def test_credentials_that_cannot_be_had(
    fake_host: FakeHost, connector: Any, gateway: Gateway, text: str | None, group: str
) -> None:
    del fake_host.coreutils.files[scaleio.CONNECTOR_CONF_PATH]
    if text is not None:
        fake_host.coreutils.files[scaleio.CONNECTOR_CONF_PATH] = text

    with pytest.raises(
        exception.BrickException,
        match="Error getting ScaleIO connector password from configuration file: ",
    ):
        connector.connect_volume(legacy(gateway, config_group=group))
    assert gateway.asked == []


def test_no_secret_is_told(
    connector: Any, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = []
    for properties in (oldest(gateway), legacy(gateway, config_group="backend")):
        with pytest.raises(exception.BrickException) as caught:
            connector.connect_volume({**properties, "scaleIO_volume_id": "0bad"})
        texts.append(f"{caught.value!r} {caught.value.timeline}")
    connector.connect_volume(oldest(gateway))

    for secret in (PASSWORD, "from%file", "t0ken-", "too old"):
        assert secret not in caplog.text
        assert secret not in " ".join(texts)


# -- the client (SI-02, SI-03) ---------------------------------------------------------------
def test_a_client_that_does_not_answer(
    fake_host: FakeHost, client: Client, connector: Any, gateway: Gateway
) -> None:
    client.code = 1

    with pytest.raises(exception.BrickException, match="Failed to query sdc guid"):
        connector.connect_volume(oldest(gateway))
    with pytest.raises(exception.BrickException, match="Failed to query sdc guid"):
        connector.disconnect_volume(oldest(gateway), None)


def test_what_storage_is_told_of_this_host(fake_host: FakeHost, client: Client) -> None:
    tell = scaleio.ScaleIOConnector.get_connector_properties

    assert tell(None, execute=fake_host.execute) == {"sdc_guid": GUID}
    client.code = 1
    assert tell(None, execute=fake_host.execute) == {}


class Driver:
    """The client's driver, in a process that is root itself."""

    def __init__(self, grow: Any) -> None:
        self.grow = grow

    def ioctl(self, fd: int, request: int, buffer: bytes) -> bytes:
        if request == scaleio.ScaleIOConnector.RESCAN_VOLS_OP_CODE:
            self.grow()
        return bytes(8) + bytes(range(len(buffer) - 8))


def test_by_the_librarys_own_verbs_no_program_is_started(
    fake_host: FakeHost, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    def grow() -> None:
        disk = fake_host.devices.find("/dev/scinia")
        assert isinstance(disk, VendorDisk)
        disk.grow(16 * GIB)

    for name in ("scini", "connector.conf"):
        (tmp_path / name).write_text(CONF)
    monkeypatch.setattr(priv_scaleio, "SCINI_DEVICE_PATH", str(tmp_path / "scini"))
    monkeypatch.setattr(scaleio, "CONNECTOR_CONF_PATH", str(tmp_path / "connector.conf"))
    monkeypatch.setattr(fcntl, "ioctl", Driver(grow).ioctl)
    gateway.password = "p%x"
    properties = legacy(gateway)
    connector = fake_host.connector("SCALEIO")
    privileged.default.set_client_mode(False)
    try:
        info = connector.connect_volume(properties)
        assert gateway.volumes[0].guids == ["00010203-0405-0607-0809-0a0b0c0d0e0f"]
        gateway.volumes[0].kib *= 2
        assert connector.extend_volume(properties) == 16 * GIB
        connector.disconnect_volume({**properties, "scaleIO_volume_id": None}, info)
        (tmp_path / "connector.conf").unlink()
        with pytest.raises(exception.BrickException, match="connector password from config"):
            connector.connect_volume(properties)
    finally:
        privileged.default.set_client_mode(True)
    assert {words[0] for words in fake_host.started} == {"sync"}


@pytest.mark.parametrize(("body", "works"), [(b"", True), (b"<html>", False)])
def test_answers_without_json(connector: Any, gateway: Gateway, body: bytes, works: bool) -> None:
    properties = oldest(gateway)
    info = connector.connect_volume(properties)
    gateway.instead["removeMappedSdc"] = Said(200, body)
    gateway.when_unmapped(gateway.volumes[0])

    if works:
        connector.disconnect_volume(properties, info)
    else:
        with pytest.raises(exception.BrickException, match="is no JSON"):
            connector.disconnect_volume(properties, info)


def test_a_host_without_the_client_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(priv_scaleio, "SCINI_DEVICE_PATH", str(tmp_path / "scini"))

    assert scaleio.ScaleIOConnector.get_connector_properties(None) == {}


# -- extend (SI-09) --------------------------------------------------------------------------
def test_storage_tells_the_new_size_and_it_is_waited_for(
    fake_host: FakeHost, client: Client, connector: Any, gateway: Gateway
) -> None:
    properties = oldest(gateway)
    connector.connect_volume(properties)
    gateway.volumes[0].kib = 16 * 1024 * 1024
    client.grows = (1.0, 16 * GIB)

    assert connector.extend_volume(properties) == 16 * GIB


def test_a_size_that_does_not_come_is_no_success(
    fake_host: FakeHost, connector: Any, gateway: Gateway
) -> None:
    properties = oldest(gateway)
    connector.connect_volume(properties)
    gateway.volumes[0].kib = 16 * 1024 * 1024

    with pytest.raises(exception.BrickException, match="storage says"):
        connector.extend_volume(properties)


def test_without_a_gateway_a_change_is_waited_for(
    fake_host: FakeHost, client: Client, connector: Any
) -> None:
    VendorDisk.appear(fake_host, "scinia", [LINK], size=8 * GIB)
    client.grows = (1.5, 9 * GIB)

    assert connector.extend_volume(managed()) == 9 * GIB
    assert connector.extend_volume(managed()) == 9 * GIB  # it had been heard of before


def test_extend_of_what_is_not_here(connector: Any) -> None:
    with pytest.raises(exception.BrickException, match="Error extending ScaleIO volume"):
        connector.extend_volume(managed())


# -- properties, paths, threads --------------------------------------------------------------
@pytest.mark.parametrize(
    ("properties", "named"),
    [
        ({}, "scaleIO_volname"),
        ({"scaleIO_volname": "v", "sdc_guid": GUID}, "scaleIO_volume_id"),
        ({"scaleIO_volname": "v", "scaleIO_volume_id": "*", "sdc_guid": GUID}, "volume_id"),
        ({"scaleIO_volname": "v", "scaleIO_volume_id": ID}, "hostIP"),
        (
            {
                "scaleIO_volname": "v",
                "scaleIO_volume_id": ID,
                "hostIP": "h",
                "serverIP": "s",
                "serverPort": "no",
                "serverUsername": "u",
                "iopsLimit": None,
                "bandwidthLimit": None,
            },
            "serverPort",
        ),
    ],
)
def test_properties_that_cannot_be_used_are_refused_by_key(
    fake_host: FakeHost, connector: Any, properties: dict[str, Any], named: str
) -> None:
    with pytest.raises(exception.InvalidParameterValue, match=named):
        connector.connect_volume(properties)
    assert fake_host.started == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("verify_certificate", "yes"),
        ("certificate_path", 7),
        ("serverIP", ""),
        ("serverUsername", None),
        ("serverPort", 0),
        ("config_group", None),
    ],
)
def test_ways_to_the_gateway_that_cannot_be_used(gateway: Gateway, key: str, value: Any) -> None:
    with pytest.raises(exception.InvalidParameterValue, match=key):
        ScaleIOVolume.parse(legacy(gateway, **{key: value}))


def test_paths_and_search_path(fake_host: FakeHost, connector: Any, gateway: Gateway) -> None:
    properties = oldest(gateway, scaleIO_volume_id=None)
    assert connector.get_volume_paths(properties) == []
    connector.connect_volume(properties)

    assert connector.get_volume_paths(properties) == [LINK]
    assert connector.get_search_path() == "/dev/disk/by-id"


def test_an_encrypted_volume_gets_a_link_of_ours(
    fake_host: FakeHost, connector: Any, gateway: Gateway
) -> None:
    properties = oldest(gateway, encrypted=True)

    info = connector.connect_volume(properties)
    assert info["path"].startswith("/dev/disk/by-id/os-brick+dev+disk+by-id+emc-vol-")

    connector.disconnect_volume({**properties, "device_path": info["path"]}, info)
    assert gateway.volumes[0].guids == []
    assert fake_host.leftovers() == []


def test_one_connector_serves_two_systems_at_once(fake_host: FakeHost, client: Client) -> None:
    connector = fake_host.connector("SCALEIO", foreign=True)
    gate = threading.Barrier(2)
    with Gateway() as first, Gateway() as second:
        errors: list[BaseException] = []

        def attach(gateway: Gateway, number: str, name: str, disk: str) -> None:
            gateway.password = f"password of {name}"
            gateway.volumes.append(Mapped(number, name))

            def appear(volume: Mapped) -> None:
                gate.wait(10)
                VendorDisk.appear(fake_host, disk, [f"/dev/disk/by-id/emc-vol-{name}-{number}"])

            gateway.when_mapped = appear
            properties = oldest(gateway, scaleIO_volume_id=number, scaleIO_volname=name)
            properties["serverPassword"] = gateway.password
            try:
                path = connector.connect_volume(properties)["path"]
                assert path == f"/dev/disk/by-id/emc-vol-{name}-{number}"
            except BaseException as exc:  # noqa: BLE001 - told below, in the test's own thread
                errors.append(exc)

        tasks = [
            threading.Thread(target=attach, args=(first, "1111", "one", "scinia")),
            threading.Thread(target=attach, args=(second, "2222", "two", "scinib")),
        ]
        for task in tasks:
            task.start()
        with fake_host.idle():
            for task in tasks:
                task.join(30)

        assert errors == []
        assert [one.volumes[0].guids for one in (first, second)] == [[GUID], [GUID]]


def test_numbers_of_requests() -> None:
    assert scaleio.io("a", 14) == scaleio.ScaleIOConnector.GET_GUID_OP_CODE == 0x610E
    assert scaleio.ScaleIOConnector.RESCAN_VOLS_OP_CODE == 0x610A
    assert scaleio.ioc(0x80000000, 97, 1, 4) == 0x80046101


def test_properties_can_be_checked_before(fake_host: FakeHost, connector: Any) -> None:
    assert connector.get_config(managed()) == {"type": "block", "path": None}
    VendorDisk.appear(fake_host, "scinia", [LINK])
    assert connector.get_config(managed()) == {"type": "block", "path": LINK}
    with pytest.raises(exception.InvalidParameterValue):
        connector.get_config({})


def test_names_that_services_use() -> None:
    cls = front_door.ScaleIOConnector

    assert cls is scaleio.ScaleIOConnector
    assert (
        front_door.InitiatorConnector.factory(
            "scaleio", None, device_scan_attempts=5, transport="x", enforce_multipath=True
        ).device_scan_attempts
        == 5
    )
