# SPDX-License-Identifier: Apache-2.0
"""Mounts that are hidden by others."""

from __future__ import annotations

import pytest

from os_brick import exception
from os_brick.initiator.linux import mounts
from os_brick.testing import FakeHost
from os_brick.tests.unit.remotefs.test_remotefs import POINT, SHARE, client

ROOT = "22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw"


def nfs(number: int, parent: int, point: str, source: str = SHARE) -> str:
    return f"{number} {parent} 0:{number} / {point} rw,relatime shared:9 - nfs4 {source} rw"


def disk(number: int, parent: int, point: str) -> str:
    return f"{number} {parent} 8:{number} / {point} rw,relatime shared:9 - ext4 /dev/sdz1 rw"


def test_a_mount_that_another_file_system_hides_is_none(fake_host: FakeHost) -> None:
    """The disk of /mnt/test was mounted late, over a directory with mounted shares."""
    fake_host.shares.share(SHARE)
    one = client(fake_host)
    one.mount(SHARE)
    assert one.is_mounted(SHARE)
    fake_host.shares.occupy("/mnt/test")
    assert not one.is_mounted(SHARE)  # POINT is a directory of /dev/sdz1 now


@pytest.mark.parametrize(
    ("lines", "mounted"),
    [
        ([ROOT, nfs(500, 22, POINT)], True),
        ([ROOT, disk(40, 22, "/mnt"), nfs(500, 40, POINT)], True),
        # in whatever order: the numbers tell
        ([ROOT, nfs(500, 40, POINT), disk(40, 22, "/mnt")], True),
        ([ROOT, disk(510, 22, "/mnt"), nfs(500, 22, POINT)], False),
        ([ROOT, nfs(500, 22, POINT), disk(510, 22, "/mnt/test")], False),
        # one of the stack below is hidden together with what is on it
        ([ROOT, disk(40, 22, "/mnt"), nfs(500, 40, POINT), disk(510, 40, "/mnt")], False),
        # twice at one point
        ([ROOT, nfs(500, 22, POINT), nfs(510, 500, POINT)], True),
        # of a container: the parent of its root is not shown
        (["300 299 0:44 / / rw - overlay overlay rw", nfs(500, 300, POINT)], True),
        # of a chroot that is no mount itself
        ([nfs(500, 22, POINT)], True),
        # rootfs, its own parent
        (
            [
                "1 1 0:2 / / rw - rootfs rootfs rw",
                "22 1 254:1 / / rw - ext4 /dev/vda1 rw",
                nfs(500, 22, POINT),
            ],
            True,
        ),
        # a sibling whose name begins alike hides nothing
        ([ROOT, nfs(500, 22, POINT), disk(510, 22, "/mnt/tes")], True),
    ],
)
def test_what_a_path_leads_to(lines: list[str], mounted: bool) -> None:
    found = mounts.visible(mounts.parse_mounts("\n".join(lines)))
    assert (POINT in {one.point for one in found if one.source == SHARE}) == mounted


def test_something_else_on_top_at_the_point(fake_host: FakeHost) -> None:
    fake_host.shares.share(SHARE)
    one = client(fake_host)
    one.mount(SHARE)
    fake_host.shares.occupy(POINT)
    with pytest.raises(exception.BrickException, match="Unmount it"):
        one.mount(SHARE)


@pytest.mark.parametrize(
    "lines",
    [
        # mount --rbind / /: paths still begin below it
        [ROOT, "63 22 254:1 / / rw,relatime - ext4 /dev/vda1 rw", nfs(500, 22, POINT)],
        # the same in a chroot that was no mount
        ["63 22 254:1 /c / rw,relatime - ext4 /dev/vda1 rw", nfs(500, 22, POINT)],
    ],
)
def test_a_mount_on_the_root_hides_nothing(lines: list[str]) -> None:
    found = mounts.visible(mounts.parse_mounts("\n".join(lines)))
    assert POINT in {one.point for one in found if one.source == SHARE}
