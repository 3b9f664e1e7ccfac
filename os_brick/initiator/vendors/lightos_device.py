# SPDX-License-Identifier: Apache-2.0
"""The namespace of a LightOS volume on this host. Its discovery client makes the connections; here
they are only looked at."""

from __future__ import annotations

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import nvme, nvme_namespaces
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.nvme_changes import FAILURES, NotSupported
from os_brick.initiator.linux.nvme_namespaces import Namespace
from os_brick.initiator.vendors.lightos_volume import LightOSVolume

LOG = logging.getLogger(__name__)

_AGAIN_S = 5.0


def find(host: Host, volume: LightOSVolume) -> list[Namespace]:
    """Return all paths to a volume's namespace, as the kernel shows them.

    :raises OSError: the host could not be looked at.
    """
    controllers = nvme.read_controllers(host.sysfs, volume.nqn)
    return nvme_namespaces.find_fitting(host.sysfs, controllers, volume.ids)


def wait_for(host: Host, call: Call, volume: LightOSVolume, limit_s: float) -> str | None:
    """Return the node of a volume's disk as soon as it can be used; None if it never could.

    What the kernel shows may be older than what the subsystem has now, so the subsystem is asked
    who the namespace is; one that was another's before is looked for again.

    :raises VolumeDeviceNotFound: it is shown, but the subsystem could not be asked.
    """
    end_s = call.elapsed_s() + limit_s

    def look() -> Namespace | None:
        usable = (one for one in find(host, volume) if nvme_namespaces.is_usable(host, one))
        return next(usable, None)

    with call.step("wait for the device") as step:
        step.waited_for = "the discovery client"
        while True:
            left_s = end_s - call.elapsed_s()
            one = call.wait_until(look, what=f"device of {volume}", limit_s=max(left_s, 0))
            if one is None:
                return None
            unsure: Exception | None = None
            try:
                if says_another(host, call, volume, one) is None:
                    return one.path
                _rescan(host, call, one)
            except FAILURES as exc:
                LOG.warning("%s could not be asked about %s: %s", one.controller, one, exc)
                unsure = exc
            if left_s <= 0:
                break
            call.pause(_AGAIN_S)
    if unsure is None:
        return None
    raise exception.VolumeDeviceNotFound(
        device=one.path,
        reason=f"It shows {volume}, but the cluster could not be asked whether it still is: "
        f"{unsure}",
    ) from unsure


def says_another(
    host: Host, call: Call, volume: LightOSVolume, one: Namespace
) -> exception.WrongVolume | None:
    """Return what is wrong if the subsystem says that a namespace is not the volume any more.

    :raises OSError: it could not be asked.
    :raises ProcessExecutionError: the same.
    """
    try:
        says = host.nvme.describe(call, one.controller, one.ids.nsid or 0)
    except NotSupported as exc:  # then nobody can tell more than the kernel shows
        LOG.debug("%s", exc)
        return None
    if says is not None and volume.ids.fits(says) is not False:
        return None
    return exception.WrongVolume(
        device=one.path,
        reason=f"The kernel shows {volume} there, the cluster says {says or 'nothing is'}.",
    )


def _rescan(host: Host, call: Call, one: Namespace) -> None:
    LOG.warning("%s was another namespace before: the kernel has to notice", one)
    try:
        host.nvme.rescan(call, one.controller)
    except FAILURES as exc:  # it may notice by itself
        LOG.warning("Scanning %s for namespaces failed: %s", one.controller, exc)
