# SPDX-License-Identifier: Apache-2.0
"""A block device that a vendor's own driver makes: before it is taken away, its data has to reach
the storage.

How it is taken away differs from vendor to vendor; what comes before does not.
"""

from __future__ import annotations

from os_brick import exception
from os_brick.initiator.linux import block, nodes, usage
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host


def settle(
    host: Host,
    call: Call,
    path: str | None,
    *,
    force: bool,
    errors: exception.ExceptionChainer,
    limit_s: float,
) -> None:
    """Refuse a device that is in use, and write its data out. One that is not here has neither.

    :param path: of its node, or of a link to it.
    :param force: go on whatever happens; what failed is kept in ``errors``.
    :param limit_s: seconds that the write-out may take.
    :raises DeviceInUse: somebody uses it (without force).
    :raises ProcessExecutionError: its data is not known to be on the storage (without force).
    :raises OSError: the host could not be looked at (without force).
    """
    with errors.context(force, "Writing out %s failed, its data may be lost", path):
        name = nodes.kernel_name(host, path)
        if name is None:
            return
        if not force:
            usage.refuse_if_used(host, call, [name])
        block.sync(host, call, f"/dev/{name}", limit_s)


def read_size(host: Host, path: str) -> int | None:
    """Return the size in bytes of the device that a path leads to; None if there is none.

    :raises OSError: the host could not be looked at.
    """
    name = nodes.kernel_name(host, path)
    return None if name is None else block.read_size(host.sysfs, name)
