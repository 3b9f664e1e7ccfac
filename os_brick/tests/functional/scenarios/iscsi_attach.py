# SPDX-License-Identifier: Apache-2.0
"""iSCSI volumes come, are used, grow and go: what happens on every ordinary day."""

from __future__ import annotations

import os
from typing import Any

from os_brick import exception

from ..guest import data, host_state, kernel, programs, service, udev
from ..guest.daemons import MultipathConfig
from ..guest.lab import MIB, Lab, fails_with, properties
from ..targets import lio
from . import SMOKE_S, scenario

#: multipathd leaves a volume with one path alone.
STRICT = MultipathConfig(find_multipaths="strict")
#: Programs that may be started for each portal logged in to, for each logged out of, for a map.
LOG_IN, LOG_OUT, MAP = 4, 3, 2


@scenario("single path: data on the array, few programs, nothing left", multipath=STRICT)
def iscsi_single_path(lab: Lab) -> None:
    """One portal, one disk."""
    target, volume = lab.target()
    host = lab.service()
    given = properties(target)
    with programs.counted() as started, lab.timed("attach"):
        info = host.attach(given)
    assert info["type"] == "block", info
    assert info["scsi_wwn"] == volume.wwid, info
    assert "multipath_id" not in info, info
    assert info["path"] == f"/dev/{host_state.disks(volume.wwid)[0]}", info
    _at_most(LOG_IN, started)
    lab.check_data(info["path"], volume)
    udev.settle()
    paths = host.paths(given)
    assert [os.path.realpath(path) for path in paths] == [info["path"]], paths
    with programs.counted() as started, lab.timed("detach"):
        host.detach(given, info)
    _at_most(LOG_OUT, started)


@scenario(
    "two paths: one map, data on the array, few programs, nothing left",
    limit_s=SMOKE_S,
    groups=["smoke"],
)
def iscsi_two_paths(lab: Lab) -> None:
    """Two portals, two disks, one map."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    with programs.counted() as started, lab.timed("attach"):
        info = host.attach(given)
    dm = host_state.map_of(volume.wwid)
    assert info["path"] == f"/dev/{dm}", info
    assert info["multipath_id"] == volume.wwid, info
    assert info["scsi_wwn"] == volume.wwid, info
    _at_most(2 * LOG_IN + MAP, started)
    all_paths_join(volume, 2)
    lab.check_data(info["path"], volume)
    with programs.counted() as started, lab.timed("detach"):
        host.detach(given, info)
    _at_most(2 * LOG_OUT + MAP, started)


@scenario(
    "two paths under find_multipaths strict with friendly names",
    multipath=MultipathConfig(find_multipaths="strict", user_friendly_names="yes"),
)
def iscsi_strict_friendly_names(lab: Lab) -> None:
    """The map has a name of its own, and multipathd has to be told of the volume."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    info = attach(lab, host, given)
    dm = host_state.map_of(volume.wwid)
    assert info["path"] == f"/dev/{dm}", info
    assert info["multipath_id"] == volume.wwid, info
    assert kernel.read(f"/sys/block/{dm}/dm/name").startswith("mpath")
    all_paths_join(volume, 2)
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)


@scenario(
    "one of one path under find_multipaths strict still gets its map",
    multipath=MultipathConfig(find_multipaths="strict", user_friendly_names="yes"),
)
def iscsi_strict_one_path(lab: Lab) -> None:
    """A map is preferred even with one path: more may come."""
    target, volume = lab.target(portals=1)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    info = attach(lab, host, given)
    assert info["path"] == f"/dev/{host_state.map_of(volume.wwid)}", info
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)


@scenario("single path that multipathd claims: the map goes with it")
def iscsi_single_path_claimed(lab: Lab) -> None:
    """With find_multipaths no, multipathd makes a map over the only disk."""
    target, volume = lab.target()
    host = lab.service()
    given = properties(target)
    info = attach(lab, host, given)
    kernel.wait_for(lambda: host_state.map_of(volume.wwid), "multipathd's map")
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)


@scenario("two LUNs on one session: the second needs no program, the first leaves the session")
def iscsi_two_luns_one_session(lab: Lab) -> None:
    """A session in use is never logged out."""
    target, first = lab.target(portals=2)
    second = lab.volume()
    target.map(2, second)
    host = lab.service(multipath=True)
    one, two = properties(target, 1, several=True), properties(target, 2, several=True)
    one_info = attach(lab, host, one)
    with programs.counted() as started, lab.timed("second attach"):
        two_info = host.attach(two)
    # A session is there: no iscsiadm at all; what is left is the map's.
    assert not [each for each in started if each.name == "iscsiadm"], _told(started)
    _at_most(MAP, started)
    assert len(host_state.sessions(target.iqn)) == 2
    all_paths_join(first, 2)
    all_paths_join(second, 2)
    lab.check_data(one_info["path"], first)
    lab.check_data(two_info["path"], second)
    detach(lab, host, one, one_info)
    assert len(host_state.sessions(target.iqn)) == 2, "a session in use was logged out"
    lab.check_data(two_info["path"], second)
    with lab.timed("second detach"):
        host.detach(two, two_info)


@scenario("second single-path volume of a session: no program at all", multipath=STRICT)
def iscsi_session_reused(lab: Lab) -> None:
    """None when the session exists already."""
    target, _ = lab.target()
    second = lab.volume()
    target.map(2, second)
    host = lab.service()
    one, two = properties(target, 1), properties(target, 2)
    one_info = attach(lab, host, one)
    with programs.counted() as started:
        two_info = host.attach(two)
    _at_most(0, started)
    lab.check_data(two_info["path"], second)
    with programs.counted() as started:
        host.detach(two, two_info)
    _at_most(LOG_OUT, started)
    assert len(host_state.sessions(target.iqn)) == 1
    detach(lab, host, one, one_info)


@scenario("a session that somebody else made and uses is left alone", multipath=STRICT)
def iscsi_foreign_session(lab: Lab) -> None:
    """What others made stays: session, record, disk."""
    from ..guest import by_hand

    target, foreign = lab.target()
    volume = lab.volume()
    target.map(2, volume)
    by_hand.attach(target, 1, foreign.wwid)
    kernel.run("udevadm", "settle")
    lab.this_is_normal()
    host = lab.service()
    given = properties(target, 2)
    info = attach(lab, host, given)
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)
    lab.expect_clean()
    assert data.read(f"/dev/{host_state.disks(foreign.wwid)[0]}", 4096)


@scenario("CHAP: right secret attaches, and is in no log and no result", multipath=STRICT)
def iscsi_chap_right(lab: Lab) -> None:
    """The secret has characters that masking by pattern would miss."""
    secret = "s3'cr\"et-word"
    target, volume = lab.target(chap=("lab-user", secret))
    host = lab.service()
    given = _with_chap(target, secret)
    with programs.counted() as started, lab.timed("attach"):
        info = host.attach(given)
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)
    _secret_nowhere(lab, secret, info)
    _at_most(LOG_IN, started)


@scenario("CHAP: wrong secret fails with nothing left, and is not told", multipath=STRICT)
def iscsi_chap_wrong(lab: Lab) -> None:
    """The error names the portal, not the secret."""
    target, _ = lab.target(chap=("lab-user", "right-s3cret-word"))
    secret = "wr0ng'\"secret"
    with lab.timed("attach"), fails_with(exception.BrickException) as caught:
        lab.service().attach(_with_chap(target, secret))
    told = f"{caught[0]} {caught[0]!r} {vars(caught[0])}"
    assert target.portals[0] in told, told
    _secret_nowhere(lab, secret, told)


@scenario("extend, single path", multipath=STRICT)
def iscsi_extend_single_path(lab: Lab) -> None:
    """The disk has the new size when the call returns."""
    _extend(lab, several=False)


@scenario("extend, two paths")
def iscsi_extend_two_paths(lab: Lab) -> None:
    """Both paths and the map have the new size when the call returns."""
    _extend(lab, several=True)


@scenario("the same volume twice, one after the other and at once; detached twice")
def iscsi_same_volume_twice(lab: Lab) -> None:
    """Attach is idempotent, and so is detach."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    info = attach(lab, host, given)
    with lab.timed("again"):
        again = host.attach(given)
    assert again["path"] == info["path"], (info, again)
    detach(lab, host, given, info)
    with lab.timed("detach again"):
        host.detach(given, info)
    with lab.timed("twice at once"):
        both = lab.side_by_side([lambda: host.attach(given), lambda: host.attach(given)])
    assert both[0]["path"] == both[1]["path"], both
    assert len(host_state.sessions(target.iqn)) == 2, host_state.sessions()
    all_paths_join(volume, 2)
    lab.check_data(both[0]["path"], volume)
    with lab.timed("detached twice at once"):
        lab.side_by_side([lambda: host.detach(given, info), lambda: host.detach(given, info)])


@scenario("portals and LUNs by value: text LUN, tpgt, host name, other IPv6 spelling", limit_s=300)
def iscsi_spellings(lab: Lab) -> None:
    """However a portal is spelled, it is the same portal on detach as on attach."""
    with open("/etc/hosts", "a") as hosts:
        hosts.write("127.0.0.2 storage-one\n")
    target, volume = lab.target(portals=["127.0.0.2:3260", "[::1]:3260"])
    host = lab.service(multipath=True)
    for portal in (
        "127.0.0.2:3260,1",
        "storage-one:3260",
        "[::1]:3260",
        "[0:0:0:0:0:0:0:1]:3260",
        "[::0001]:3260,1",
    ):
        given = properties(target, several=True)
        given |= {"target_portal": portal, "target_portals": [portal], "target_luns": ["1"]}
        given |= {"target_lun": "1", "target_iqns": [target.iqn]}
        with lab.timed(portal):
            info = host.attach(given)
        lab.check_data(info["path"], volume)
        assert len(host_state.sessions()) == 1, host_state.sessions()
        host.detach(given, info)
        assert not host_state.sessions(), f"{portal}: {host_state.sessions()}"
        assert not host_state.records(), f"{portal}: {host_state.records()}"
        assert not host_state.disks(), f"{portal}: {host_state.disks()}"


@scenario("LUN numbers above 255")
def iscsi_high_lun(lab: Lab) -> None:
    """The kernel's number of a LUN is found and removed."""
    target, volume = lab.target(portals=2, lun=300)
    host = lab.service(multipath=True)
    given = properties(target, 300, several=True)
    info = attach(lab, host, given)
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)


@scenario("portals found by discovery: all are used, and forgotten again")
def iscsi_discovered_portals(lab: Lab) -> None:
    """Only one portal is given; multipath wants them all."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target)
    info = attach(lab, host, given)
    all_paths_join(volume, 2)
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)


@scenario("attached with multipath, detached by a service that has it off")
def iscsi_detach_with_other_setting(lab: Lab) -> None:
    """What is there decides, not what is configured now."""
    target, volume = lab.target(portals=2)
    given = properties(target, several=True)
    info = attach(lab, lab.service(multipath=True), given)
    all_paths_join(volume, 2)
    lab.check_data(info["path"], volume)
    detach(lab, lab.service(multipath=False), given, info)


@scenario("detach without knowing what attach returned")
def iscsi_detach_without_info(lab: Lab) -> None:
    """Nova passes nothing, others an empty dictionary."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    unknown: tuple[dict[str, Any] | None, ...] = (None, {})
    for nothing in unknown:
        info = attach(lab, host, given)
        lab.check_data(info["path"], volume)
        detach(lab, host, given, nothing)
        assert not host_state.sessions()


@scenario("encrypted: the path is a link of the library's own, and goes with the volume")
def iscsi_encrypted_link(lab: Lab) -> None:
    """An encryptor replaces the path it is given; a bare node would be overwritten."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True, encrypted=True)
    info = attach(lab, host, given)
    assert info["path"].startswith("/dev/disk/by-id/os-brick"), info
    assert os.path.realpath(info["path"]) == f"/dev/{host_state.map_of(volume.wwid)}", info
    lab.check_data(info["path"], volume)
    with lab.timed("detach"):
        host.detach(given | {"device_path": info["path"]}, info)
    assert not os.path.lexists(info["path"])


@scenario("what the host tells the storage about itself")
def iscsi_host_properties(lab: Lab) -> None:
    """The initiator's name is there, and asking again starts nothing."""
    with lab.timed("first"):
        told = service.host_properties()
    assert told["initiator"] in kernel.read("/etc/iscsi/initiatorname.iscsi"), told
    assert told["multipath"] is True, told
    with programs.counted() as started, lab.timed("again"):
        assert service.host_properties() == told
    _at_most(0, started)


def attach(lab: Lab, host: service.Service, given: service.Properties) -> dict[str, Any]:
    """Attach, timed."""
    with lab.timed("attach"):
        return host.attach(given)


def detach(
    lab: Lab, host: service.Service, given: service.Properties, info: dict[str, Any] | None
) -> None:
    """Detach without force, timed."""
    with lab.timed("detach"):
        host.detach(given, info)


def all_paths_join(volume: lio.Volume, count: int) -> None:
    """Wait until the volume's map has ``count`` paths: the late ones join by themselves."""
    kernel.wait_for(
        lambda: len(host_state.paths_of(host_state.map_of(volume.wwid) or "none")) == count,
        f"{count} paths in the map of {volume.wwid}",
    )


def _extend(lab: Lab, *, several: bool) -> None:
    target, volume = lab.target(portals=2 if several else 1)
    host = lab.service(multipath=several)
    given = properties(target, several=several)
    info = attach(lab, host, given)
    if several:
        all_paths_join(volume, 2)
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


def _with_chap(target: lio.Target, secret: str) -> service.Properties:
    chap: dict[str, Any] = {
        "auth_method": "CHAP",
        "auth_username": "lab-user",
        "auth_password": secret,
    }
    return properties(target) | chap


def _secret_nowhere(lab: Lab, secret: str, told: object) -> None:
    shown = f"{lab.log()} {told}"
    # A tail of it is as bad as all of it: masking by pattern stops at a quote.
    assert secret not in shown, "the secret was told"
    assert secret[-8:] not in shown, "a part of the secret was told"


def _at_most(most: int, started: list[programs.Program]) -> None:
    assert len(started) <= most, f"{len(started)} programs, at most {most}: {_told(started)}"


def _told(started: list[programs.Program]) -> list[str]:
    return [str(each) for each in started]
