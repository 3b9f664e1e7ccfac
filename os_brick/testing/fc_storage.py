# SPDX-License-Identifier: Apache-2.0
"""The array's side of Fibre Channel: target ports, and volumes behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from os_brick.testing import storage
from os_brick.testing.storage import LunTable, MappedUnit, Unit
from os_brick.testing.world import World


@dataclass(eq=False)
class TargetPort:
    """A port of the array. Its faults hit every way to it."""

    wwpn: str
    wwnn: str
    index: int
    array: FcArray
    state: str = storage.UP
    #: Seconds after its loss until commands fail, and until the kernel removes its devices.
    fast_io_fail_s: float = 5.0
    dev_loss_s: float = 60.0
    listeners: list[Callable[[TargetPort], None]] = field(default_factory=list)

    def lose(self, *, fast_io_fail_s: float = 5.0, dev_loss_s: float = 60.0) -> None:
        """Take it out of the fabric, which tells the host."""
        self.fast_io_fail_s, self.dev_loss_s = fast_io_fail_s, dev_loss_s
        self._become(storage.DEAD)

    def silence(self) -> None:
        """Answer nothing any more, though the fabric still shows it."""
        self._become(storage.SILENT)

    def restore(self) -> None:
        """Let all be well again."""
        self._become(storage.UP)

    def _become(self, state: str) -> None:
        with self.array.world.lock:
            self.state = state
            for listener in list(self.listeners):
                listener(self)
        self.array.world.notify()


class FcArray(LunTable["FcVolume"]):
    """An array with some target ports.

    :param wwpns: names of its ports, 16 hexadecimal digits.
    """

    def __init__(self, world: World, units: Callable[..., Unit], wwpns: Sequence[str]) -> None:
        super().__init__(world, units, len(wwpns))
        self.world = world
        self.ports = [
            TargetPort(wwpn, f"2{wwpn[1:-2]}00", index, self) for index, wwpn in enumerate(wwpns)
        ]

    @property
    def wwpns(self) -> list[str]:
        """Names of its ports."""
        return [port.wwpn for port in self.ports]

    def volume(
        self, unit: Unit, numbers: list[int], addressing: str | None, reported: str | None
    ) -> FcVolume:
        return FcVolume(self.world, self, unit, numbers, addressing, reported)


class FcVolume(MappedUnit):
    """A unit under LUNs of an array's ports: what a service calls a volume."""

    def __init__(
        self,
        world: World,
        array: FcArray,
        unit: Unit,
        numbers: list[int],
        addressing: str | None,
        reported: str | None,
    ) -> None:
        super().__init__(world, array, unit, numbers, addressing, reported)
        self.array = array

    @property
    def properties(self) -> dict[str, Any]:
        """Connection properties as a driver gives them, without a map of initiators."""
        return self.connection()

    def connection(
        self,
        *,
        ports: Iterable[int] | None = None,
        spelling: Callable[[str], str] = str,
        text_lun: bool = False,
        **more: Any,
    ) -> dict[str, Any]:
        """Return connection properties.

        :param ports: indexes of the target ports that are named; all if None.
        :param spelling: rewrites WWPNs (upper case).
        :param text_lun: LUNs as text.
        :param more: further keys, such as ``initiator_target_map``.
        """
        chosen = list(range(len(self.array.ports)) if ports is None else ports)
        numbers = [self.numbers[index] for index in chosen]
        luns: list[int | str] = [str(number) if text_lun else number for number in numbers]
        data: dict[str, Any] = {
            "target_discovered": True,
            "target_wwn": [spelling(self.array.ports[index].wwpn) for index in chosen],
            "target_lun": luns[0],
            "volume_id": f"volume-{self.unit.serial}",
            "access_mode": "rw",
            "encrypted": False,
            "qos_specs": None,
        }
        if len(set(numbers)) > 1:
            data |= {"target_wwns": data["target_wwn"], "target_luns": luns}
        if self._addressing is not None:
            data["addressing_mode"] = self._addressing
        return data | more
