# SPDX-License-Identifier: Apache-2.0
"""What the contenders work on where the protocol is NVMe over Fabrics."""

from __future__ import annotations

import contextlib

from ..guest import data, host_state, kernel, lab, nvme, udev
from ..targets import nvmet
from .cases import Case
from .stage import Stage

_SETTLE_S = 20.0
_SIZE = 8 * lab.MIB


class NvmeStage(Stage):
    """Subsystems with a namespace each, of two portals; nobody else is attached."""

    def __init__(self, case: Case, others: int) -> None:
        super().__init__(case, others)
        self._namespaces: list[nvmet.Namespace] = []

    def build(self) -> None:
        """Export the namespaces."""
        nvmet.load()
        self._namespaces = [
            nvme.volume(self._world, ports=self._case.portals, size=_SIZE)
            for _ in range(self._case.volumes)
        ]
        for one in self._namespaces:
            one.write(0, data.pattern(one.name, data.BLOCK))
        self.volumes = [(one.name, nvme.properties(one)) for one in self._namespaces]
        udev.settle()
        self._normal = host_state.look(ask_multipathd=False)

    def spoil(self) -> None:
        """Bring the fault of the case."""
        if self._case.silent:
            self._world.network.silence(self._namespaces[0].subsystem.ports[0].text)

    def grow(self) -> None:
        """Make every volume larger on the array."""
        for one in self._namespaces:
            one.grow(one.size + _SIZE)

    def check(self, paths: dict[str, str | None]) -> list[int]:
        """Insist that each device is its volume; return how many paths each had at once."""
        found = [self._live(one) for one in self._namespaces]
        self.wait_until_quiet()
        for one in self._namespaces:
            content = data.read(str(paths[one.name]), data.BLOCK)
            expected = data.pattern(one.name, data.BLOCK)
            assert content == expected, f"{paths[one.name]} is not {one.name}"
        return found

    def wait_until_quiet(self) -> None:
        """Wait until udev has dealt with everything, and attached volumes have all their paths."""
        udev.settle()
        expected = self._case.portals - self._case.silent
        for one in self._namespaces:
            if self._live(one):
                with contextlib.suppress(kernel.NotSeen):
                    nvme.wait_for_paths(one, expected, _SETTLE_S)
        udev.settle()

    @staticmethod
    def _live(one: nvmet.Namespace) -> int:
        return len(nvme.controllers(one.subsystem.nqn, "live"))
