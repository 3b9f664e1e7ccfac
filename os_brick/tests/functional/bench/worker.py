# SPDX-License-Identifier: Apache-2.0
"""The process of one contender: takes orders, one JSON object a line, and answers each.

Started by ``contender`` as ``python -m functional.bench.worker NAME LOG`` with the folder above
``functional`` on the path, so that ``os_brick`` is whatever the interpreter has under that name.

An order is ``{"do": "attach", "volumes": [[name, properties], …]}``, or ``extend`` or ``detach``;
all volumes are dealt with at once, in a thread each.  The answer has ``seconds`` (from the start
of the first to the end of the last), ``each``, ``slept``, ``paths``, ``told`` and ``errors``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from typing import IO, Any, Protocol

from . import cases, slept


class Contender(Protocol):
    """Who attaches and detaches."""

    def about(self) -> dict[str, str]:
        """Say what this is."""

    def attach(self, name: str, properties: dict[str, Any]) -> str:
        """Attach a volume and return its device."""

    def detach(self, name: str, properties: dict[str, Any]) -> None:
        """Detach a volume."""

    def extend(self, name: str, properties: dict[str, Any]) -> str:
        """Learn a volume's new size, in bytes, and return it as text."""

    def told(self) -> list[str]:
        """Return what it says of its calls since the last question."""


def main(name: str, log: str) -> int:
    """Carry out orders until there are no more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What anybody prints must not be taken for an answer.
    began = time.monotonic()
    slept.switch_on()
    contender = _make(name, log)
    _tell(answers, contender.about() | {"seconds": time.monotonic() - began})
    for line in sys.stdin:
        _tell(answers, _carry_out(contender, json.loads(line)))
    return 0


def _make(name: str, log: str) -> Contender:
    if name == cases.MINIMUM:
        from .minimum import Minimum

        return Minimum()
    from .library import Library

    return Library(log)


def _tell(answers: IO[str], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")


def _carry_out(contender: Contender, order: dict[str, Any]) -> dict[str, Any]:
    deed = getattr(contender, order["do"])
    volumes = order["volumes"]
    paths: dict[str, str | None] = {}
    each: dict[str, float] = {}
    errors: dict[str, str] = {}
    start = threading.Event()

    def one(name: str, properties: dict[str, Any]) -> None:
        start.wait()
        began = time.monotonic()
        try:
            paths[name] = deed(name, properties)
        except BaseException:  # noqa: BLE001 - it is the answer
            errors[name] = traceback.format_exc()
        each[name] = time.monotonic() - began

    threads = [threading.Thread(target=one, args=(n, p)) for n, p in volumes]
    for thread in threads:
        thread.start()
    slept_before = slept.total_s()
    began = time.monotonic()
    start.set()
    for thread in threads:
        thread.join()
    return {
        "seconds": time.monotonic() - began,
        "slept": slept.total_s() - slept_before,
        "each": each,
        "paths": paths,
        "errors": errors,
        "told": contender.told(),
    }


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
