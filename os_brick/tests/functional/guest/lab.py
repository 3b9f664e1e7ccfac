# SPDX-License-Identifier: Apache-2.0
"""What a scenario is handed: daemons, an array, faults, and the service under test."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from oslo_concurrency import processutils

from os_brick import exception

from ..targets import lio
from . import daemons, data, faults, host_state, kernel, service

_T = TypeVar("_T")
MIB = 1 << 20
IQN = "iqn.2003-01.org.example.lab"
#: Where the result of a scenario and its log are kept until the next run.
RESULTS = pathlib.Path("/lab/results")
#: What the library logs, while a scenario runs.
LOGS = pathlib.Path("/run/lab-logs")


class Lab:
    """One scenario's world.  Everything made through it is gone when the scenario ends."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.iscsid = daemons.Iscsid()
        self.multipathd = daemons.Multipathd()
        self.network = faults.Network()
        self.programs = faults.Programs()
        #: What took how long: (what, seconds), in order.
        self.times: list[tuple[str, float]] = []
        self._count = itertools.count(1)
        self._before = host_state.look()

    # The array.

    def volume(self, size: int = 64 * MIB) -> lio.Volume:
        """Make a volume on the array."""
        lio.load()
        return lio.Volume(f"{self.name}-{next(self._count)}", size)

    def target(
        self,
        portals: int | Sequence[str] = 1,
        *,
        chap: tuple[str, str] | None = None,
        lun: int = 1,
        size: int = 64 * MIB,
    ) -> tuple[lio.Target, lio.Volume]:
        """Make a target with one volume as ``lun``; ``portals`` may be just their number."""
        if isinstance(portals, int):
            portals = [f"127.0.0.{2 + number}:3260" for number in range(portals)]
        name = self.name.replace("_", "-")
        target = lio.Target(f"{IQN}:{name}.{next(self._count)}", portals, chap)
        volume = self.volume(size)
        target.map(lun, volume)
        return target, volume

    # Progress.

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long the block took, however it ends."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.times.append((what, time.monotonic() - began))

    def seconds(self, what: str) -> float:
        """Return how long something took (the last of that name)."""
        return next(taken for name, taken in reversed(self.times) if name == what)

    def service(self, protocol: str = "ISCSI", *, multipath: bool = False) -> service.Service:
        """Make the service under test: one connector, shared by all threads of the scenario."""
        return service.Service(protocol, multipath=multipath)

    def log(self) -> str:
        """Return all that the library has logged in this scenario, down to DEBUG."""
        return kernel.read(LOGS / f"{self.name}.log")

    def side_by_side(self, calls: Sequence[Callable[[], _T]]) -> list[_T]:
        """Run calls in threads, as a service does; the first failure is raised at the end."""
        results: dict[int, _T] = {}
        failures: list[BaseException] = []

        def one(number: int) -> None:
            try:
                results[number] = calls[number]()
            except BaseException as error:  # noqa: BLE001 - handed to the caller below
                failures.append(error)

        threads = [threading.Thread(target=one, args=(n,)) for n in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return [results[number] for number in range(len(calls))]

    def check_data(self, path: str, volume: lio.Volume, offset: int = MIB) -> None:
        """Write through the attached device, and find it on the array and through the device.

        Only some bytes are written, at a place of its own: what is there before stays.
        """
        content = data.pattern(f"{volume.name}/{next(self._count)}", 64 * 1024)
        data.write(path, content, offset)
        assert volume.read(offset, len(content)) == content, (
            f"the array's {volume.name} does not have what was written to {path}"
        )
        assert data.read(path, len(content), offset) == content, f"{path} reads otherwise"

    # The host.

    def this_is_normal(self) -> None:
        """Take the host as it is now as the state to come back to."""
        self._before = host_state.look()

    def expect_clean(self) -> None:
        """Insist that nothing is left over, at once and five seconds later."""
        found = host_state.leftovers(self._before)
        if found:
            raise AssertionError("not as before:\n  " + "\n  ".join(found))

    def expect_no_program_hangs(self) -> None:
        """Insist that no program which a fault made hang outlives its call."""
        kernel.wait_for(lambda: not faults.hanging(), f"gone: {faults.hanging()}", 30)

    def expect_clean_soon(self, limit_s: float = 60) -> None:
        """Insist that nothing is left over within a time, for what ends by itself later."""
        kernel.wait_for(
            lambda: not host_state.look().more_than(self._before),
            "the host is as before: " + "; ".join(host_state.look().more_than(self._before)),
            limit_s,
        )

    def heal(self) -> None:
        """Take all faults back."""
        self.network.heal()
        self.programs.heal()


def warm_up() -> None:
    """Load the modules that the first attach would otherwise have to wait for."""
    lio.load()
    kernel.load("iscsi_tcp", "dm_multipath", "dm_service_time", "scsi_dh_alua", "sd_mod", "sg")


def properties(
    target: lio.Target, lun: int = 1, *, several: bool = False, **more: Any
) -> dict[str, Any]:
    """Return connection properties as an array's driver gives them.

    :param several: name all portals (the plural keys), else only the first.
    """
    found: dict[str, Any] = {
        "target_discovered": False,
        "target_portal": target.portals[0],
        "target_iqn": target.iqn,
        "target_lun": lun,
        "volume_id": f"volume-{lun}",
        "access_mode": "rw",
        "encrypted": False,
        "qos_specs": None,
    }
    if several:
        found["target_portals"] = list(target.portals)
        found["target_iqns"] = [target.iqn] * len(target.portals)
        found["target_luns"] = [lun] * len(target.portals)
    return found | more


#: What a detach may raise: kinds that services know, so no bare error of the system.
DETACH_ERRORS = (exception.BrickException, processutils.ProcessExecutionError)


@contextlib.contextmanager
def fails_with(*kinds: type[BaseException]) -> Iterator[list[BaseException]]:
    """Insist that the block raises one of these; the exception is put into the list."""
    caught: list[BaseException] = []
    try:
        yield caught
    except kinds as error:
        caught.append(error)
        return
    raise AssertionError(f"nothing was raised, expected {', '.join(k.__name__ for k in kinds)}")
