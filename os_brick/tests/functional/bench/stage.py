# SPDX-License-Identifier: Apache-2.0
"""What the contenders work on: targets that stay, other LUNs, silence, and a quiet host."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ..guest import daemons, data, host_state, kernel, lab, reset, udev
from ..scenarios import iscsi_parallel
from ..targets import lio
from .cases import Case

#: Time for what still comes or goes after a call has returned.
_SETTLE_S = 20.0
#: Two log-ins that nobody answers end after two minutes.
_SILENT_SETTLE_S = 180.0

#: Bytes of a volume.
SIZE = 8 * lab.MIB

Volumes = list[tuple[str, dict[str, Any]]]


def multipath_config(case: Case) -> daemons.MultipathConfig:
    """Return a configuration where a single path stays one, and two are a map unasked."""
    return daemons.MultipathConfig(find_multipaths="no" if case.portals > 1 else "strict")


class Stage:
    """The host and the array for one case, with a number of other LUNs attached."""

    def __init__(self, case: Case, others: int) -> None:
        self._case = case
        self._others = others
        self._world = lab.Lab(f"bench-{case.name}")
        self._rest = contextlib.ExitStack()
        self._targets: list[lio.Target] = []
        self._exported: list[lio.Volume] = []
        self._normal = host_state.look(ask_multipathd=False)
        #: What is attached and detached: names and connection properties.
        self.volumes: Volumes = []

    def build(self) -> None:
        """Start the daemons, export the targets, attach the others."""
        several = self._case.portals > 1
        daemons.Iscsid().start()
        daemons.Multipathd().start(multipath_config(self._case))
        if self._others:
            self._rest.enter_context(iscsi_parallel.others(self._world, self._others))
        made = [
            self._world.target(portals=self._case.portals, size=SIZE)
            for _ in range(self._case.volumes)
        ]
        self._targets = [target for target, _ in made]
        self._exported = [volume for _, volume in made]
        for volume in self._exported:
            volume.write(0, data.pattern(volume.name, data.BLOCK))
        self.volumes = [
            (volume.name, lab.properties(target, several=several)) for target, volume in made
        ]
        udev.settle()
        self._normal = host_state.look(ask_multipathd=False)

    def spoil(self) -> None:
        """Bring the fault of the case."""
        if self._case.silent:
            for target in self._targets:
                self._world.network.silence(target.portals[0])

    def grow(self) -> None:
        """Make every volume larger on the array."""
        for volume in self._exported:
            volume.grow(volume.size + SIZE)

    def heal(self) -> None:
        """Take the fault back."""
        self._world.heal()

    def check(self, paths: dict[str, str | None]) -> list[int]:
        """Insist that each device is its volume; return how many paths each had at once.

        It is only read: whoever writes makes udev look at it once more.
        """
        found = [len(self._paths(volume)) for volume in self._exported]
        self.wait_until_quiet()
        for volume in self._exported:
            content = data.read(str(paths[volume.name]), data.BLOCK)
            expected = data.pattern(volume.name, data.BLOCK)
            assert content == expected, f"{paths[volume.name]} is not {volume.name}"
        return found

    def _paths(self, volume: lio.Volume) -> list[str]:
        """Return the paths of a volume that can be used, by way of the map if it has one."""
        dm = host_state.map_of(volume.wwid)
        return host_state.paths_of(dm) if dm else host_state.disks(volume.wwid)

    def wait_until_quiet(self) -> None:
        """Wait until udev has dealt with everything, and attached volumes have all their paths."""
        udev.settle()
        expected = self._case.portals - self._case.silent
        for volume in self._exported:
            if host_state.disks(volume.wwid):
                with contextlib.suppress(kernel.NotSeen):
                    kernel.wait_for(
                        lambda v=volume: len(self._paths(v)) >= expected,  # type: ignore[misc]
                        "all paths in the map",
                        _SETTLE_S,
                    )
        udev.settle()

    def leftovers(self) -> list[str]:
        """Return what a detach has left on the host, after a time for what ends by itself."""
        udev.settle()
        end = time.monotonic() + (_SILENT_SETTLE_S if self._case.silent else _SETTLE_S)
        while True:
            left = host_state.look(ask_multipathd=False).more_than(self._normal)
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.5)

    def again(self) -> None:
        """Clean the host by force, whatever is on it, and build anew."""
        self.clear()
        self.build()

    def clear(self) -> None:
        """Take everything away: first as it came, then by force."""
        with contextlib.suppress(AssertionError, OSError):
            self._rest.close()
        reset.everything()
        udev.settle()
