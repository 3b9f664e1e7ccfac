# SPDX-License-Identifier: Apache-2.0
"""Many NVMe volumes at once."""

from __future__ import annotations

import functools

from ..guest import nvme
from ..guest.lab import MIB, Lab
from ..guest.nvme import properties
from ..targets import nvmet
from . import scenario


def _side_by_side(lab: Lab, volumes: list[nvmet.Namespace], what: str) -> None:
    host = lab.service("NVMEOF", multipath=True)
    given = [properties(one) for one in volumes]
    with lab.timed(f"attach {what}"):
        infos = lab.side_by_side([functools.partial(host.attach, each) for each in given])
    assert [info["path"] for info in infos] == [nvme.disk_of(one) for one in volumes]
    for one, info in zip(volumes, infos, strict=True):
        nvme.check_data(lab, info["path"], one)
    with lab.timed(f"detach {what}"):
        lab.side_by_side(
            [
                functools.partial(host.detach, each, info)
                for each, info in zip(given, infos, strict=True)
            ]
        )


@scenario("1, 4, 16 volumes in parallel, each of a subsystem with two portals", limit_s=900)
def nvme_parallel(lab: Lab) -> None:
    """They do not wait for one another, and none is mistaken."""
    for count in (1, 4, 16):
        _side_by_side(lab, [nvme.volume(lab, 2, 8 * MIB) for _ in range(count)], str(count))
        assert not nvme.controllers()


@scenario("16 namespaces of one subsystem in parallel: two controllers for all", limit_s=900)
def nvme_parallel_shared(lab: Lab) -> None:
    """All share two controllers; when the array has taken them away, the last detach ends both."""
    shared = nvme.subsystem(lab, 2)
    volumes = [shared.namespace(size=8 * MIB) for _ in range(16)]
    _side_by_side(lab, volumes, "16 shared")
    assert len(nvme.controllers()) <= 2
    for one in volumes:
        one.unmap()
    host = lab.service("NVMEOF", multipath=True)
    host.detach(properties(volumes[0]), None)
    assert not nvme.controllers()
