# SPDX-License-Identifier: Apache-2.0
"""A clock for what has no host: pauses cost nothing, and are kept."""

from __future__ import annotations

import threading


class Clock:
    """Moves by the pauses that somebody makes."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def now(self) -> float:
        return sum(self.pauses)

    def wait(self, seconds: float, event: threading.Event | None = None) -> None:
        self.pauses.append(seconds)
