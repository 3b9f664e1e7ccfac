# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel ports and paths fail: before the attach, after it, and at the detach."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from os_brick import exception

from ..guest import data, faults, fc, host_state, kernel, service, udev
from ..guest.daemons import MultipathConfig
from ..guest.lab import DETACH_ERRORS, MIB, Lab, fails_with
from ..targets import lio, tcm_fc
from ..targets.tcm_fc import INITIATORS, TARGETS
from . import SMOKE_S, scenario
from .iscsi_attach import all_paths_join, attach, detach

STRICT = MultipathConfig(find_multipaths="strict")
QUEUE = MultipathConfig(no_path_retry="queue")
FAIL = MultipathConfig(no_path_retry="fail")
#: As arrays' makers want it: a path that stays may be late too while the fabric learns of a loss.
RETRY = MultipathConfig(no_path_retry="30")
#: Limits for calls that meet something that hangs.
SHORT = {"call_timeout": 120, "flush_timeout": 20}
#: A lost port that nobody has noticed yet may not hold up an attach for much longer than this.
LOST_PORT_S = 45.0


@scenario("one target port lost and noticed before the attach", limit_s=500, multipath=RETRY)
def fc_target_lost_before(lab: Lab) -> None:
    """The ports that are connected are used, the lost one is named."""
    volume = fc.volume(lab)
    tcm_fc.lose(TARGETS[0])
    _wait_until_noticed(TARGETS[0])
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    given = fc.properties()
    info = attach(lab, host, given)
    all_paths_join(volume, 2)
    lab.check_data(info["path"], volume)
    assert TARGETS[0].wwpn in lab.log(), "the missing port is not named"
    detach(lab, host, given, info)
    _end(lab)


@scenario(
    "one target port lost a moment before the attach, not noticed yet", limit_s=500, multipath=RETRY
)
def fc_target_lost_unnoticed(lab: Lab) -> None:
    """Its scans block in the kernel, and hold up nobody."""
    volume = fc.volume(lab)
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    given = fc.properties()
    tcm_fc.lose(TARGETS[1])
    info = attach(lab, host, given)
    assert lab.seconds("attach") < LOST_PORT_S, "the attach sat out the lost port"
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)
    _wait_until_noticed(TARGETS[1])
    _end(lab)


@scenario("one target port lost between attach and detach", limit_s=500, multipath=RETRY)
def fc_target_lost_after(lab: Lab) -> None:
    """Half of the paths down at the detach: success, and nothing left."""
    volume, given, info = _attached(lab)
    tcm_fc.lose(TARGETS[1])
    with lab.timed("I/O"):
        lab.check_data(info["path"], volume)
    detach(lab, lab.service("FIBRE_CHANNEL", multipath=True), given, info)
    _end(lab)


@scenario(
    "one port of the host loses its cable between attach and detach", limit_s=500, multipath=RETRY
)
def fc_hba_lost(lab: Lab) -> None:
    """As above from the other side; and the next attach does with one port."""
    volume, given, info = _attached(lab)
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    tcm_fc.lose(INITIATORS[0])
    with lab.timed("I/O"):
        lab.check_data(info["path"], volume)
    told = service.host_properties()
    assert INITIATORS[0].wwpn not in told["wwpns"], told
    detach(lab, host, given, info)
    with lab.timed("attach by the other port"):
        info = host.attach(given)
    all_paths_join(volume, 2)
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)
    _end(lab)


@scenario(
    "all ports lost, dirty data, failing: no force raises and keeps, force leaves nothing",
    limit_s=SMOKE_S,
    multipath=FAIL,
    options=SHORT,
    groups=["smoke"],
)
def fc_dirty_all_lost_failing(lab: Lab) -> None:
    """The existing library deletes all disks unflushed here, and reports success."""
    _dirty_all_lost(lab, queueing=False)


@scenario(
    "all ports lost, dirty data, queueing: no force raises and keeps, force leaves nothing",
    limit_s=700,
    multipath=QUEUE,
    options=SHORT,
)
def fc_dirty_all_lost_queueing(lab: Lab) -> None:
    """The data waits in a map that queues; after force no such map may be left."""
    _dirty_all_lost(lab, queueing=True)


@scenario(
    "all ports lost, dirty data, queueing, no force; they come back: data arrives, detach succeeds",
    limit_s=700,
    multipath=QUEUE,
    options=SHORT,
)
def fc_dirty_all_lost_then_healed(lab: Lab) -> None:
    """A refused detach has broken nothing."""
    volume, given, info = _attached(lab)
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    writer, content = _dirty(lab, info)
    with lab.timed("detach"), fails_with(*DETACH_ERRORS):
        host.detach(given, info)
    tcm_fc.restore()
    kernel.wait_for(writer.ended, "the writer has written", 240)
    assert volume.read(0, len(content)) == content, "the data did not arrive"
    with lab.timed("detach after healing"):
        host.detach(given, info)


@scenario(
    "all ports lost, dirty data, queueing: force at once, errors told at the end",
    limit_s=700,
    multipath=QUEUE,
    options=SHORT,
)
def fc_dirty_force(lab: Lab) -> None:
    """Everything is attempted in bounded time, then everything is told."""
    _volume, given, info = _attached(lab)
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    writer, _ = _dirty(lab, info)
    with lab.timed("force"), fails_with(exception.ExceptionChainer):
        host.detach(given, info, force=True)
    assert lab.seconds("force") < SHORT["call_timeout"] + 10, "not within the call's limit"
    lab.expect_clean()
    kernel.wait_for(writer.ended, "the writer is released", 120)
    _end(lab)


@scenario(
    "single path lost, dirty data: no force raises and keeps, force leaves nothing",
    limit_s=700,
    multipath=STRICT,
    options=SHORT,
)
def fc_dirty_single_path_lost(lab: Lab) -> None:
    """The same without a map."""
    volume = fc.volume(lab)
    host = lab.service("FIBRE_CHANNEL")
    given = fc.properties(targets=TARGETS[:1], initiators=INITIATORS[:1])
    info = attach(lab, host, given)
    writer, _ = _dirty(lab, info)
    with lab.timed("detach"), fails_with(*DETACH_ERRORS):
        host.detach(given, info)
    assert host_state.disks(volume.wwid), "a disk with unwritten data was removed"
    with lab.timed("force"):
        host.detach(given, info, force=True, ignore_errors=True)
    lab.expect_clean()
    kernel.wait_for(writer.ended, "the writer is released", 120)
    _end(lab)


@scenario("LUN unmapped on the array while attached: force leaves nothing", limit_s=400)
def fc_lun_vanished(lab: Lab) -> None:
    """The array took it away first."""
    volume, given, info = _attached(lab)
    lab.check_data(info["path"], volume)
    tcm_fc.unmap(1)
    with lab.timed("force"):
        lab.service("FIBRE_CHANNEL", multipath=True).detach(
            given, info, force=True, ignore_errors=True
        )


def _attached(lab: Lab) -> tuple[lio.Volume, service.Properties, dict[str, Any]]:
    volume = fc.volume(lab)
    given = fc.properties()
    info = attach(lab, lab.service("FIBRE_CHANNEL", multipath=True), given)
    all_paths_join(volume, 4)
    return volume, given, info


def _wait_until_noticed(target: tcm_fc.Port) -> None:
    kernel.wait_for(
        lambda: all(tcm_fc.port_state(one, target) != "Online" for one in INITIATORS),
        f"{target.wwpn} is missed",
        120,
    )


def _end(lab: Lab) -> None:
    """Put all cables back; what is still mapped would be scanned by the kernel itself then."""
    # The scenario is over: an array that is stuck only costs the machine.
    with contextlib.suppress(tcm_fc.ArrayStuck):
        tcm_fc.unmap_all()
        tcm_fc.restore()


def _dirty(lab: Lab, info: dict[str, Any]) -> tuple[faults.StuckWriter, bytes]:
    """Put 4 MiB of unwritten data on a volume, all of its target ports lost, the writer closing."""
    # While udev still looks at the device, the writer's close would not be the last one.
    udev.settle()
    content = data.pattern(lab.name, 4 * MIB)
    writer = faults.StuckWriter(info["path"], content)
    for target in TARGETS:
        tcm_fc.lose(target)
    writer.close()
    time.sleep(2)
    return writer, content


def _dirty_all_lost(lab: Lab, *, queueing: bool) -> None:
    volume, given, info = _attached(lab)
    dm = os.path.basename(os.path.realpath(info["path"]))
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    writer, _ = _dirty(lab, info)
    if queueing:
        assert host_state.queueing(dm)
    else:
        # The kernel gives the data up; nobody but the device's error flag knows.
        kernel.wait_for(writer.ended, "the write-out has failed", 240)
    with lab.timed("detach"), fails_with(*DETACH_ERRORS):
        host.detach(given, info)
    assert lab.seconds("detach") < SHORT["call_timeout"] + 10, "not within the call's limit"
    assert host_state.map_of(volume.wwid) == dm, "the map was removed"
    assert len(host_state.disks(volume.wwid)) == 4, "a path was removed"
    if queueing:
        assert host_state.queueing(dm), "queueing was switched off without force: the data is lost"
    with lab.timed("force"):
        host.detach(given, info, force=True, ignore_errors=True)
    assert lab.seconds("force") < SHORT["call_timeout"] + 10, "not within the call's limit"
    lab.expect_clean()
    if queueing:
        kernel.wait_for(writer.ended, "the writer is released", 120)
    _end(lab)
