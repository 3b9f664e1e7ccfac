# SPDX-License-Identifier: Apache-2.0
"""What is measured: one value for each case."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Sequence

OURS, PEER, MINIMUM = "ours", "peer", "minimum"
#: In the order in which they take their turns.
CONTENDERS = (MINIMUM, OURS, PEER)
#: The case that needs no machine.
IMPORT = "import"
OTHERS = 200


@dataclasses.dataclass(frozen=True)
class Case:
    """Attach volumes side by side, look, detach them side by side; again for each contender."""

    name: str
    title: str
    #: Volumes that are attached at once, each of a target of its own (Fibre Channel: LUNs of one
    #: array).
    volumes: int
    #: Portals of each target, or ways over the fabric; more than one is used with multipath.
    portals: int
    rounds: int
    #: Rounds of a quick run.
    quick: int
    #: Seconds for one attach or detach of all volumes of the case.
    limit_s: float = 120
    #: Measured one after another with so many other LUNs attached.
    others: tuple[int, ...] = (0,)
    #: The first portal of each target says nothing.
    silent: bool = False
    #: Name of the protocol in the factory.
    protocol: str = "ISCSI"
    #: Each volume is made larger and extended before it is detached.
    extends: bool = False
    contenders: tuple[str, ...] = CONTENDERS


CASES = (
    Case("single", "one volume, single path", 1, 1, rounds=7, quick=3),
    Case("two-paths", "one volume, two paths", 1, 2, rounds=7, quick=3),
    Case("single-4", "4 volumes in parallel, single path", 4, 1, rounds=3, quick=1, limit_s=240),
    Case("two-paths-4", "4 volumes in parallel, two paths", 4, 2, rounds=3, quick=1, limit_s=240),
    Case("single-16", "16 volumes in parallel, single path", 16, 1, rounds=3, quick=1, limit_s=600),
    Case(
        "two-paths-16", "16 volumes in parallel, two paths", 16, 2, rounds=3, quick=1, limit_s=900
    ),
    Case(
        f"single-among-{OTHERS}",
        f"one volume, single path, among 0 and {OTHERS} other LUNs",
        1,
        1,
        rounds=5,
        quick=3,
        others=(0, OTHERS),
    ),
    Case(
        f"two-paths-among-{OTHERS}",
        f"one volume, two paths, among 0 and {OTHERS} other LUNs",
        1,
        2,
        rounds=5,
        quick=3,
        others=(0, OTHERS),
    ),
    # The minimum would wait for the silent portal's log-in: nobody would call that its best.
    Case(
        "silent-portal",
        "one volume, the first of two portals silent",
        1,
        2,
        rounds=1,
        quick=1,
        limit_s=300,
        silent=True,
        contenders=(OURS, PEER),
    ),
    Case("nvme", "one NVMe volume, two portals", 1, 2, rounds=7, quick=3, protocol="NVMEOF"),
    Case(
        "nvme-16",
        "16 NVMe volumes in parallel, two portals",
        16,
        2,
        rounds=3,
        quick=1,
        limit_s=900,
        protocol="NVMEOF",
    ),
    Case(
        "nvme-silent-portal",
        "one NVMe volume, the first of two portals silent",
        1,
        2,
        rounds=3,
        quick=1,
        limit_s=300,
        silent=True,
        protocol="NVMEOF",
        contenders=(OURS, PEER),
    ),
    Case(
        "nvme-extend",
        "one NVMe volume with blocks of 4096 bytes, two portals, made larger",
        1,
        2,
        rounds=3,
        quick=1,
        protocol="NVMEOF",
        extends=True,
        contenders=(OURS, PEER),
    ),
    Case(
        "fc-single",
        "one Fibre Channel volume, single path",
        1,
        1,
        rounds=7,
        quick=3,
        protocol="FIBRE_CHANNEL",
    ),
    Case(
        "fc-two-paths",
        "one Fibre Channel volume, two HBAs with a target port each",
        1,
        2,
        rounds=7,
        quick=3,
        protocol="FIBRE_CHANNEL",
    ),
    Case(
        "fc-8",
        "8 Fibre Channel volumes in parallel, single path",
        8,
        1,
        rounds=3,
        quick=1,
        limit_s=600,
        protocol="FIBRE_CHANNEL",
    ),
    Case(
        "fc-two-paths-8",
        "8 Fibre Channel volumes in parallel, two paths",
        8,
        2,
        rounds=3,
        quick=1,
        limit_s=600,
        protocol="FIBRE_CHANNEL",
    ),
)


def choose(words: Sequence[str]) -> list[str]:
    """Return the names of the cases that names or patterns mean, all without one; in order.

    :raises ValueError: a word means no case.
    """
    names = [each.name for each in CASES] + [IMPORT]
    for word in words:
        if not fnmatch.filter(names, word):
            raise ValueError(f"no case {word!r}: there are {', '.join(names)}")
    return [name for name in names if not words or any(fnmatch.fnmatch(name, w) for w in words)]


def by_name(name: str) -> Case:
    """Return the case of a name."""
    return next(each for each in CASES if each.name == name)
