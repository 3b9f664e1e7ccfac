# SPDX-License-Identifier: Apache-2.0
"""What the library asks of the network itself: does a portal answer, what addresses has a name."""

from __future__ import annotations

import ipaddress
import socket
from typing import Protocol


class Network(Protocol):
    """The network as this process sees it."""

    def answers(self, address: str, port: int, limit_s: float) -> bool:
        """Tell whether a TCP connection to a portal can be made within ``limit_s`` seconds.

        :raises OSError: at once, if the portal (or the way to it) refuses.
        """

    def addresses(self, name: str) -> list[str]:
        """Return the addresses of a host name, canonical; an empty list if it has none.

        :raises OSError: the name service could not be asked.
        """


class SystemNetwork:
    """Sockets of this process."""

    def answers(self, address: str, port: int, limit_s: float) -> bool:
        try:
            socket.create_connection((address, port), timeout=max(limit_s, 0.01)).close()
        except TimeoutError:
            return False
        return True

    def addresses(self, name: str) -> list[str]:
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except socket.gaierror as exc:
            if exc.errno == socket.EAI_NONAME:
                return []
            raise
        return list(dict.fromkeys(str(ipaddress.ip_address(one[4][0])) for one in answers))
