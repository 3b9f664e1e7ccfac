# SPDX-License-Identifier: Apache-2.0
"""Replicated volumes on md RAID: made, assembled, degraded, rebuilt, ended with real mdadm."""

from __future__ import annotations

from typing import Any

from os_brick import exception

from ..guest import data, kernel, nvme
from ..guest.lab import MIB, Lab, fails_with
from ..guest.nvme import properties
from ..targets import nvmet
from . import scenario
from .nvme_attach import attach, detach

ALIAS = "lab-volume"


def replicated(legs: list[nvmet.Namespace], **more: Any) -> dict[str, Any]:
    """Return connection properties of a replicated volume."""
    keys = ("target_nqn", "portals", "vol_uuid")
    replicas = [{key: properties(leg)[key] for key in keys} for leg in legs]
    found = {
        "vol_uuid": "9a2d9b1f-5be6-4c5a-a1ea-b9d2e6fc0bd5",
        "alias": ALIAS,
        "volume_replicas": replicas,
        "replica_count": len(legs),
    }
    return found | more


def _legs(lab: Lab) -> list[nvmet.Namespace]:
    """Make two legs, each of a subsystem and a portal of its own."""
    nvmet.load()
    legs = [
        nvme.subsystem(lab, [nvmet.port(f"127.0.0.{4 + at}", 4420)]).namespace(blocks=512)
        for at in range(2)
    ]
    nvme.array_is_normal(lab)
    return legs


def _md(name: str, default: str = "") -> str:
    for disk in kernel.names("/sys/block"):
        if disk.startswith("md"):
            return kernel.read(f"/sys/block/{disk}/md/{name}", default)
    return default


def _check(path: str, name: str) -> bytes:
    content = data.pattern(name, 256 * 1024)
    data.write(path, content, 8 * MIB)
    assert data.read(path, len(content), 8 * MIB) == content
    return content


@scenario("two legs: made, used, ended, assembled again, extended", limit_s=500)
def nvme_md_life(lab: Lab) -> None:
    """All of an array's life."""
    legs = _legs(lab)
    host = lab.service("NVMEOF", multipath=True)
    given = replicated(legs)
    with lab.timed("create"):
        info = host.attach(given)
    assert info["path"] == f"/dev/md/{ALIAS}", info
    content = _check(info["path"], "one")
    assert host.attach(given) == info
    detach(lab, host, nvme.after_json(given), info)
    lab.expect_clean_soon()
    for leg in legs:
        assert content[:4096] in leg.read(0, leg.size), "not on every leg"
    with lab.timed("assemble"):
        info = host.attach(given)
    assert data.read(info["path"], len(content), 8 * MIB) == content
    before = data.size(info["path"])
    for leg in legs:
        leg.grow(96 * MIB)
    with lab.timed("extend"):
        size = host.extend(given)
    assert size == data.size(info["path"]) > before, (size, before)
    detach(lab, host, given, info)


@scenario("one leg missing at attach: degraded, written to, rebuilt when it is back", limit_s=600)
def nvme_md_degraded(lab: Lab) -> None:
    """Degrade and rebuild."""
    legs = _legs(lab)
    host = lab.service("NVMEOF", multipath=True)
    given = replicated(legs)
    host.detach(given, host.attach(given))
    lab.network.refuse(legs[1].subsystem.ports[0].text)
    info = attach(lab, host, given)
    assert _md("degraded") == "1", _md("degraded")
    content = _check(info["path"], "degraded")
    detach(lab, host, given, info)
    lab.heal()
    with lab.timed("attach both"):
        info = host.attach(given)
    kernel.wait_for(lambda: _md("degraded") == "0", "rebuilt", 120)
    assert data.read(info["path"], len(content), 8 * MIB) == content
    detach(lab, host, given, info)
    for leg in legs:
        assert content[:4096] in leg.read(0, leg.size), "not on every leg"


@scenario("a leg lost while in use: the array goes on, and is ended", limit_s=600)
def nvme_md_leg_lost(lab: Lab) -> None:
    """Its portal falls silent; the target drops the namespace later."""
    legs = _legs(lab)
    host = lab.service("NVMEOF", multipath=True)
    given = replicated(legs)
    info = attach(lab, host, given)
    legs[1].unmap()
    kernel.wait_for(lambda: not nvme.disk_of(legs[1]), "the leg is gone", 60)
    content = _check(info["path"], "lost")
    kernel.wait_for(lambda: _md("degraded") == "1", "degraded", 60)
    detach(lab, host, given, info)
    assert content[:4096] in legs[0].read(0, legs[0].size)
    assert not nvme.controllers()


@scenario("a new array is not made of too few legs, nor over data", limit_s=400)
def nvme_md_refused(lab: Lab) -> None:
    """What a leg carries is never overwritten."""
    legs = _legs(lab)
    host = lab.service("NVMEOF", multipath=True)
    given = replicated(legs)
    lab.network.refuse(legs[1].subsystem.ports[0].text)
    with fails_with(exception.VolumeDeviceNotFound) as caught:
        host.attach(given)
    assert "cannot create MD" in str(caught[0]), caught[0]
    lab.heal()
    assert not nvme.controllers()
    info = host.attach(properties(legs[1]))
    kernel.run("mkfs.ext4", "-q", info["path"])
    host.detach(properties(legs[1]), info)
    with fails_with(exception.BrickException) as caught:
        host.attach(given)
    assert "carries data" in str(caught[0]), caught[0]


@scenario("in use: a mounted array keeps its legs; one replica is the leg itself", limit_s=400)
def nvme_md_in_use(lab: Lab) -> None:
    """Nothing is torn down under a file system."""
    legs = _legs(lab)
    host = lab.service("NVMEOF", multipath=True)
    given = replicated(legs)
    info = attach(lab, host, given)
    kernel.run("mkfs.ext4", "-q", info["path"])
    kernel.run("mount", info["path"], "/mnt")
    with fails_with(exception.DeviceInUse):
        host.detach(given, info)
    assert len(nvme.controllers(state="live")) == 2
    kernel.run("umount", "/mnt")
    detach(lab, host, given, info)
    single = nvme.volume(lab)
    alone = replicated([single], alias="alone")
    info = host.attach(alone)
    assert info["path"] == nvme.disk_of(single), info
    host.detach(alone, info)
