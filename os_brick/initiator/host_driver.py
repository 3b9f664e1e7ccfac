# SPDX-License-Identifier: Apache-2.0
"""The default ``driver`` of connectors."""

import os

_BY_PATH = "/dev/disk/by-path/"


class HostDriver:
    """Knows the block devices of this host."""

    def get_all_block_devices(self) -> list[str]:
        """Paths of all links in ``/dev/disk/by-path/``; empty if there is no such directory.

        :raises OSError: the directory cannot be read.
        """
        try:
            names = os.listdir(_BY_PATH)
        except FileNotFoundError:
            return []
        return [_BY_PATH + name for name in names]
