# SPDX-License-Identifier: Apache-2.0
"""Many Fibre Channel volumes at once, and calls that are killed."""

from __future__ import annotations

import functools
from typing import Any

from ..guest import faults, fc, host_state, service
from ..guest.daemons import MultipathConfig
from ..guest.lab import MIB, Lab
from ..targets import tcm_fc
from . import scenario
from .iscsi_attach import all_paths_join, attach, detach

STRICT = MultipathConfig(find_multipaths="strict")
_COUNT = 8


@scenario("8 volumes in parallel, single path", limit_s=600, multipath=STRICT)
def fc_parallel_single_path(lab: Lab) -> None:
    """Volumes do not wait for one another, and none is mistaken."""
    _side_by_side(lab, multipath=False)


@scenario("8 volumes in parallel, four paths", limit_s=900)
def fc_parallel(lab: Lab) -> None:
    """As above with maps."""
    _side_by_side(lab, multipath=True)


@scenario("a LUN is detached while another of the same targets is attached", limit_s=600)
def fc_attach_beside_detach(lab: Lab) -> None:
    """What was detached does not come back by the other's scans."""
    first, second = fc.volume(lab, 1), fc.volume(lab, 2)
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    one, two = fc.properties(1), fc.properties(2)
    one_info = attach(lab, host, one)
    for _ in range(4):
        two_info = _swap(lab, host, one, one_info, two)
        assert not host_state.disks(first.wwid), "a detached LUN came back"
        lab.check_data(two_info["path"], second)
        one_info = _swap(lab, host, two, two_info, one)
        assert not host_state.disks(second.wwid), "a detached LUN came back"
    detach(lab, host, one, one_info)


@scenario("attach killed after the first disk, then attached and detached again", limit_s=400)
def fc_attach_killed(lab: Lab) -> None:
    """The next call finishes what a killed one has begun."""
    volume = fc.volume(lab)
    host = lab.service("FIBRE_CHANNEL", multipath=True)
    given = fc.properties()
    faults.run_and_kill(lambda: host.attach(given), lambda: bool(host_state.disks()), 60)
    info = attach(lab, host, given)
    all_paths_join(volume, 4)
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)


def _swap(
    lab: Lab,
    host: service.Service,
    old: service.Properties,
    old_info: dict[str, Any],
    new: service.Properties,
) -> dict[str, Any]:
    """Detach one volume while another is attached; return what the attach returned."""
    found: list[dict[str, Any]] = []
    lab.side_by_side([lambda: host.detach(old, old_info), lambda: found.append(host.attach(new))])
    return found[0]


def _side_by_side(lab: Lab, *, multipath: bool) -> None:
    targets = tcm_fc.TARGETS if multipath else tcm_fc.TARGETS[:1]
    initiators = tcm_fc.INITIATORS if multipath else tcm_fc.INITIATORS[:1]
    volumes = [fc.volume(lab, lun, size=8 * MIB) for lun in range(1, _COUNT + 1)]
    host = lab.service("FIBRE_CHANNEL", multipath=multipath)
    given = [
        fc.properties(lun, targets=targets, initiators=initiators) for lun in range(1, _COUNT + 1)
    ]
    with lab.timed(f"attach {_COUNT}"):
        infos = lab.side_by_side([functools.partial(host.attach, each) for each in given])
    for volume, info in zip(volumes, infos, strict=True):
        if multipath:
            all_paths_join(volume, 4)
        lab.check_data(info["path"], volume)
    with lab.timed(f"detach {_COUNT}"):
        lab.side_by_side(
            [
                functools.partial(host.detach, each, info)
                for each, info in zip(given, infos, strict=True)
            ]
        )
    assert not host_state.disks(), host_state.disks()
