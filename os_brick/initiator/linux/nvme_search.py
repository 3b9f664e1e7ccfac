# SPDX-License-Identifier: Apache-2.0
"""Finding the wanted namespace on a controller, and being sure that it is the one.

What sysfs shows of a namespace may be older than the namespace: a subsystem can give its number to
another volume. On a controller that was there before, the subsystem itself is asked.
"""

from __future__ import annotations

from collections.abc import Callable

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import nvme, nvme_namespaces
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.nvme import Controller
from os_brick.initiator.linux.nvme_changes import FAILURES, NotSupported
from os_brick.initiator.linux.nvme_namespaces import Namespace
from os_brick.initiator.linux.nvme_volume import NvmeTarget

LOG = logging.getLogger(__name__)

_LONGEST_LOOK_S = 8.0


class Search:
    """The search of one attach for its namespace.

    :param attempts: how often a controller is scanned for it.
    :param enough: tells that it is not wanted any more.
    """

    def __init__(
        self,
        host: Host,
        call: Call,
        target: NvmeTarget,
        attempts: int,
        enough: Callable[[], bool],
    ) -> None:
        self._host = host
        self._call = call
        self._target = target
        self._attempts = max(attempts, 1)
        self._enough = enough
        self._stale: set[Namespace] = set()

    def find(self, controller: Controller, *, reused: bool) -> Namespace | None:
        """Return the wanted namespace on a controller; None if it does not appear.

        A controller that was there before is scanned at once: the subsystem may not have told it of
        changes. Further scans follow after 1, 2, 4, 8 … seconds.

        :raises VolumeDeviceNotFound: which one is wanted cannot be told, or the subsystem could not
            be asked whether it still is the one that the kernel shows.
        """
        unsure: Exception | None = None
        with self._call.step(f"find the namespace on {controller}") as step:
            for number in range(self._attempts + 1):
                if reused or number:
                    self._rescan(controller)
                limit_s = min(2.0**number, _LONGEST_LOOK_S)
                one = self._wait(controller, limit_s)
                try:
                    unsure = None
                    if one is not None and self._is_current(one, reused or number > 0):
                        step.outcome = str(one)
                        return one
                except FAILURES as exc:
                    LOG.warning("%s could not be asked about %s: %s", controller, one, exc)
                    unsure = exc
                    self._pause(controller, limit_s)
                if self._enough() or not nvme.is_live(self._host.sysfs, controller):
                    break
            step.outcome = "not found" if unsure is None else f"not asked: {unsure}"
        if unsure is not None and nvme.is_there(self._host.sysfs, controller):
            raise exception.VolumeDeviceNotFound(
                device=self._target.nqn,
                reason=f"{controller} shows the {self._target}, but the subsystem could not be "
                f"asked whether the namespace is still the volume: {unsure}",
            ) from unsure
        return None

    def is_ours(self, one: Namespace) -> bool:
        """Tell whether a namespace on a controller that this attach has made is the wanted one.

        Without any identifier it is what the controller shows, if that is one namespace only.
        """
        if self._target.ids:
            return bool(self._target.ids.fits(one.ids))
        there = nvme_namespaces.read_namespaces(self._host.sysfs, one.controller)
        return len({other.head for other in there}) == 1

    def _rescan(self, controller: Controller) -> None:
        try:
            self._host.nvme.rescan(self._call, controller)
        except FAILURES as exc:  # the kernel may know it already; other paths may do
            LOG.warning("Scanning %s for namespaces failed: %s", controller, exc)

    def _wait(self, controller: Controller, limit_s: float) -> Namespace | None:
        found: Namespace | None = None

        def is_settled() -> bool:
            nonlocal found
            found = self._look(controller)
            return (
                found is not None
                or self._enough()
                or not nvme.is_there(self._host.sysfs, controller)
            )

        self._call.wait_until(is_settled, what="namespace", limit_s=limit_s)
        return found

    def _pause(self, controller: Controller, limit_s: float) -> None:
        """Give a subsystem that could not be asked some time."""
        self._call.wait_until(
            lambda: self._enough() or not nvme.is_there(self._host.sysfs, controller),
            what=f"answers of {controller}",
            limit_s=limit_s,
        )

    def _look(self, controller: Controller) -> Namespace | None:
        there = nvme_namespaces.read_namespaces(self._host.sysfs, controller)
        if self._target.ids:
            there = [one for one in there if self._target.ids.fits(one.ids)]
        elif len({one.head for one in there}) > 1:
            raise self._ambiguous(f"{controller} shows {len(there)} of them")
        return next((one for one in there if one not in self._stale), None)

    def _is_current(self, one: Namespace, was_there: bool) -> bool:
        """Tell whether the subsystem says the same of a namespace as the kernel does.

        :raises OSError: it could not be asked.
        :raises ProcessExecutionError: the same.
        """
        if not self._target.ids:
            self._check_only_one(one)
        if not was_there:
            return True
        nsid = one.ids.nsid or 0
        try:
            says = self._host.nvme.describe(self._call, one.controller, nsid)
        except NotSupported as exc:  # then nobody can tell more than the kernel shows
            LOG.debug("%s", exc)
            return True
        if says is None or one.ids.fits(says) is False or self._target.ids.fits(says) is False:
            LOG.warning(
                "%s was another namespace before, it is now %s: the kernel has to notice", one, says
            )
            self._stale.add(one)
            return False
        return True

    def _check_only_one(self, one: Namespace) -> None:
        """Raise unless the subsystem has this namespace only, so that no other can be meant."""
        try:
            active = self._host.nvme.list_active(self._call, one.controller)
        except FAILURES as exc:
            raise self._ambiguous(f"the subsystem does not tell how many it has ({exc})") from exc
        if active != {one.ids.nsid}:
            raise self._ambiguous(f"the subsystem has {len(active)} of them")
        LOG.warning(
            "The connection to %s names no namespace (vol_uuid, volume_nguid or ns_id): taking %s, "
            "the only one there is",
            self._target.nqn,
            one.head,
        )

    def _ambiguous(self, why: str) -> exception.VolumeDeviceNotFound:
        return exception.VolumeDeviceNotFound(
            device=self._target.nqn,
            reason="Too many different volumes: the connection names no namespace (vol_uuid, "
            f"volume_nguid or ns_id), and {why}.",
        )
