# SPDX-License-Identifier: Apache-2.0
"""The default ``driver`` of connectors."""

import os


class HostDriver:
    """Knows the block devices of this host.

    :param by_path: directory of udev's links by hardware path.
    """

    def __init__(self, by_path: str = "/dev/disk/by-path") -> None:
        self._by_path = by_path

    def get_all_block_devices(self) -> list[str]:
        """Paths of all links in ``/dev/disk/by-path/``; empty if there is no such directory.

        :raises OSError: the directory cannot be read.
        """
        try:
            names = os.listdir(self._by_path)
        except FileNotFoundError:
            return []
        return [os.path.join(self._by_path, name) for name in names]
