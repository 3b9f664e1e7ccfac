# SPDX-License-Identifier: Apache-2.0
"""Making controllers and taking them away, under their locks, judged by sysfs alone.

nvme-cli's exit codes differ from version to version and prove little: a portal that is connected
already ends with 70, 114, 142 or 1, and a disconnect that failed may end with 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import nvme, nvme_namespaces
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.nvme import Controller, Portal
from os_brick.initiator.linux.nvme_changes import FAILURES, NotSupported
from os_brick.initiator.linux.nvme_namespaces import Namespace
from os_brick.initiator.linux.programs import Result

LOG = logging.getLogger(__name__)

# A portal that answers TCP but nothing else keeps the kernel for 60 s (admin command timeout).
CONNECT_LIMIT_S = 90.0
_LOAD_LIMIT_S = 60.0
# nvme-cli says that it is done when the controller is live; a state of its own may need a moment.
_SETTLE_S = 5.0
_GONE_S = 30.0
# How long those are waited for who attach through a controller that is to be left.
_EMPTY_LIMIT_S = 300.0
_QUEUE_SIZE = "128"
_NO_LOSS_TIMEOUT = "-1"  # data that is not written yet must outlive any trouble (bug 1964385)

_ALREADY_CODES = frozenset({114, 142})
_ALREADY_TEXTS = ("already connected", "already in progress")


class ConnectFailed(exception.TargetPortalNotFound):
    """No controller came of a connect.

    :ivar unfinished: nvme-cli was stopped at its time limit: the kernel may still be at it.
    """

    def __init__(self, message: object = None, unfinished: bool = False, **kwargs: object) -> None:
        super().__init__(message, **kwargs)
        self.unfinished = unfinished


@dataclass(frozen=True, slots=True)
class Way:
    """One way to a subsystem: what a controller is made with.

    :ivar host_nqn: the name that this host has there; None for any.
    :ivar options: how nvme-cli is to present this host.
    """

    nqn: str
    portal: Portal
    host_nqn: str | None = None
    options: tuple[str, ...] = ()

    @property
    def lock_name(self) -> str:
        """Name of the lock that users of a controller hold together and its disconnect alone."""
        return f"nvme controller {self.portal} {self.nqn} {self.host_nqn}"

    @property
    def connect_lock_name(self) -> str:
        """Name of the lock of one connect or disconnect at a time."""
        return f"nvme connect {self.portal} {self.nqn} {self.host_nqn}"

    def of(self, controller: Controller) -> Way:
        """Return the way that a controller goes: for Fibre Channel, with this host's port."""
        if self.portal.transport != nvme.FC or self.portal.host_address:
            return self
        here = controller.address.get("host_traddr", "").lower()
        return dataclasses.replace(self, portal=dataclasses.replace(self.portal, host_address=here))

    def __str__(self) -> str:
        return str(self.portal)


def find(host: Host, way: Way, names: Iterable[str] | None = None) -> list[Controller]:
    """Return the controllers that go a way, live ones first.

    :param names: kernel names of those that come into question; None for all.
    """
    if names is None:
        there = nvme.read_controllers(host.sysfs, way.nqn)
    else:
        read = (nvme.read_controller(host.sysfs, name, way.nqn) for name in names)
        there = [one for one in read if one is not None]
    found = nvme.by_portal(there, [way.portal], way.host_nqn)[way.portal]
    return sorted(found, key=lambda one: not nvme.is_live(host.sysfs, one))


def find_live(host: Host, way: Way, names: Iterable[str] | None = None) -> Controller | None:
    """Return a controller that goes a way and can be used; None if there is none."""
    return live_of(host, find(host, way, names))


def live_of(host: Host, found: Iterable[Controller]) -> Controller | None:
    """Return the first of some controllers that can be used; None if none can."""
    return next((one for one in found if nvme.is_live(host.sysfs, one)), None)


def load_driver(host: Host, call: Call, transport: str) -> None:
    """Have the kernel load what a connect needs; what it has not got, the connect will tell."""
    if not host.dev.exists("nvme-fabrics"):
        host.programs.run(call, "modprobe", f"nvme-{transport}", limit_s=_LOAD_LIMIT_S)


# -- connect ---------------------------------------------------------------------------------
def connect(host: Host, call: Call, way: Way) -> tuple[Controller, bool]:
    """Connect a portal and return its controller, and whether it was made here.

    The caller holds a shared lock of the controller.

    :returns: a controller that is live, or (another's, just being made) on its way to be.
    :raises ConnectFailed: says which portal, how it ended and what to try next.
    """
    with host.locks.held(call, [way.connect_lock_name]):
        # Looked for under the lock: whoever held it before may just have made it.
        names = set(nvme.controller_names(host.sysfs))
        before = find(host, way)
        live = live_of(host, before)
        if live is not None:
            return live, False
        limit_s, began_s = call.within(CONNECT_LIMIT_S), call.elapsed_s()
        result = _run_connect(host, call, way)
        if result.code == 0:

            def look() -> Controller | None:
                # A new one mostly has a new name, so that hundreds of others need not be read.
                new = set(nvme.controller_names(host.sysfs)) - names
                return find_live(host, way, sorted(new)) or find_live(host, way)

            live = call.wait_until(look, what=f"controller by {way}", limit_s=_SETTLE_S)
            if live is not None and not before:
                return live, True
        came = _came(host, way, before)
        # A program that cannot be started has no code either, but does not take its time.
        unfinished = result.code is None and call.elapsed_s() - began_s >= limit_s
        ours = unfinished and came not in before
        # The kernel shows a controller as soon as it begins to make it (nvme_tcp_create_ctrl), so
        # that one which is not live is that of the connect that was stopped.
        if came is None or (ours and not nvme.is_live(host.sysfs, came)):
            raise ConnectFailed(
                target_portal=way.portal, reason=_explain(result), unfinished=unfinished
            )
        if result.code != 0 and not ours:
            LOG.warning(
                "Somebody else is connecting %s to %s too: %s", way, way.nqn, result.summary
            )
        return came, result.code == 0 or ours


def _run_connect(host: Host, call: Call, way: Way) -> Result:
    portal = way.portal
    words = ["nvme", "connect", "-a", portal.address]
    if portal.port:
        words += ["-s", portal.port]
    words += ["-t", portal.transport, "-n", way.nqn]
    if portal.host_address:
        words += ["-w", portal.host_address]
    words += ["-Q", _QUEUE_SIZE, "-l", _NO_LOSS_TIMEOUT, *way.options]
    return host.programs.run(call, *words, limit_s=CONNECT_LIMIT_S)


def _came(host: Host, way: Way, before: Collection[Controller]) -> Controller | None:
    """Return the controller that is there now, a new one rather than an old one; None if none can
    be used or is on its way."""
    found = sorted(find(host, way), key=lambda one: one in before)
    states = {one: nvme.read_state(host.sysfs, one) for one in found}
    live = next((one for one in found if states[one] == nvme.LIVE), None)
    return live or next((one for one in found if states[one] in nvme.COMING), None)


def _explain(result: Result) -> str:
    said = f"{result.out}\n{result.err}".lower()
    if result.code in _ALREADY_CODES or any(text in said for text in _ALREADY_TEXTS):
        hint = "nvme-cli calls it connected, but there is no controller: try again"
    elif "/dev/nvme-fabrics" in said:
        hint = "load the kernel module of the transport (nvme-tcp, nvme-rdma, nvme-fc)"
    elif "hostid" in said or "hostnqn" in said:
        hint = "check that /etc/nvme/hostnqn and /etc/nvme/hostid belong together"
    else:
        hint = "check the network to the portal, and that the subsystem allows this host"
    return f"nvme connect ended with {result.summary}; {hint}."


# -- disconnect ------------------------------------------------------------------------------
def leave(
    host: Host,
    call: Call,
    way: Way,
    controller: Controller,
    is_ours: Callable[[Namespace], bool],
) -> bool:
    """Disconnect a controller if no namespace of anybody else is left on it and nobody is attaching
    through it; tell whether done.

    If only those who attach keep it, it is disconnected later should nothing come of that: they
    did not make it, so that nobody else would.

    :raises BrickException: nobody uses it, but it is still there.
    """
    with host.locks.tried(way.lock_name) as mine:
        if not mine:
            there = nvme_namespaces.read_namespaces(host.sysfs, controller)
            if all(is_ours(one) for one in there):
                _leave_when_empty(host, call, way, controller, is_ours)
            return False
        with host.locks.held(call, [way.connect_lock_name]):
            if _others_on(host, call, controller, is_ours):
                return False
            _disconnect(host, call, controller)
            return True


def _leave_when_empty(
    host: Host,
    call: Call,
    way: Way,
    controller: Controller,
    is_ours: Callable[[Namespace], bool],
) -> None:
    """Have a controller disconnected, by a thread of its own, when nobody attaches through it any
    more and it shows no namespace at all: those that were detached show until they are unmapped.

    A namespace that it does show may be attached by now, also the one that it was left for.
    """
    later = call.later(f"end of {controller} by {way}", _EMPTY_LIMIT_S)

    def is_settled() -> bool:
        there = nvme_namespaces.read_namespaces(host.sysfs, controller)
        return not there or not all(map(is_ours, there))

    def wait_and_leave() -> None:
        try:
            if not later.wait_until(is_settled, what=f"end of the namespaces on {controller}"):
                return
            with (
                host.locks.held(later, [way.lock_name]),
                host.locks.held(later, [way.connect_lock_name]),
            ):
                if not nvme_namespaces.read_namespaces(host.sysfs, controller):
                    _disconnect(host, later, controller)
        except Exception as exc:  # noqa: BLE001 - nobody is left to whom it could be raised
            LOG.warning("%s by %s may be left without use: %s", controller, way, exc)

    later.side_by_side({f"end of {controller}": wait_and_leave})


def _others_on(
    host: Host, call: Call, controller: Controller, is_ours: Callable[[Namespace], bool]
) -> bool:
    """Tell whether namespaces of others are on a controller.

    One that the subsystem does not have any more, and the kernel has not noticed, does not count:
    nobody would come back for the controller.
    """
    others = [
        one for one in nvme_namespaces.read_namespaces(host.sysfs, controller) if not is_ours(one)
    ]
    if not others or not nvme.is_live(host.sysfs, controller):
        return bool(others)
    try:
        active = host.nvme.list_active(call, controller)
    except FAILURES as exc:
        LOG.debug("%s could not be asked for its namespaces: %s", controller, exc)
        return True
    return any(one.ids.nsid in active or not _is_gone(host, call, one) for one in others)


def _is_gone(host: Host, call: Call, one: Namespace) -> bool:
    """Tell whether a subsystem that does not list a namespace says the same when it is asked for
    it: a list may be cut short, or not have been printed at all."""
    try:
        return host.nvme.describe(call, one.controller, one.ids.nsid or 0) is None
    except NotSupported:
        return True  # the list has to do
    except FAILURES as exc:
        LOG.debug("%s could not be asked about %s: %s", one.controller, one.head, exc)
        return False


def _disconnect(host: Host, call: Call, controller: Controller) -> None:
    failure: Exception | None = None
    try:
        host.nvme.delete(call, controller)
    except FAILURES as exc:
        failure = exc
    call.wait_until(
        lambda: not nvme.is_there(host.sysfs, controller),
        what=f"end of {controller}",
        limit_s=_GONE_S,
    )
    if nvme.is_there(host.sysfs, controller):
        raise exception.BrickException(
            f"NVMe controller {controller} of {controller.nqn} was not disconnected, its state is "
            f"{nvme.read_state(host.sysfs, controller)}: {failure or 'no error was reported'}"
        ) from failure
