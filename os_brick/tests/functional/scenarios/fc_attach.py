# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel volumes come, are used, grow and go: what happens on every ordinary day."""

from __future__ import annotations

import os
import threading
from typing import Any

from os_brick import exception

from ..guest import data, fc, host_state, kernel, programs, service, udev
from ..guest.daemons import MultipathConfig
from ..guest.lab import MIB, Lab, fails_with
from ..targets import lio, tcm_fc
from . import SMOKE_S, scenario
from .iscsi_attach import all_paths_join, attach, detach

#: multipathd leaves a volume with one path alone.
STRICT = MultipathConfig(find_multipaths="strict")
ONE_TARGET, ONE_INITIATOR = tcm_fc.TARGETS[:1], tcm_fc.INITIATORS[:1]
#: Programs that may be started for a map at an attach, and for a disk or a map at a detach.
MAP, WRITE_OUT, MAP_GONE = 2, 1, 3


def kernel_name(info: dict[str, Any]) -> str:
    """Return the kernel name of the device that was handed out."""
    return str(os.path.basename(os.path.realpath(info["path"])))


@scenario("by hand: two HBAs, two targets, a map, data on the array, nothing left", limit_s=300)
def fc_by_hand(lab: Lab) -> None:
    """The fabric and the array prove themselves, without the library."""
    volume = fc.volume(lab)
    with programs.counted() as started, lab.timed("attach"):
        attached = fc.attach_by_hand(1, volume.wwid)
    assert len(started) == 1, [str(each) for each in started]
    lab.check_data(attached.path, volume)
    with lab.timed("detach"):
        fc.detach_by_hand(attached)


@scenario(
    "single path: no program for the attach, data on the array, nothing left",
    multipath=STRICT,
    limit_s=300,
)
def fc_single_path(lab: Lab) -> None:
    """One HBA, one target port, one disk, handed out by its link."""
    volume = fc.volume(lab)
    host = lab.service("FIBRE_CHANNEL")
    given = fc.properties(targets=ONE_TARGET, initiators=ONE_INITIATOR)
    with programs.counted() as started, lab.timed("attach"):
        info = host.attach(given)
    assert info["type"] == "block", info
    assert info["scsi_wwn"] == volume.wwid, info
    assert "multipath_id" not in info, info
    wwpn = ONE_TARGET[0].wwpn
    assert info["path"].startswith("/dev/disk/by-path/pci-0000:"), info
    assert info["path"].endswith(f"-fc-0x{wwpn}-lun-1"), info
    assert host_state.disks() == [kernel_name(info)], host_state.disks()
    assert not started, [str(each) for each in started]
    lab.check_data(info["path"], volume)
    udev.settle()
    assert host.paths(given) == [info["path"]], host.paths(given)
    with programs.counted() as started, lab.timed("detach"):
        host.detach(given, info)
    assert len(started) <= WRITE_OUT, [str(each) for each in started]


@scenario(
    "two HBAs and two targets: one map of four paths, data on the array, nothing left",
    limit_s=SMOKE_S,
    groups=["smoke"],
)
def fc_two_hbas_two_targets(lab: Lab) -> None:
    """Exactly the four paths of the zones come, and few programs are started."""
    volume = fc.volume(lab)
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    given = fc.properties()
    with programs.counted() as started, lab.timed("attach"):
        info = host.attach(given)
    dm = host_state.map_of(volume.wwid)
    # udev makes the two links one after the other.
    links = (f"/dev/disk/by-id/dm-uuid-mpath-{volume.wwid}", f"/dev/mapper/{volume.wwid}")
    assert info["path"] in links, info
    assert kernel_name(info) == dm, info
    assert info["multipath_id"] == info["scsi_wwn"] == volume.wwid, info
    assert len(started) <= MAP, [str(each) for each in started]
    all_paths_join(volume, 4)
    assert len(host_state.disks()) == 4, host_state.disks()
    lab.check_data(info["path"], volume)
    with programs.counted() as started, lab.timed("detach"):
        host.detach(given, info)
    assert len(started) <= MAP_GONE, [str(each) for each in started]


@scenario("each HBA zoned to one target: two paths, the others never scanned", limit_s=300)
def fc_zones(lab: Lab) -> None:
    """The map of initiators says which port of the host is for which target."""
    volume = fc.volume(lab)
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    pairs = zip(tcm_fc.INITIATORS, tcm_fc.TARGETS, strict=True)
    given = fc.properties(initiator_target_map={one.wwpn: [other.wwpn] for one, other in pairs})
    info = attach(lab, host, given)
    all_paths_join(volume, 2)
    assert len(host_state.disks()) == 2, host_state.disks()
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)


@scenario(
    "one path under find_multipaths strict still gets its map, with friendly names",
    multipath=MultipathConfig(find_multipaths="strict", user_friendly_names="yes"),
    limit_s=300,
)
def fc_strict_one_path(lab: Lab) -> None:
    """A map is preferred even with one path: more may come."""
    volume = fc.volume(lab)
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    given = fc.properties(targets=ONE_TARGET, initiators=ONE_INITIATOR)
    info = attach(lab, host, given)
    dm = host_state.map_of(volume.wwid)
    assert kernel_name(info) == dm, info
    assert kernel.read(f"/sys/block/{dm}/dm/name").startswith("mpath")
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)


@scenario("two LUNs: one is attached, used and detached while the other is in use", limit_s=300)
def fc_two_luns(lab: Lab) -> None:
    """Nothing but the LUN that was asked for comes and goes."""
    first, second = fc.volume(lab, 1), fc.volume(lab, 2)
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    one, two = fc.properties(1), fc.properties(2)
    one_info = attach(lab, host, one)
    assert not host_state.disks(second.wwid), "the other LUN was scanned too"
    with lab.timed("second attach"):
        two_info = host.attach(two)
    lab.check_data(one_info["path"], first)
    lab.check_data(two_info["path"], second)
    detach(lab, host, one, one_info)
    assert not host_state.disks(first.wwid)
    lab.check_data(two_info["path"], second)
    with lab.timed("second detach"):
        host.detach(two, two_info)


@scenario("the LUN goes to another volume right after the detach", limit_s=300)
def fc_lun_reused(lab: Lab) -> None:
    """Nothing of the first volume is in the way of the second."""
    old = fc.volume(lab)
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    given = fc.properties()
    info = attach(lab, host, given)
    lab.check_data(info["path"], old)
    detach(lab, host, given, info)
    tcm_fc.unmap(1)
    new = fc.volume(lab)
    info = attach(lab, host, given)
    assert info["scsi_wwn"] == new.wwid, info
    lab.check_data(info["path"], new)
    detach(lab, host, given, info)


@scenario(
    "LUN given to another volume under stale disks, single path", limit_s=300, multipath=STRICT
)
def fc_lun_remapped_single_path(lab: Lab) -> None:
    """A stale disk is never handed out."""
    _remapped(lab, multipath=False)


@scenario("LUN given to another volume under stale disks, four paths", limit_s=300)
def fc_lun_remapped(lab: Lab) -> None:
    """Nor is the map of the old volume, nor a disk of it."""
    _remapped(lab, multipath=True)


@scenario("extend, single path", multipath=STRICT, limit_s=300)
def fc_extend_single_path(lab: Lab) -> None:
    """The disk has the new size when the call returns."""
    _extend(lab, multipath=False)


@scenario("extend, four paths", limit_s=300)
def fc_extend(lab: Lab) -> None:
    """All paths and the map have the new size when the call returns."""
    _extend(lab, multipath=True)


@scenario("the same volume twice, one after the other and at once; detached twice", limit_s=300)
def fc_same_volume_twice(lab: Lab) -> None:
    """Attach is idempotent, and so is detach."""
    volume = fc.volume(lab)
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    given = fc.properties()
    info = attach(lab, host, given)
    with lab.timed("again"):
        assert host.attach(given) == info
    detach(lab, host, given, info)
    with programs.counted() as started, lab.timed("detach again"):
        host.detach(given, info)
    assert not started, [str(each) for each in started]
    with lab.timed("twice at once"):
        both = lab.side_by_side([lambda: host.attach(given), lambda: host.attach(given)])
    assert both[0] == both[1] == info, both
    all_paths_join(volume, 4)
    lab.check_data(info["path"], volume)
    with lab.timed("detached twice at once"):
        lab.side_by_side([lambda: host.detach(given, info), lambda: host.detach(given, info)])


@scenario("attached with multipath, detached by a service that has it off", limit_s=300)
def fc_detach_with_other_setting(lab: Lab) -> None:
    """What is there decides, not what is configured now, nor what the caller says was used."""
    volume = fc.volume(lab)
    given = fc.properties()
    told: tuple[dict[str, Any] | None, ...] = (None, {}, given)
    for device_info in told:
        info = attach(lab, lab.service("FIBRE_CHANNEL", multipath=True), given)
        lab.check_data(info["path"], volume)
        detach(lab, lab.service("FIBRE_CHANNEL"), given, device_info)
        assert not host_state.disks(), host_state.disks()


@scenario("LUN numbers above 255, and LUNs as text", limit_s=300)
def fc_high_lun(lab: Lab) -> None:
    """The kernel's number of a LUN is found and removed."""
    volume = fc.volume(lab, 300)
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    given = fc.properties(300, target_lun="300")
    info = attach(lab, host, given)
    lab.check_data(info["path"], volume)
    udev.settle()
    assert all("lun-0x012c000000000000" in path for path in host.paths(given)), host.paths(given)
    detach(lab, host, given, info)


@scenario("LUN mapped six seconds after the attach began", multipath=STRICT, limit_s=300)
def fc_lun_late(lab: Lab) -> None:
    """The array is slow."""
    volume = fc.volume(lab)
    tcm_fc.unmap(1)
    later = threading.Timer(6, lambda: tcm_fc.map_volume(1, volume))
    later.start()
    host = lab.service("FIBRE_CHANNEL")
    info = attach(lab, host, fc.properties())
    later.join()
    lab.check_data(info["path"], volume)
    detach(lab, host, fc.properties(), info)


@scenario("LUN never mapped: an error that names the ports, nothing left", limit_s=300)
def fc_lun_never(lab: Lab) -> None:
    """What was there is there."""
    volume = fc.volume(lab)
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    info = attach(lab, host, fc.properties())
    all_paths_join(volume, 4)
    with (
        lab.timed("attach of nothing"),
        fails_with(exception.NoFibreChannelVolumeDeviceFound) as caught,
    ):
        host.attach(fc.properties(2))
    assert all(port.wwpn in str(caught[0]) for port in tcm_fc.TARGETS), caught[0]
    assert len(host_state.disks()) == 4, host_state.disks()
    lab.check_data(info["path"], volume)
    detach(lab, host, fc.properties(), info)


@scenario("unknown target port, wildcard forbidden: an error, nothing scanned", limit_s=300)
def fc_unknown_target(lab: Lab) -> None:
    """A wildcard would bring in other volumes that have the LUN's number."""
    other = fc.volume(lab)
    given = fc.properties(enable_wildcard_scan=False, initiator_target_map=None)
    given["target_wwn"] = ["50060e8010191234"]
    with fails_with(exception.NoFibreChannelVolumeDeviceFound) as caught:
        lab.service("FIBRE_CHANNEL").attach(given)
    assert "50060e8010191234" in str(caught[0]), caught[0]
    assert not host_state.disks(other.wwid), "another volume was scanned"


@scenario(
    "encrypted: the path is a link of the library's own, and goes with the volume", limit_s=300
)
def fc_encrypted_link(lab: Lab) -> None:
    """An encryptor replaces the path it is given."""
    volume = fc.volume(lab)
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    given = fc.properties(encrypted=True)
    info = attach(lab, host, given)
    assert info["path"].startswith("/dev/disk/by-id/os-brick"), info
    assert kernel_name(info) == host_state.map_of(volume.wwid), info
    lab.check_data(info["path"], volume)
    with lab.timed("detach"):
        host.detach(given | {"device_path": info["path"]}, info)
    assert not os.path.lexists(info["path"])


@scenario("what the host tells the storage about itself", limit_s=300)
def fc_host_properties(lab: Lab) -> None:
    """The names of its connected ports; and nothing is started to learn them."""
    tcm_fc.up()
    service.host_properties()
    with programs.counted() as started, lab.timed("again"):
        told = service.host_properties()
    ports = (*tcm_fc.INITIATORS, *tcm_fc.TARGETS)
    assert sorted(told["wwpns"]) == [port.wwpn for port in ports], told
    assert len(told["wwnns"]) == 4, told
    assert not started, [str(each) for each in started]


def _remapped(lab: Lab, *, multipath: bool) -> None:
    old = fc.volume(lab)
    old.write(0, b"OLD" * 4096)
    host = lab.service("FIBRE_CHANNEL", multipath=multipath)
    given = fc.properties()
    before = attach(lab, host, given)
    if multipath:
        all_paths_join(old, 4)
    assert data.read(before["path"], 4096).startswith(b"OLD")
    # The host was never told: its disks stay, and the array gives the number to another volume.
    tcm_fc.unmap(1)
    new = fc.volume(lab)
    new.write(0, b"NEW" * 4096)
    info = attach(lab, host, given)
    assert info["scsi_wwn"] == new.wwid, info
    assert data.read(info["path"], 4096).startswith(b"NEW"), "the old volume was handed out"
    lab.check_data(info["path"], new)
    assert not host_state.disks(old.wwid), "stale disks are left"
    detach(lab, host, given, info)


def _extend(lab: Lab, *, multipath: bool) -> None:
    volume: lio.Volume = fc.volume(lab)
    host = lab.service("FIBRE_CHANNEL", multipath=multipath)
    given = fc.properties(
        targets=tcm_fc.TARGETS if multipath else ONE_TARGET,
        initiators=tcm_fc.INITIATORS if multipath else ONE_INITIATOR,
    )
    info = attach(lab, host, given)
    if multipath:
        all_paths_join(volume, 4)
    for size in (96 * MIB, 160 * MIB):
        volume.grow(size)
        with lab.timed("extend"):
            told = host.extend(given)
        assert told == size, f"told {told}, is {size}"
        assert data.size(info["path"]) == size
        for disk in host_state.disks(volume.wwid):
            assert data.size(f"/dev/{disk}") == size, disk
        lab.check_data(info["path"], volume, size - MIB)
    detach(lab, host, given, info)
