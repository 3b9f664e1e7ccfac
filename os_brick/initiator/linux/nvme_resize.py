# SPDX-License-Identifier: Apache-2.0
"""Taking notice of a namespace's new size.

sysfs counts sectors of 512 bytes whatever the size of the namespace's blocks is; what the subsystem
tells is counted in blocks of the format in use. Both are bytes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import block, nvme
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.nvme_changes import FAILURES
from os_brick.initiator.linux.nvme_namespaces import Namespace

LOG = logging.getLogger(__name__)

# Without the answer what the size is to be, so long is it watched whether it changes.
_UNTOLD_S = 3.0
_FIRST_LOOK_S = 1.0
_GROWTH_S = 30.0


def extend(host: Host, call: Call, namespaces: Sequence[Namespace]) -> int:
    """Have a namespace's disk take the size that the subsystem gives it, and return it in bytes.

    :param namespaces: all paths to it.
    :raises VolumeDeviceNotFound: there is no path that can be asked.
    :raises BrickException: the disk did not take the size; names both.
    """
    live = [one for one in namespaces if nvme.is_live(host.sysfs, one.controller)]
    if not live:
        raise exception.VolumeDeviceNotFound(
            device=", ".join(dict.fromkeys(one.path for one in namespaces)) or "any controller",
            reason="No controller of the volume is live.",
        )
    heads = list(dict.fromkeys(one.head for one in live))
    told = _ask(host, call, live)
    if told is None:
        return _watch(host, call, live, heads)
    wanted: int = told
    pause_s, end_s = _FIRST_LOOK_S, call.elapsed_s() + _GROWTH_S
    while not _have(host, heads, wanted):
        _rescan(host, call, live)
        call.wait_until(partial(_have, host, heads, wanted), what="new size", limit_s=pause_s)
        if _have(host, heads, wanted):
            break
        if call.elapsed_s() >= end_s or call.remaining_s() <= 0:
            shown = {head: block.read_size(host.sysfs, head) for head in heads}
            raise exception.BrickException(
                f"The subsystem says that the namespace has {wanted} bytes, but the kernel shows "
                f"{shown}. Extend the volume again."
            )
        pause_s *= 2
        # It may have been enlarged once more meanwhile.
        wanted = _ask(host, call, live) or wanted
    return wanted


def _ask(host: Host, call: Call, live: Sequence[Namespace]) -> int | None:
    """Return the size in bytes that the subsystem tells; None if no controller does."""
    for one in live:
        try:
            size = host.nvme.read_size(call, one.controller, one.ids.nsid or 0)
        except FAILURES as exc:
            LOG.warning("%s does not tell the size of %s: %s", one.controller, one.head, exc)
            continue
        if size:
            return size
    return None


def _rescan(host: Host, call: Call, live: Sequence[Namespace]) -> None:
    for one in live:
        try:
            host.nvme.rescan(call, one.controller)
        except FAILURES as exc:  # another controller's scan updates the same disk
            LOG.warning("Scanning %s for the new size failed: %s", one.controller, exc)


def _have(host: Host, heads: Sequence[str], wanted: int) -> bool:
    return all(block.read_size(host.sysfs, head) == wanted for head in heads)


def _watch(host: Host, call: Call, live: Sequence[Namespace], heads: Sequence[str]) -> int:
    """Return the size after a scan, where nobody tells what it is to be."""
    before = [block.read_size(host.sysfs, head) for head in heads]
    _rescan(host, call, live)
    call.wait_until(
        lambda: [block.read_size(host.sysfs, head) for head in heads] != before,
        what="new size",
        limit_s=_UNTOLD_S,
    )
    size = block.read_size(host.sysfs, heads[0])
    if not size:
        raise exception.VolumeDeviceNotFound(device=f"/dev/{heads[0]}")
    LOG.warning(
        "The subsystem does not tell the size of %s; the kernel shows %s bytes, before %s",
        heads[0],
        size,
        before[0],
    )
    return size
