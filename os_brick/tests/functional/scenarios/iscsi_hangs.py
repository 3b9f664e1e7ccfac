# SPDX-License-Identifier: Apache-2.0
"""iSCSI volumes while programs hang, daemons are stopped, and callers are killed."""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Callable
from typing import Any

from os_brick import exception

from ..guest import faults, host_state, kernel, service
from ..guest.daemons import MultipathConfig
from ..guest.lab import DETACH_ERRORS, Lab, fails_with, properties
from ..targets import lio
from . import scenario
from .iscsi_attach import all_paths_join, attach, detach

STRICT = MultipathConfig(find_multipaths="strict")
SHORT = {"call_timeout": 60, "flush_timeout": 20}
#: The call's limit and what the release after it may take under emulation.
BOUND_S = 60 + 30.0


@scenario("multipath hangs at the attach: it ends in time", limit_s=300, options=SHORT)
def iscsi_multipath_hangs_at_attach(lab: Lab) -> None:
    """Every program named multipath hangs and ignores TERM."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    lab.programs.hang("multipath")
    info = None
    with lab.timed("attach"), contextlib.suppress(*DETACH_ERRORS):
        info = host.attach(given)
    assert lab.seconds("attach") < BOUND_S
    lab.expect_no_program_hangs()
    if info is None:
        lab.expect_clean()
    else:
        lab.check_data(info["path"], volume)
        lab.programs.heal()
        detach(lab, host, given, info)


@scenario(
    "multipath hangs at the detach: no force raises or is done, force ends in time",
    limit_s=400,
    options=SHORT,
)
def iscsi_multipath_hangs_at_detach(lab: Lab) -> None:
    """A detach that cannot flush its map breaks nothing, and with force leaves nothing."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    for force in (False, True):
        info = attach(lab, host, given)
        all_paths_join(volume, 2)
        lab.check_data(info["path"], volume)
        lab.programs.hang("multipath")
        failed = False
        with lab.timed("force" if force else "detach"):
            try:
                host.detach(given, info, force=force, ignore_errors=force)
            except Exception:  # noqa: BLE001 - whatever it is, the volume must still work
                failed = True
        assert lab.times[-1][1] < BOUND_S
        assert not (force and failed), "an ignored error was raised"
        lab.expect_no_program_hangs()
        if failed:
            lab.check_data(info["path"], volume)
            lab.programs.heal()
            detach(lab, host, given, info)
        lab.expect_clean()
        lab.programs.heal()


@scenario("iscsiadm hangs at log-in: an error in time, nothing left", limit_s=300, options=SHORT)
def iscsi_iscsiadm_hangs_at_log_in(lab: Lab) -> None:
    """The log-in hangs and ignores TERM; the record is still taken away."""
    target, _ = lab.target(portals=2)
    host = lab.service(multipath=True)
    lab.programs.hang("iscsiadm", when="*--login*")
    with lab.timed("attach"), fails_with(exception.BrickException) as caught:
        host.attach(properties(target, several=True))
    assert lab.seconds("attach") < BOUND_S
    assert target.portals[0] in str(caught[0]), caught[0]
    lab.expect_no_program_hangs()


@scenario(
    "iscsiadm hangs at log-out: an error in time, and the next detach finishes",
    limit_s=300,
    options=SHORT,
)
def iscsi_iscsiadm_hangs_at_log_out(lab: Lab) -> None:
    """The disks are gone already; the session is told of and taken by the second try."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    info = attach(lab, host, given)
    all_paths_join(volume, 2)
    lab.programs.hang("iscsiadm", when="*--logout*")
    with lab.timed("detach"), fails_with(*DETACH_ERRORS):
        host.detach(given, info)
    assert lab.seconds("detach") < BOUND_S
    lab.expect_no_program_hangs()
    lab.programs.heal()
    with lab.timed("detach again"):
        host.detach(given, info)


@scenario(
    "iscsid stopped at the attach: an error in time, nothing left", limit_s=300, options=SHORT
)
def iscsi_iscsid_stopped_at_attach(lab: Lab) -> None:
    """And with iscsid back, the attach works."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    lab.iscsid.stop()
    with lab.timed("attach"), fails_with(exception.BrickException):
        host.attach(given)
    assert lab.seconds("attach") < BOUND_S
    lab.iscsid.start()
    lab.expect_clean()
    info = attach(lab, host, given)
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)


@scenario(
    "iscsid stopped at the detach: an error, not a silent success", limit_s=300, options=SHORT
)
def iscsi_iscsid_stopped_at_detach(lab: Lab) -> None:
    """Sessions cannot be ended without it; with it back, the next detach finishes."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    info = attach(lab, host, given)
    all_paths_join(volume, 2)
    lab.iscsid.stop()
    with lab.timed("detach"), fails_with(*DETACH_ERRORS):
        host.detach(given, info)
    assert lab.seconds("detach") < BOUND_S
    lab.iscsid.start()
    with lab.timed("detach again"):
        host.detach(given, info)


@scenario("multipathd stopped: attach and detach still end well", limit_s=300, options=SHORT)
def iscsi_multipathd_stopped(lab: Lab) -> None:
    """Without enforcement a disk is as good; with it the attach refuses."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    lab.multipathd.stop()
    with fails_with(exception.BrickException):
        host.attach(given | {"enforce_multipath": True})
    lab.expect_clean()
    info = attach(lab, host, given)
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)


@scenario(
    "attach killed (kill -9) at five points, then attached and detached again", limit_s=600, rank=1
)
def iscsi_attach_killed(lab: Lab) -> None:
    """A service that dies loses its memory, not the host."""
    marker = pathlib.Path("/run/lab-returned")
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)

    def attach_and_stay() -> None:
        host.attach(given)
        marker.write_text("returned")
        kernel.wait_for(lambda: False, "the kill", 60)

    points: dict[str, Callable[[], object]] = {
        "record": lambda: host_state.records(target.iqn),
        "session": lambda: host_state.sessions(target.iqn),
        "disk": lambda: host_state.disks(volume.wwid),
        "map": lambda: host_state.map_of(volume.wwid),
        "return": marker.exists,
    }
    for name, reached in points.items():
        marker.unlink(missing_ok=True)
        assert faults.run_and_kill(attach_and_stay, reached, 120), "it ended before the kill"
        _comes_and_goes(lab, host, given, volume, name)


@scenario(
    "detach killed (kill -9) at three points, then attached and detached again", limit_s=500, rank=1
)
def iscsi_detach_killed(lab: Lab) -> None:
    """The next detach finishes the job, the next attach finds a host in order."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    points: dict[str, Callable[[], object]] = {
        "map gone": lambda: not host_state.map_of(volume.wwid),
        "a disk gone": lambda: len(host_state.disks(volume.wwid)) < 2,
        "a session gone": lambda: len(host_state.sessions(target.iqn)) < 2,
    }
    for again in ("detach", "attach"):
        for name, reached in points.items():
            info = attach(lab, host, given)
            all_paths_join(volume, 2)
            faults.run_and_kill(functools.partial(host.detach, given, info), reached, 120)
            if again == "detach":
                with lab.timed(f"detach after {name}"):
                    host.detach(given, info)
                lab.expect_clean()
            else:
                _comes_and_goes(lab, host, given, volume, name)


def _comes_and_goes(
    lab: Lab,
    host: service.Service,
    given: service.Properties,
    volume: lio.Volume,
    after: str,
) -> None:
    info: dict[str, Any]
    with lab.timed(f"attach after {after}"):
        info = host.attach(given)
    assert info["path"] == f"/dev/{host_state.map_of(volume.wwid)}", info
    all_paths_join(volume, 2)
    lab.check_data(info["path"], volume)
    with lab.timed(f"detach after {after}"):
        host.detach(given, info)
    lab.expect_clean()
