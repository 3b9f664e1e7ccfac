# SPDX-License-Identifier: Apache-2.0
"""Attaching NVMe-oF volumes."""

from __future__ import annotations

import copy
import json
import logging
import uuid
from typing import Any

import pytest

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.nvme_storage import INACCESSIBLE
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import side_by_side
from os_brick.tests.unit.initiator.connectors.nvme_helpers import (
    connector,
    connects,
    controllers,
    kinds,
    option,
)

BOTH = pytest.mark.parametrize("multipath", [False, True])
VERSIONS = [(1, 8), (1, 9), (1, 12), (1, 14), (1, 16), (2, 0), (2, 3), (2, 8)]


# -- results -------------------------------------------------------------------------------
@pytest.mark.parametrize("protocol", ["NVME", "nvmeof"])
@BOTH
def test_a_volume_gives_its_head(fake_host: FakeHost, protocol: str, multipath: bool) -> None:
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    one = fake_host.connector(protocol, use_multipath=multipath, enforce_multipath=True)
    assert one.connect_volume(volume.properties) == {"type": "block", "path": "/dev/nvme2n1"}
    assert len(fake_host.nvme.controllers) == (2 if multipath else 1)


def test_without_native_multipath_one_portal_gives_its_own_disk(fake_host: FakeHost) -> None:
    fake_host.nvme.native_multipath = False
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    assert connector(fake_host).connect_volume(volume.properties)["path"] == "/dev/nvme0n1"
    assert controllers(fake_host) == ["nvme0"]


@BOTH
def test_a_connected_volume_is_connected_again_to_the_same_device(
    fake_host: FakeHost, multipath: bool
) -> None:
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    one = connector(fake_host, use_multipath=multipath)
    first = one.connect_volume(volume.properties)
    there = fake_host.inventory()
    fake_host.forget()
    assert one.connect_volume(volume.properties) == first
    assert fake_host.inventory() == there
    assert fake_host.started == []


def test_the_callers_dictionaries_are_not_changed(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem().namespace()
    one = connector(fake_host)
    for properties in (volume.connection("uuid", encrypted=True), volume.old_connection("nsid")):
        before = copy.deepcopy(properties)
        info = one.connect_volume(properties)
        kept = copy.deepcopy(info)
        one.extend_volume(properties)
        one.get_volume_paths(properties)
        one.disconnect_volume(properties, info)
        assert properties == before
        assert info == kept


def test_encrypted_volumes_give_a_link_of_the_library(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem().namespace()
    one = connector(fake_host)
    properties = volume.connection("uuid", encrypted=True)
    info = one.connect_volume(properties)
    assert info["path"] == "/dev/disk/by-id/os-brick+dev+nvme2n1"
    volume.grow(3 * 1024**3)
    assert one.extend_volume(properties | {"device_path": info["path"]}) == 3 * 1024**3
    one.disconnect_volume(properties | {"device_path": info["path"]}, None)
    assert fake_host.leftovers() == []


# -- properties ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "ids", [("uuid",), ("nguid",), ("nsid",), ("uuid", "nguid"), ("uuid", "nguid", "nsid"), ()]
)
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("foreign", [False, True])
def test_every_identifier_alone_and_none(
    fake_host: FakeHost, ids: tuple[str, ...], native: bool, foreign: bool
) -> None:
    fake_host.nvme.native_multipath = native
    volume = fake_host.nvme_subsystem(portals=2).namespace(7)
    one = connector(fake_host, foreign=foreign)
    properties = volume.connection(*ids)
    info = one.connect_volume(properties)
    fake_host.write(info["path"], b"data")
    one.disconnect_volume(json.loads(json.dumps(properties)), info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("ids", [("nguid",), ("nsid",), ()])
@pytest.mark.parametrize("transport", ["tcp", "rdma"])
def test_the_old_format(fake_host: FakeHost, ids: tuple[str, ...], transport: str) -> None:
    volume = fake_host.nvme_subsystem(transport=transport).namespace()
    one = connector(fake_host)
    info = one.connect_volume(volume.old_connection(*ids))
    assert option(connects(fake_host)[0], "-t") == transport
    # Nova keeps the path in the properties and gives nothing else back.
    one.disconnect_volume(volume.old_connection(*ids) | {"device_path": info["path"]}, None)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("spelling", [str.upper, lambda text: text.replace("-", ""), str])
@pytest.mark.parametrize("key", ["vol_uuid", "volume_nguid"])
def test_identifiers_in_any_spelling(fake_host: FakeHost, key: str, spelling: Any) -> None:
    """NV-02."""
    volume = fake_host.nvme_subsystem().namespace()
    properties = volume.connection("uuid", "nguid")
    properties = {**properties, key: spelling(properties[key])}
    assert connector(fake_host).connect_volume(properties)["path"] == "/dev/nvme2n1"


@pytest.mark.parametrize("number", [3, "3", " 3 "])
@pytest.mark.parametrize("port", [4420, "4420", "04420"])
def test_numbers_as_text_or_int(fake_host: FakeHost, number: Any, port: Any) -> None:
    """NV-03; ns_id of LVM volumes is text."""
    volume = fake_host.nvme_subsystem().namespace(3)
    properties = volume.connection("nsid", ns_id=number, portals=[("10.0.1.1", port, "tcp")])
    one = connector(fake_host)
    assert one.connect_volume(properties)["path"] == "/dev/nvme2n1"
    fake_host.forget()
    one.connect_volume(properties)
    assert connects(fake_host) == []


@pytest.mark.parametrize(
    ("said", "meant"),
    [("RoCEv2", "rdma"), ("rdma", "rdma"), ("RDMA", "rdma"), ("TCP", "tcp"), ("vendor", "tcp")],
)
def test_transports(fake_host: FakeHost, said: str, meant: str) -> None:
    volume = fake_host.nvme_subsystem(transport=meant).namespace()
    one = connector(fake_host)
    one.connect_volume(volume.connection("uuid", transport=said))
    assert option(connects(fake_host)[0], "-t") == meant
    fake_host.forget()
    one.connect_volume(volume.connection("uuid", transport=said))
    assert connects(fake_host) == []


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"target_nqn": ""}, "target_nqn"),
        ({"target_nqn": "-nqn"}, "target_nqn"),
        ({"target_nqn": 3}, "target_nqn"),
        ({"portals": []}, "portals"),
        ({"portals": None}, "portals"),
        ({"portals": [["10.0.1.1", 4420]]}, r"portals\[0\]"),
        ({"portals": ["10.0.1.1"]}, r"portals\[0\]"),
        ({"portals": [["10.0.1.1", 0, "tcp"]]}, "port number"),
        ({"portals": [["10.0.1.1", "x", "tcp"]]}, "port number"),
        ({"portals": [["a b", 4420, "tcp"]]}, "address"),
        ({"portals": [["10.0.1.1", 4420, None]]}, "transport"),
        ({"portals": [["10.0.1.1", "", "fc"]]}, "nn-0x"),
        ({"vol_uuid": "no uuid"}, "vol_uuid"),
        ({"volume_nguid": "12"}, "volume_nguid"),
        ({"ns_id": "one"}, "ns_id"),
        ({"ns_id": 0}, "ns_id"),
        ({"ns_id": True}, "ns_id"),
        ({"host_nqn": "two words"}, "host_nqn"),
        ({"volume_replicas": "x"}, "volume_replicas"),
        ({"volume_replicas": [3], "alias": "a"}, r"volume_replicas\[0\]"),
        ({"volume_replicas": [{}], "alias": "a"}, r"volume_replicas\[0\]\.target_nqn"),
        ({"volume_replicas": [{}], "alias": "../a"}, "alias"),
    ],
    ids=str,
)
def test_bad_properties_are_refused_by_name(
    fake_host: FakeHost, wrong: dict[str, Any], named: str
) -> None:
    properties = fake_host.nvme_subsystem().namespace().connection("uuid") | wrong
    one = connector(fake_host)
    with pytest.raises(exception.InvalidParameterValue, match=named):
        one.connect_volume(properties)
    assert fake_host.journal == []


@pytest.mark.parametrize("key", ["nqn", "target_portal", "target_port", "transport_type"])
def test_a_missing_key_of_the_old_format_is_named(fake_host: FakeHost, key: str) -> None:
    properties = fake_host.nvme_subsystem().namespace().old_connection()
    del properties[key]
    with pytest.raises(exception.BrickException, match=key):
        connector(fake_host).connect_volume(properties)


def test_a_malformed_uuid_is_a_value_error_too(fake_host: FakeHost) -> None:
    properties = fake_host.nvme_subsystem().namespace().connection(vol_uuid="x")
    with pytest.raises(ValueError, match="vol_uuid"):
        connector(fake_host).connect_volume(properties)


# -- the connect command -------------------------------------------------------------------
def test_the_command(fake_host: FakeHost) -> None:
    """NV-33."""
    volume = fake_host.nvme_subsystem(nqn="nqn.a").namespace()
    connector(fake_host).connect_volume(volume.properties)
    words = "nvme connect -a 10.0.1.1 -s 4420 -t tcp -n nqn.a -Q 128 -l -1"
    assert [" ".join(one) for one in connects(fake_host)] == [words]


def test_the_connections_host_nqn_comes_with_an_id_of_its_own(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem().namespace()
    other = fake_host.nvme_subsystem().namespace()
    one = connector(fake_host)
    one.connect_volume(other.properties)
    one.connect_volume(volume.connection("uuid", host_nqn="nqn.special"))
    command = connects(fake_host)[-1]
    assert option(command, "-q") == "nqn.special"
    assert option(command, "-I") not in (None, fake_host.nvme_identity.host_id)
    assert fake_host.nvme.controllers[-1].host_nqn == "nqn.special"
    # The same pair each time: the kernel holds it to that.
    one.disconnect_volume(volume.connection("uuid", host_nqn="nqn.special"), None)
    one.connect_volume(volume.connection("uuid", host_nqn="nqn.special"))
    assert option(connects(fake_host)[-1], "-I") == option(command, "-I")


def test_the_hosts_own_nqn_is_presented_with_its_own_id(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem().namespace()
    own = fake_host.nvme_identity.nqn
    connector(fake_host).connect_volume(volume.connection("uuid", host_nqn=own))
    assert option(connects(fake_host)[0], "-q") == own
    assert option(connects(fake_host)[0], "-I") is None


def test_an_nqn_with_a_uuid_takes_that_as_its_id(fake_host: FakeHost) -> None:
    mine = str(uuid.uuid4())
    volume = fake_host.nvme_subsystem().namespace()
    nqn = f"nqn.2014-08.org.nvmexpress:uuid:{mine}"
    connector(fake_host).connect_volume(volume.connection("uuid", host_nqn=nqn))
    assert option(connects(fake_host)[0], "-I") == mine


def test_a_missing_identity_is_made_before_the_connect(fake_host: FakeHost) -> None:
    fake_host.nvme_identity.files.clear()
    volume = fake_host.nvme_subsystem().namespace()
    connector(fake_host).connect_volume(volume.properties)
    assert fake_host.nvme.controllers[0].host_nqn == fake_host.nvme_identity.nqn
    assert fake_host.nvme_identity.host_id == fake_host.nvme_identity.system_uuid


def test_the_driver_is_loaded_once(fake_host: FakeHost) -> None:
    one = connector(fake_host)
    subsystem = fake_host.nvme_subsystem()
    one.connect_volume(subsystem.namespace().properties)
    one.connect_volume(subsystem.namespace().properties)
    assert [words for words in fake_host.started if words[0] == "modprobe"] == [
        ("modprobe", "nvme-tcp")
    ]


# -- controllers that are there ------------------------------------------------------------
def test_connected_portals_are_used_again_and_scanned(fake_host: FakeHost) -> None:
    """NV-32."""
    subsystem = fake_host.nvme_subsystem(portals=2, connected=True)
    subsystem.sends_events = False
    volume = subsystem.namespace()
    assert connector(fake_host).connect_volume(volume.properties)["path"] == "/dev/nvme2n1"
    assert connects(fake_host) == []
    assert kinds(fake_host).count("rescan_controller") == 2


def test_controllers_of_others_are_no_match(fake_host: FakeHost) -> None:
    """NV-12: another subsystem, portal, port, transport or host."""
    wanted = fake_host.nvme_subsystem(portals=["10.0.1.1"])
    volume = wanted.namespace()
    own = fake_host.nvme_identity.nqn
    wrongs: tuple[dict[str, Any], ...] = (
        {"nqn": "nqn.other", "portals": ["10.0.1.1"]},
        {"nqn": wanted.nqn, "portals": ["10.0.1.2"]},
        {"nqn": wanted.nqn, "portals": ["10.0.1.1"], "port": 4421},
        {"nqn": wanted.nqn, "portals": ["10.0.1.1"], "transport": "rdma"},
    )
    for wrong in wrongs:
        other = fake_host.nvme_subsystem(**wrong)
        fake_host.nvme.add(other, 0, own)
        fake_host.nvme.subsystems.remove(other)
    fake_host.nvme.add(wanted, 0, "nqn.other-host")
    fake_host.remember()
    one = connector(fake_host)
    info = one.connect_volume(volume.properties)
    assert len(connects(fake_host)) == 1
    one.disconnect_volume(volume.properties, info)
    assert len(fake_host.nvme.controllers) == 5


@pytest.mark.parametrize("suffix", [",src_addr=10.0.0.100", ",host_traddr=10.0.0.9,unknown=1", ""])
@pytest.mark.parametrize("tells", [False, True])
def test_addresses_of_any_kernel(fake_host: FakeHost, suffix: str, tells: bool) -> None:
    fake_host.nvme.address_suffix = suffix
    fake_host.nvme.tells_host = tells
    volume = fake_host.nvme_subsystem(connected=True).namespace()
    connector(fake_host).connect_volume(volume.properties)
    assert connects(fake_host) == []


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("2001:db8::1", "2001:DB8:0:0:0:0:0:1"),
        ("fe80::1", "FE80::1"),
        ("10.0.1.1", "::ffff:10.0.1.1"),
        ("10.0.1.1", "010.000.001.001"),
        ("2001:db8::1", "[2001:db8::1]"),
    ],
)
def test_addresses_are_compared_by_value(fake_host: FakeHost, shown: str, said: str) -> None:
    volume = fake_host.nvme_subsystem(portals=[shown], connected=True).namespace()
    properties = volume.connection("uuid", portals=[[said, 4420, "tcp"]])
    connector(fake_host).connect_volume(properties)
    assert connects(fake_host) == []


def test_portals_may_be_host_names(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem(portals=["10.0.1.2"]).namespace()
    fake_host.network.names["array.example"] = ["10.0.1.2"]
    properties = volume.connection(
        "uuid", portals=[["ARRAY.example", 4420, "tcp"], ["gone.example", 4420, "tcp"]]
    )
    one = connector(fake_host)
    info = one.connect_volume(properties)
    assert option(connects(fake_host)[0], "-a") == "10.0.1.2"
    one.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


def test_an_unreadable_address_leaves_that_controller_out(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    """NV-13."""
    other = fake_host.nvme_subsystem(nqn="nqn.a", portals=["10.0.1.9"], connected=True)
    volume = fake_host.nvme_subsystem(nqn="nqn.a").namespace()
    fake_host.faults.unreadable("sys/class/nvme-fabrics/ctl/nvme0/address")
    assert connector(fake_host).connect_volume(volume.properties)
    assert other.portals
    assert any(
        record.levelno == logging.ERROR and "nvme0" in record.getMessage()
        for record in caplog.records
    )


def test_controllers_without_a_port_do_not_disturb(fake_host: FakeHost) -> None:
    """NV-12: Fibre Channel and loop controllers of the same subsystem."""
    for transport in ("fc", "loop"):
        other = fake_host.nvme_subsystem(nqn="nqn.a", portals=["10.0.1.8"], transport=transport)
        fake_host.nvme.add(other, 0, fake_host.nvme_identity.nqn)
    volume = fake_host.nvme_subsystem(nqn="nqn.a").namespace()
    assert connector(fake_host).connect_volume(volume.properties)


@pytest.mark.parametrize("state", ["connecting", "new", "resetting"])
@pytest.mark.parametrize("delay", [10, 2, "off"])
def test_a_controller_in_trouble_is_waited_for(
    fake_host: FakeHost, state: str, delay: int | str
) -> None:
    """NV-35; ``reconnect_delay`` may be a word."""
    fake_host.nvme.reconnect_delay = delay
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace()
    there = fake_host.nvme.add(subsystem, 0, fake_host.nvme_identity.nqn, state=state)
    fake_host.after(11, lambda: fake_host.nvme.set_state(there, "live"))
    connector(fake_host).connect_volume(volume.properties)
    assert connects(fake_host) == []


def test_a_controller_that_does_not_come_back_is_left_alone(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace()
    fake_host.nvme.add(subsystem, 0, fake_host.nvme_identity.nqn, state="connecting")
    with pytest.raises(exception.VolumeDeviceNotFound, match="has not reconnected for 20 s"):
        connector(fake_host).connect_volume(volume.properties)
    assert controllers(fake_host) == ["nvme0"]
    assert connects(fake_host) == []


@pytest.mark.parametrize("state", ["deleting", "deleting (no IO)", "dead"])
def test_a_controller_that_goes_is_waited_for_and_made_anew(
    fake_host: FakeHost, state: str
) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace()
    there = fake_host.nvme.add(subsystem, 0, fake_host.nvme_identity.nqn, state=state)
    fake_host.after(2, lambda: fake_host.nvme.delete(there))
    connector(fake_host).connect_volume(volume.properties)
    assert controllers(fake_host) == ["nvme1"]


# -- somebody else connects too ------------------------------------------------------------
@pytest.mark.parametrize("version", VERSIONS)
def test_already_connected_is_no_failure(fake_host: FakeHost, version: tuple[int, int]) -> None:
    """NV-34: another program made the controller between the look and the connect."""
    fake_host.nvme_cli.version = version
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace()

    def race(address: str, port: int) -> None:
        if not fake_host.nvme.controllers:
            identity = fake_host.nvme_identity
            fake_host.nvme.add(subsystem, 0, identity.nqn, identity.host_id)

    # It is there when nvme connects, but was not when the library looked.
    fake_host.faults.slow("nvme", "connect", seconds=1)
    fake_host.after(0.5, lambda: race("", 0))
    one = connector(fake_host)
    assert one.connect_volume(volume.properties)["path"] == "/dev/nvme2n1"
    assert len(connects(fake_host)) == 1
    assert controllers(fake_host) == ["nvme0"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_failed_attach_leaves_the_controllers_of_others(
    fake_host: FakeHost, version: tuple[int, int]
) -> None:
    """NV-34, NV-39: what another made meanwhile is not this attach's to disconnect."""
    fake_host.nvme_cli.version = version
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace(mapped=False)
    fake_host.faults.slow("nvme", "connect", seconds=1)
    fake_host.after(0.5, lambda: fake_host.nvme.add(subsystem, 0, fake_host.nvme_identity.nqn))
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector(fake_host).connect_volume(volume.properties)
    assert controllers(fake_host) == ["nvme0"]


def test_a_live_controller_that_cannot_be_scanned_does_not_stop_the_others(
    fake_host: FakeHost,
) -> None:
    subsystem = fake_host.nvme_subsystem(portals=2)
    subsystem.sends_events = False
    identity = fake_host.nvme_identity
    fake_host.nvme.add(subsystem, 0, identity.nqn, identity.host_id)
    fake_host.pass_time(1)
    volume = subsystem.namespace()
    fake_host.faults.failing_writes["rescan_controller"] = 5
    assert connector(fake_host).connect_volume(volume.properties)["path"] == "/dev/nvme2n1"


def test_a_controller_that_others_take_away_is_made_again(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem(connected=True)
    subsystem.sends_events = False
    volume = subsystem.namespace(mapped=False)
    there = fake_host.nvme.controllers[0]
    fake_host.after(0.5, lambda: fake_host.nvme.delete(there))
    fake_host.after(0.6, volume.map)
    assert connector(fake_host).connect_volume(volume.properties)
    assert controllers(fake_host) == ["nvme1"]


# -- multipath policy ----------------------------------------------------------------------
def test_enforced_multipath_needs_native_multipath(fake_host: FakeHost) -> None:
    """NV-31."""
    fake_host.nvme.native_multipath = False
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    with pytest.raises(exception.BrickException, match="Multipathing is enforced"):
        connector(fake_host).connect_volume(volume.connection("uuid", enforce_multipath=True))
    assert connects(fake_host) == []


def test_multipath_that_is_wanted_but_missing_is_a_warning(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    fake_host.nvme.native_multipath = False
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    connector(fake_host).connect_volume(volume.properties)
    assert "doesn't support multipathing" in caplog.text
    assert len(fake_host.nvme.controllers) == 1


def test_a_driver_that_is_loaded_later_is_noticed(fake_host: FakeHost) -> None:
    """Native multipath is asked of the kernel when it matters."""
    one = connector(fake_host)
    assert one.supports_multipath() is False
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    one.connect_volume(volume.connection("uuid", enforce_multipath=True))
    assert one.supports_multipath() is True
    assert len(fake_host.nvme.controllers) == 2
    assert type(one).native_multipath_supported is None


def test_without_multipath_a_live_controller_is_taken_first(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem(portals=3)
    identity = fake_host.nvme_identity
    fake_host.nvme.add(subsystem, 2, identity.nqn, identity.host_id)
    volume = subsystem.namespace()
    connector(fake_host, use_multipath=False).connect_volume(volume.properties)
    assert connects(fake_host) == []


# -- portals in trouble --------------------------------------------------------------------
@pytest.mark.parametrize("trouble", ["silent", "refuse", "kill", "hang"])
@BOTH
def test_a_portal_in_trouble_does_not_keep_the_others(
    fake_host: FakeHost, trouble: str, multipath: bool, caplog: pytest.LogCaptureFixture
) -> None:
    subsystem = fake_host.nvme_subsystem(portals=2)
    volume = subsystem.namespace()
    getattr(subsystem.portals[0], trouble)()
    one = connector(fake_host, use_multipath=multipath)
    info = one.connect_volume(volume.properties)
    assert info["path"] == "/dev/nvme2n1"
    if multipath and trouble != "hang":
        assert "10.0.1.1" in caplog.text
    subsystem.portals[0].restore()
    fake_host.pass_time(200)
    one.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_a_silent_portal_is_not_connected_while_another_answers(fake_host: FakeHost) -> None:
    """The kernel makes one controller at a time, so a silent one would hold up everybody's."""
    subsystem = fake_host.nvme_subsystem(portals=2)
    volume = subsystem.namespace()
    subsystem.portals[1].silent()
    began = fake_host.now
    connector(fake_host).connect_volume(volume.properties)
    took = fake_host.now - began
    fake_host.pass_time(60)
    assert took < 1
    assert [option(one, "-a") for one in connects(fake_host)] == ["10.0.1.1"]


def test_portals_that_do_not_answer_us_may_answer_nvme_cli(fake_host: FakeHost) -> None:
    """A supplied execute function may lead into another network namespace."""
    subsystem = fake_host.nvme_subsystem(portals=2)
    volume = subsystem.namespace()
    for portal in subsystem.portals:
        portal.silent()
        fake_host.after(5.5, portal.restore)
    assert connector(fake_host, foreign=True).connect_volume(volume.properties)


@BOTH
def test_all_portals_down_is_an_error_that_names_them(fake_host: FakeHost, multipath: bool) -> None:
    """NV-36, NV-39."""
    subsystem = fake_host.nvme_subsystem(portals=2)
    volume = subsystem.namespace()
    for portal in subsystem.portals:
        portal.refuse()
    with pytest.raises(exception.VolumeDeviceNotFound) as caught:
        connector(fake_host, use_multipath=multipath).connect_volume(volume.properties)
    assert subsystem.nqn in str(caught.value)
    assert "10.0.1.1" in str(caught.value)
    assert "10.0.1.2" in str(caught.value)
    assert caught.value.timeline is not None
    assert fake_host.leftovers() == []


def test_a_late_path_joins_what_is_still_attached(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    fake_host.faults.slow("nvme", "connect", "10.0.1.2", seconds=20)
    one = connector(fake_host)
    info = one.connect_volume(volume.properties)
    assert len(fake_host.nvme.controllers) == 1
    fake_host.pass_time(40)
    assert len(fake_host.nvme.controllers) == 2
    one.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_a_late_path_of_a_detached_volume_is_disconnected(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    fake_host.faults.slow("nvme", "connect", "10.0.1.2", seconds=20)
    one = connector(fake_host)
    info = one.connect_volume(volume.properties)
    one.disconnect_volume(volume.properties, info)
    fake_host.pass_time(60)
    assert fake_host.leftovers() == []


def test_a_connect_that_hangs_is_given_up(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    fake_host.faults.hang("nvme", "connect", "10.0.1.2")
    one = connector(fake_host)
    began = fake_host.now
    info = one.connect_volume(volume.properties)
    assert fake_host.now - began < 5
    fake_host.pass_time(300)
    one.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("portals", [1, 2])
def test_what_the_kernel_makes_of_a_stopped_connect_is_ended(
    fake_host: FakeHost, portals: int
) -> None:
    volume = fake_host.nvme_subsystem(portals=portals).namespace()
    fake_host.remember()
    fake_host.nvme.connect_s = 100
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector(fake_host).connect_volume(volume.properties)
    fake_host.pass_time(200)
    assert fake_host.leftovers() == []


# -- finding the namespace -----------------------------------------------------------------
def test_each_of_several_namespaces_is_told_apart(fake_host: FakeHost) -> None:
    """NV-20: swapped numbers, a shared subsystem of three."""
    subsystem = fake_host.nvme_subsystem(portals=2)
    third, first, second = (subsystem.namespace(nsid) for nsid in (3, 1, 2))
    one = connector(fake_host)
    paths = [one.connect_volume(volume.properties)["path"] for volume in (second, third, first)]
    assert len(set(paths)) == 3
    for path, volume in zip(paths, (second, third, first), strict=True):
        assert fake_host.device(path).storage()[1] is volume.unit


def test_a_number_means_nothing_in_another_subsystem(fake_host: FakeHost) -> None:
    other = fake_host.nvme_subsystem().namespace(5)
    volume = fake_host.nvme_subsystem().namespace(5)
    one = connector(fake_host)
    one.connect_volume(other.connection("nsid"))
    path = one.connect_volume(volume.connection("nsid"))["path"]
    assert fake_host.device(path).storage()[1] is volume.unit


@pytest.mark.parametrize("key", ["vol_uuid", "volume_nguid", "ns_id"])
def test_a_namespace_that_contradicts_any_identifier_is_not_taken(
    fake_host: FakeHost, key: str
) -> None:
    volume = fake_host.nvme_subsystem().namespace(4)
    wrong = 5 if key == "ns_id" else str(uuid.uuid4())
    properties = volume.connection("uuid", "nguid", "nsid") | {key: wrong}
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector(fake_host).connect_volume(properties)
    # The namespace is somebody's: a controller that shows it is not taken from him.
    assert controllers(fake_host) == ["nvme0"]


def test_another_identifier_counts_where_the_first_is_not_told(fake_host: FakeHost) -> None:
    """A UUID is wanted, but the namespace has an NGUID only."""
    volume = fake_host.nvme_subsystem().namespace(4, with_uuid=False)
    wanted = {"vol_uuid": str(uuid.uuid4())}
    one = connector(fake_host)
    assert one.connect_volume(volume.connection("nguid") | wanted)
    assert one.connect_volume(volume.connection("nsid") | wanted)
    # The kernel shows the NGUID as uuid, and drivers call it that.
    assert one.connect_volume(volume.connection() | {"vol_uuid": volume.unit.nguid})


def test_a_namespace_with_no_identifier_at_all_is_found_by_number(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem().namespace(4, with_uuid=False, with_nguid=False)
    one = connector(fake_host)
    info = one.connect_volume(volume.connection("nsid"))
    one.disconnect_volume(volume.connection("nsid"), info)
    assert fake_host.leftovers() == []


def test_without_an_identifier_several_namespaces_are_too_many(fake_host: FakeHost) -> None:
    """NV-21."""
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace()
    subsystem.namespace()
    with pytest.raises(exception.VolumeDeviceNotFound, match="Too many different volumes"):
        connector(fake_host).connect_volume(volume.connection())
    assert len(fake_host.nvme.controllers) == 1  # others' namespaces are on it


def test_without_an_identifier_the_subsystem_is_asked_how_many_it_has(fake_host: FakeHost) -> None:
    """The kernel may show one of two: the wanted one may be the other."""
    subsystem = fake_host.nvme_subsystem(connected=True)
    subsystem.namespace()
    fake_host.pass_time(1)
    subsystem.sends_events = False
    volume = subsystem.namespace()
    fake_host.faults.failing_writes["rescan_controller"] = 5
    with pytest.raises(exception.VolumeDeviceNotFound, match="Too many different volumes"):
        connector(fake_host).connect_volume(volume.connection())


def test_without_an_identifier_a_second_attach_gives_the_same(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    one = connector(fake_host)
    first = one.connect_volume(volume.connection())
    assert one.connect_volume(volume.connection()) == first


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("ids", [("uuid",), ("nsid",)])
def test_a_stale_namespace_is_never_taken(
    fake_host: FakeHost, ids: tuple[str, ...], foreign: bool
) -> None:
    """The subsystem gave the number to another volume and did not tell: sysfs shows the old one."""
    subsystem = fake_host.nvme_subsystem(portals=2, connected=True)
    old = subsystem.namespace(1)
    fake_host.pass_time(1)
    subsystem.sends_events = False
    new = old.remap()
    one = connector(fake_host, foreign=foreign)
    path = one.connect_volume(new.connection(*ids))["path"]
    assert fake_host.device(path).storage()[1] is new.unit


def test_a_volume_whose_number_another_has_now_is_not_found(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem(connected=True)
    old = subsystem.namespace(1)
    fake_host.pass_time(1)
    subsystem.sends_events = False
    old.remap()
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector(fake_host).connect_volume(old.properties)


def test_a_namespace_that_comes_late_is_waited_for(fake_host: FakeHost) -> None:
    """NV-37 (bug 1792313)."""
    subsystem = fake_host.nvme_subsystem(connected=True)
    subsystem.sends_events = False
    volume = subsystem.namespace(mapped=False)
    fake_host.after(6, volume.map)
    assert connector(fake_host).connect_volume(volume.properties)


@pytest.mark.parametrize(("attempts", "found"), [(1, False), (5, True)])
def test_device_scan_attempts_are_honoured(fake_host: FakeHost, attempts: int, found: bool) -> None:
    subsystem = fake_host.nvme_subsystem(connected=True)
    subsystem.sends_events = False
    volume = subsystem.namespace(mapped=False)
    fake_host.after(5, volume.map)
    one = connector(fake_host, device_scan_attempts=attempts)
    if found:
        assert one.connect_volume(volume.properties)
    else:
        with pytest.raises(exception.VolumeDeviceNotFound):
            one.connect_volume(volume.properties)


def test_a_namespace_of_no_size_is_not_handed_out(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem().namespace(size=0)
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector(fake_host).connect_volume(volume.properties)
    assert fake_host.leftovers() == []


def test_a_namespace_that_cannot_be_read_is_not_handed_out(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace()
    fake_host.faults.slow("nvme", "connect", seconds=1)
    subsystem.ana = {}
    real = fake_host.nvme.scan

    def scan_and_forbid(one: Any) -> None:
        real(one)
        subsystem.ana = {(0, 1): INACCESSIBLE}  # without the kernel knowing it

    fake_host.nvme.scan = scan_and_forbid  # type: ignore[method-assign]
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector(fake_host).connect_volume(volume.properties)
    assert fake_host.leftovers() == []


# -- ANA -----------------------------------------------------------------------------------
def test_an_inaccessible_path_is_no_path(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem(portals=2)
    volume = subsystem.namespace()
    subsystem.ana = {(0, 1): INACCESSIBLE}
    assert connector(fake_host).connect_volume(volume.properties)["path"] == "/dev/nvme2n1"


def test_ana_that_changes_is_waited_for(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace()
    subsystem.ana = {(0, 1): INACCESSIBLE}
    fake_host.after(8, lambda: subsystem.set_ana(0, 1, "non-optimized"))
    assert connector(fake_host).connect_volume(volume.properties)


def test_no_accessible_path_is_an_error_that_tells_states(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace()
    subsystem.ana = {(0, 1): INACCESSIBLE}
    with pytest.raises(exception.VolumeDeviceNotFound, match="inaccessible"):
        connector(fake_host).connect_volume(volume.properties)
    assert fake_host.leftovers() == []


# -- Fibre Channel -------------------------------------------------------------------------
def test_fibre_channel_connects_from_each_port_that_sees_the_portal(fake_host: FakeHost) -> None:
    hbas = fake_host.fc_hbas(2)
    array = fake_host.fc_array(["50060e8000000001"])
    assert array.ports
    address = "nn-0x50060e8000000000:pn-0x50060e8000000001"
    portals = [[address.upper(), "", "FC"]]
    properties = {"target_nqn": "nqn.fc", "portals": portals, "ns_id": 1}
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector(fake_host).connect_volume(properties)
    said = {
        (option(one, "-a"), option(one, "-w"), option(one, "-s")) for one in connects(fake_host)
    }
    here = {f"nn-0x{hba.wwnn}:pn-0x{hba.wwpn}" for hba in hbas}
    assert said == {(address, one, None) for one in here}


# -- many at once --------------------------------------------------------------------------
def test_volumes_side_by_side(fake_host: FakeHost) -> None:
    shared = fake_host.nvme_subsystem(portals=2)
    volumes = [shared.namespace() for _ in range(4)]
    volumes += [fake_host.nvme_subsystem(portals=2).namespace() for _ in range(4)]
    one = connector(fake_host)
    results = side_by_side(
        fake_host,
        *(lambda volume=volume: one.connect_volume(volume.properties) for volume in volumes),
    )
    paths = [result["path"] for result in results]
    assert len(set(paths)) == 8
    assert len(fake_host.nvme.controllers) == 2 + 8
    results = side_by_side(
        fake_host,
        *(
            lambda volume=volume, info=info: one.disconnect_volume(volume.properties, info)
            for volume, info in zip(volumes, results, strict=True)
        ),
    )
    assert results == [None] * 8
    # The last of the shared subsystem may have seen others on their way: see NV-45.
    assert all(one.subsystem is shared for one in fake_host.nvme.controllers)
