# SPDX-License-Identifier: Apache-2.0
"""NVMe portals, paths and namespaces fail: before the attach, after it, and at the detach."""

from __future__ import annotations

import functools
import os
import time

from os_brick import exception

from ..guest import data, faults, kernel, nvme
from ..guest.lab import DETACH_ERRORS, MIB, Lab, fails_with
from ..guest.nvme import properties
from . import SMOKE_S, scenario
from .nvme_attach import attach, detach

SHORT = {"call_timeout": 120, "flush_timeout": 20}
#: An attach with a dead portal may not sit that portal out.
DEAD_PORTAL_S = 12.0


def _dead_portal(lab: Lab, which: int, fault: str, *, multipath: bool) -> None:
    one = nvme.volume(lab, ports=2)
    getattr(lab.network, fault)(one.subsystem.ports[which].text)
    host = lab.service("NVMEOF", multipath=multipath)
    info = attach(lab, host, properties(one))
    assert lab.seconds("attach") < DEAD_PORTAL_S, lab.times
    nvme.check_data(lab, info["path"], one)
    if multipath:
        assert one.subsystem.ports[which].address in lab.log()
    lab.heal()
    detach(lab, host, properties(one), info)
    lab.expect_clean_soon()


@scenario("first of two portals silent at attach", limit_s=300)
def nvme_first_portal_silent(lab: Lab) -> None:
    """The attach does not wait for the dead portal, and nothing comes later."""
    _dead_portal(lab, 0, "silence", multipath=True)


@scenario("second of two portals silent at attach", limit_s=300)
def nvme_second_portal_silent(lab: Lab) -> None:
    """As the first."""
    _dead_portal(lab, 1, "silence", multipath=True)


@scenario("first of two portals refuses at attach", limit_s=300)
def nvme_first_portal_refuses(lab: Lab) -> None:
    """As if it was not there."""
    _dead_portal(lab, 0, "refuse", multipath=True)


@scenario("single path: the first portal is silent, the second is used", limit_s=300)
def nvme_single_path_second_portal(lab: Lab) -> None:
    """One path is enough, and it is the one that works."""
    _dead_portal(lab, 0, "silence", multipath=False)


@scenario("no portal answers: the error names them, and nothing is left", limit_s=300)
def nvme_no_portal(lab: Lab) -> None:
    """All of two portals silent, then refusing."""
    one = nvme.volume(lab, ports=2)
    host = lab.service("NVMEOF", multipath=True)
    for fault in ("silence", "refuse"):
        for port in one.subsystem.ports:
            getattr(lab.network, fault)(port.text)
        with lab.timed(fault), fails_with(exception.VolumeDeviceNotFound) as caught:
            host.attach(properties(one))
        assert all(port.address in str(caught[0]) for port in one.subsystem.ports), caught[0]
        lab.network.heal()
    assert not nvme.controllers()


@scenario("one path lost after the attach: data, detach, nothing left", limit_s=300)
def nvme_path_lost(lab: Lab) -> None:
    """I/O and write-out go by the other path."""
    one = nvme.volume(lab, ports=2)
    host = lab.service("NVMEOF", multipath=True)
    info = attach(lab, host, properties(one))
    nvme.wait_for_paths(one, 2)
    lab.network.silence(one.subsystem.ports[0].text)
    nvme.check_data(lab, info["path"], one)
    nvme.wait_for_paths(one, 1)
    detach(lab, host, properties(one), info)
    assert not nvme.controllers()


@scenario("a reconnecting portal is waited for when there is no other", limit_s=300)
def nvme_reconnecting(lab: Lab) -> None:
    """The controller that is there is used when it comes back, not made anew."""
    shared = nvme.subsystem(lab, 1)
    first, second = shared.namespace(), shared.namespace()
    host = lab.service("NVMEOF", multipath=True)
    info = host.attach(properties(first))
    lab.network.silence(shared.ports[0].text)
    kernel.wait_for(lambda: nvme.controllers(state="connecting"), "the loss is noticed", 60)
    before = nvme.controllers()
    lab.network.heal()
    other = attach(lab, host, properties(second))
    assert nvme.controllers() == before
    nvme.check_data(lab, other["path"], second)
    host.detach(properties(first), info)
    first.unmap()
    host.detach(properties(second), other)


@scenario(
    "all paths lost with dirty data: no force raises and keeps, then the data arrives",
    limit_s=500,
    options=SHORT,
)
def nvme_dirty_paths_down(lab: Lab) -> None:
    """Never a silent loss."""
    one = nvme.volume(lab, ports=2)
    host = lab.service("NVMEOF", multipath=True)
    info = attach(lab, host, properties(one))
    nvme.wait_for_paths(one, 2)
    content = data.pattern("dirty", 64 * 1024)
    writer = faults.StuckWriter(info["path"], content, 4 * MIB)
    for port in one.subsystem.ports:
        lab.network.silence(port.text)
    kernel.wait_for(lambda: not nvme.controllers(state="live"), "the loss is noticed", 60)
    writer.close()
    with lab.timed("detach"), fails_with(*DETACH_ERRORS):
        host.detach(properties(one), info)
    assert len(nvme.controllers()) == 2
    lab.network.heal()
    nvme.wait_for_paths(one, 2, 90)
    kernel.wait_for(writer.ended, "the writer's end", 60)
    assert one.read(4 * MIB, len(content)) == content
    lab.expect_no_program_hangs()
    with lab.timed("detach again"):
        host.detach(properties(one), info)


@scenario(
    "all paths lost with dirty data: force tells of the loss and leaves nothing",
    limit_s=SMOKE_S,
    options=SHORT,
    groups=["smoke"],
    rank=1,
)
def nvme_dirty_paths_down_forced(lab: Lab) -> None:
    """Never a hang, no leftovers."""
    one = nvme.volume(lab, ports=2)
    host = lab.service("NVMEOF", multipath=True)
    info = attach(lab, host, properties(one))
    nvme.wait_for_paths(one, 2)
    writer = faults.StuckWriter(info["path"], data.pattern("dirty", 64 * 1024), 4 * MIB)
    for port in one.subsystem.ports:
        lab.network.silence(port.text)
    kernel.wait_for(lambda: not nvme.controllers(state="live"), "the loss is noticed", 60)
    writer.close()
    with lab.timed("detach"), fails_with(exception.ExceptionChainer):
        host.detach(properties(one), info, force=True)
    kernel.wait_for(writer.ended, "the writer's end", 60)
    assert not nvme.controllers()


@scenario("unmapped on the array first: no device, and still nothing left", limit_s=300)
def nvme_unmapped_first(lab: Lab) -> None:
    """The connection ends though the node is gone."""
    one = nvme.volume(lab, ports=2)
    host = lab.service("NVMEOF", multipath=True)
    info = attach(lab, host, properties(one))
    one.unmap()
    kernel.wait_for(lambda: not os.path.exists(info["path"]), "the node is gone", 30)
    detach(lab, host, properties(one), info)
    assert not nvme.controllers()


@scenario("detached without a path, by identity alone; and written before", limit_s=300)
def nvme_no_path_given(lab: Lab) -> None:
    """Today this does nothing and reports success."""
    one = nvme.volume(lab, ports=2)
    host = lab.service("NVMEOF", multipath=True)
    info = attach(lab, host, properties(one))
    nvme.check_data(lab, info["path"], one)
    detach(lab, host, nvme.after_json(properties(one)), None)
    assert not nvme.controllers()


@scenario("in use: mounted volumes are refused, and are attached still", limit_s=300)
def nvme_in_use(lab: Lab) -> None:
    """A file system on it."""
    one = nvme.volume(lab, ports=2)
    host = lab.service("NVMEOF", multipath=True)
    info = attach(lab, host, properties(one))
    kernel.run("mkfs.ext4", "-q", info["path"])
    os.makedirs("/run/nvme-mount", exist_ok=True)
    kernel.run("mount", info["path"], "/run/nvme-mount")
    with lab.timed("refused"), fails_with(exception.DeviceInUse):
        host.detach(properties(one), info)
    assert len(nvme.controllers()) == 2
    kernel.run("umount", "/run/nvme-mount")
    detach(lab, host, properties(one), info)


@scenario("the array gave the number to another volume: never taken for the old one", limit_s=300)
def nvme_number_given_away(lab: Lab) -> None:
    """By its number or by its identity, what is there now counts."""
    shared = nvme.subsystem(lab, 1)
    keeper, one = shared.namespace(), shared.namespace()
    host = lab.service("NVMEOF", multipath=True)
    kept = host.attach(properties(keeper))
    old = properties(one)
    info = host.attach(old)
    host.detach(old, info)
    one.become_another()
    with fails_with(exception.VolumeDeviceNotFound):
        host.attach(old)
    info = host.attach(properties(one))
    assert info["path"] == nvme.disk_of(one)
    nvme.check_data(lab, info["path"], one)
    host.detach(properties(one), info)
    one.unmap()
    host.detach(properties(keeper), kept)


@scenario("another program made the controller: used, and left when the attach fails", limit_s=300)
def nvme_made_by_others(lab: Lab) -> None:
    """What others made is theirs."""
    shared = nvme.subsystem(lab, 1)
    port = shared.ports[0]
    host = lab.service("NVMEOF", multipath=True)
    one = nvme.volume(lab)  # of another subsystem
    kernel.run(
        *(
            "nvme",
            "connect",
            "-a",
            port.address,
            "-s",
            str(port.port),
            "-t",
            "tcp",
            "-n",
            shared.nqn,
        )
    )
    lab.this_is_normal()
    with fails_with(exception.VolumeDeviceNotFound):
        host.attach(properties(one) | {"target_nqn": shared.nqn})
    assert len(nvme.controllers(shared.nqn)) == 1
    lab.expect_clean()
    kernel.run("nvme", "disconnect", "-n", shared.nqn)
    lab.this_is_normal()


@scenario("killed at the worst moment: the next attach and detach clean up", limit_s=400)
def nvme_killed(lab: Lab) -> None:
    """A service that dies leaves nothing that its successor cannot take away."""
    one = nvme.volume(lab, ports=2)
    host = lab.service("NVMEOF", multipath=True)
    for moment in (nvme.controllers, lambda: nvme.disk_of(one)):
        faults.run_and_kill(functools.partial(host.attach, properties(one)), moment, 60)
        info = host.attach(properties(one))
        nvme.check_data(lab, info["path"], one)
        faults.run_and_kill(
            functools.partial(host.detach, properties(one), info),
            lambda: len(nvme.controllers()) < 2,
            60,
        )
        host.detach(properties(one), info)
        assert not nvme.controllers()


@scenario("nvme-cli hangs: another volume is attached meanwhile, and nothing is left", limit_s=400)
def nvme_cli_hangs(lab: Lab) -> None:
    """One bad volume must not stop the others."""
    bad, good = nvme.volume(lab), nvme.volume(lab)
    host = lab.service("NVMEOF", multipath=True)
    lab.programs.hang("nvme", when=f"*{bad.subsystem.nqn}*")

    def fail() -> float:
        began = time.monotonic()
        with fails_with(exception.BrickException):
            host.attach(properties(bad))
        return time.monotonic() - began

    def work() -> float:
        began = time.monotonic()
        info = host.attach(properties(good))
        took = time.monotonic() - began
        host.detach(properties(good), info)
        return took

    hung, took = lab.side_by_side([fail, work])
    lab.times += [("hung", hung), ("other", took)]
    assert took < 30, took
    lab.heal()
