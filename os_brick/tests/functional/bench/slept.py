# SPDX-License-Identifier: Apache-2.0
"""How long this process sleeps: ``time.sleep`` notes its own duration.

Only pauses count that nothing can end early; a wait that an event ends is not a loss.  To be
switched on before anything is imported that keeps ``time.sleep`` under a name of its own.
"""

from __future__ import annotations

import threading
import time

_mutex = threading.Lock()
_total_s = 0.0
_sleep = time.sleep


def switch_on() -> None:
    """Note sleeps from now on."""
    time.sleep = _noted  # type: ignore[assignment]


def total_s() -> float:
    """Return the seconds slept so far, summed over all threads."""
    return _total_s


def _noted(seconds: float) -> None:
    global _total_s
    began = time.monotonic()
    try:
        _sleep(seconds)
    finally:
        taken = time.monotonic() - began
        with _mutex:
            _total_s += taken
