# SPDX-License-Identifier: Apache-2.0
"""The helper classes of NVMe-oF that others know."""

from __future__ import annotations

import os
from typing import Any

import pytest

from os_brick import exception
from os_brick.initiator import nvmeof_targets
from os_brick.initiator.connectors import nvmeof
from os_brick.initiator.nvmeof_targets import NVMeOFConnProps, Portal, Target
from os_brick.testing import FakeHost


@pytest.fixture
def host(fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A host whose sysfs the classes read."""
    sysfs = fake_host.host.sysfs
    fake_host.nvme.load()
    monkeypatch.setattr(
        nvmeof_targets, "NVME_CTRL_SYSFS_PATH", sysfs.path("class/nvme-fabrics/ctl/")
    )
    monkeypatch.setattr(nvmeof_targets, "BLK_SYSFS_PATH", sysfs.path("class/block/"))
    return fake_host


def properties(host: FakeHost, volume: Any, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = volume.connection("uuid", host_nqn=host.nvme_identity.nqn, **more)
    return found


def test_names_are_where_they_are_looked_for() -> None:
    assert nvmeof.Portal is Portal
    assert nvmeof.nvme_basename("/sys/class/x/nvme0c1n2") == "nvme0n2"
    assert nvmeof.DEVICE_SCAN_ATTEMPTS_DEFAULT == 5


def test_properties_of_sysfs(host: FakeHost) -> None:
    host.nvme_subsystem(nqn="nqn.a", connected=True).namespace(3)
    host.pass_time(1)
    assert nvmeof_targets.ctrl_property("subsysnqn", "nvme0") == "nqn.a"
    assert nvmeof_targets.ctrl_property("subsysnqn", "nvme9") is None
    assert nvmeof_targets.blk_property("nsid", "nvme2n1") == "3"


def test_portals_and_devices(host: FakeHost) -> None:
    subsystem = host.nvme_subsystem(portals=2, connected=True)
    volume = subsystem.namespace()
    host.pass_time(1)
    subsystem.portals[1].kill()
    target = NVMeOFConnProps(properties(host, volume), find_controllers=True).targets[0]
    first, second = target.portals
    assert (first.controller, first.state, first.is_live) == ("nvme0", "live", True)
    assert (second.controller, second.state) == ("nvme1", Portal.CONNECTING)
    assert target.live_portals == [first]
    assert target.present_portals == [first, second]
    assert target.get_devices() == ["/dev/nvme2n1"]
    assert target.get_devices(only_live=True, get_one=True) == ["/dev/nvme2n1"]
    assert target.find_device() == "/dev/nvme2n1"
    assert first.get_device() == "/dev/nvme2n1"
    assert first.get_device_by_property("nsid", 1) == "/dev/nvme2n1"
    assert first.get_device_by_property("nsid", 2) is None
    assert [os.path.basename(path) for path in first.get_all_namespaces_ctrl_paths()] == [
        "nvme2c0n1"
    ]
    assert first.can_disconnect()
    subsystem.namespace()
    host.pass_time(1)
    assert not first.can_disconnect()


@pytest.mark.parametrize(("told", "expected"), [(3, 3), ("off", 10)])
def test_reconnect_delays(host: FakeHost, told: Any, expected: int) -> None:
    host.nvme.reconnect_delay = told
    volume = host.nvme_subsystem(connected=True).namespace()
    target = NVMeOFConnProps(properties(host, volume), find_controllers=True).targets[0]
    assert target.portals[0].reconnect_delay == expected


def test_a_portal_without_a_controller(host: FakeHost) -> None:
    volume = host.nvme_subsystem().namespace()
    target = NVMeOFConnProps(properties(host, volume)).targets[0]
    portal = target.portals[0]
    assert portal.state is Portal.MISSING
    assert portal.controller is None
    assert portal.get_device() is None
    assert not portal.can_disconnect()
    assert target.get_devices() == []
    assert "10.0.1.1" in repr(portal)


def test_new_devices_without_an_identifier(host: FakeHost) -> None:
    """NV-21."""
    subsystem = host.nvme_subsystem(connected=True)
    subsystem.namespace()
    host.pass_time(1)
    portals = [("10.0.1.1", "4420", "tcp")]
    target = Target(None, subsystem.nqn, portals, host_nqn=host.nvme_identity.nqn)
    target.set_portals_controllers()
    assert target.devices_on_start == ["/dev/nvme2n1"]
    assert target.get_device_path_by_initial_devices() is None
    subsystem.namespace()
    host.pass_time(1)
    assert target.get_device_path_by_initial_devices() == "/dev/nvme2n2"
    subsystem.namespace()
    host.pass_time(1)
    assert target.get_device_path_by_initial_devices() is None


def test_factory_takes_the_keys_of_a_dictionary() -> None:
    target = Target.factory(
        None, target_nqn="nqn.a", portals=[("h", 1, "RoCEv2")], ns_id="7", unknown=1
    )
    assert (target.nqn, target.ns_id, target.ids.nsid) == ("nqn.a", "7", 7)
    assert (target.portals[0].port, target.portals[0].transport) == ("1", "rdma")
    with pytest.raises(ValueError, match="badly formed"):
        Target(None, "nqn.a", [], uuid="x")


def test_generic_keys() -> None:
    """Chapter 2.4."""
    replica = {"target_nqn": "nqn.a", "portals": [["h", 1, "tcp"]], "vol_uuid": "1" * 32}
    found = NVMeOFConnProps(
        {
            "volume_replicas": [replica],
            "replica_count": 1,
            "alias": "vol",
            "vol_uuid": "cinder's",
            "access_mode": "ro",
            "qos_specs": {"a": 1},
            "discard": True,
            "device_path": "/dev/x",
        }
    )
    assert (found.is_replicated, found.replica_count, found.alias) == (None, 1, "vol")
    assert (found.readonly, found.discard, found.device_path) == (True, True, "/dev/x")
    assert found.cinder_volume_id == "cinder's"
    assert found.md_path == "/dev/md/vol"
    assert found.get_devices() == []
    with pytest.raises(exception.BrickException, match="alias missing"):
        NVMeOFConnProps({"volume_replicas": [replica]})


def test_a_decorated_method_gets_an_object() -> None:
    class Some:
        @NVMeOFConnProps.from_dictionary_parameter
        def method(self, props: Any, more: int) -> Any:
            return props, more

    given = {"target_nqn": "nqn.a", "portals": [["h", 1, "tcp"]]}
    found, more = Some().method(given, 3)
    assert isinstance(found, NVMeOFConnProps)
    assert more == 3
    assert Some().method(found, 4) == (found, 4)


# -- the connector's own helpers -----------------------------------------------------------
def test_run_nvme_cli(fake_host: FakeHost) -> None:
    """PowerMax asks a portal what it knows."""
    one = fake_host.connector("NVMEOF")
    command = ["discover", "-t", "tcp", "-a", "10.0.1.1", "-s", "4420", "-o", "json"]
    out, err = one.run_nvme_cli(command)
    assert "records" in out
    assert err == ""


def test_rescan(fake_host: FakeHost) -> None:
    fake_host.nvme_subsystem(connected=True)
    one = fake_host.connector("NVMEOF")
    one.rescan("nvme0")
    assert fake_host.started[-1] == ("nvme", "ns-rescan", "/dev/nvme0")
    with pytest.raises(exception.CommandExecutionFailed, match="ns-rescan /dev/nvme9"):
        one.rescan("nvme9")


def test_links(tmp_path: Any) -> None:
    link = tmp_path / "link"
    link.symlink_to("somewhere")
    assert nvmeof.NVMeOFConnector.ks_readlink(str(link)) == "somewhere"
    assert nvmeof.NVMeOFConnector.ks_readlink(str(tmp_path)) == ""
    assert nvmeof.NVMeOFConnector.get_md_name("no such disk") is None
