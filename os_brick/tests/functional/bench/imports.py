# SPDX-License-Identifier: Apache-2.0
"""How long an import of the library's front door takes: fresh interpreters, in turn."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from typing import Any

from .cases import IMPORT, OURS, PEER

_LIMIT_S = 120
_PROGRAM = """
import json, sys, time
wall, cpu, before = time.perf_counter(), time.process_time(), len(sys.modules)
import os_brick.initiator.connector
print(json.dumps({
    "seconds": time.perf_counter() - wall,
    "cpu": time.process_time() - cpu,
    "modules": len(sys.modules) - before,
    "file": os_brick.__file__,
    "slept": 0.0,
    "programs": [],
}))
"""


def measure(repo: pathlib.Path, ours: str, peer: str, rounds: int) -> dict[str, Any]:
    """Return the document of this case.

    :param ours: the interpreter that has what our library needs.
    :param peer: the peer's interpreter.
    """
    ways = {OURS: (ours, {"PYTHONPATH": str(repo)}), PEER: (peer, {})}
    turns = []
    for number in range(rounds + 1):
        for name, (python, more) in ways.items():
            measured = _import(python, more)
            at_home = pathlib.Path(measured["file"]).is_relative_to(repo / "os_brick")
            assert at_home is (name == OURS), f"{name} is {measured['file']}"
            if number:  # The first round fills the page cache.
                turns.append(
                    {
                        "import": measured,
                        "contender": name,
                        "round": number,
                        "others": 0,
                        "trouble": "",
                        "leftovers": [],
                    }
                )
    return {"case": IMPORT, "title": "import of os_brick.initiator.connector", "turns": turns}


def _import(python: str, more: dict[str, str]) -> dict[str, Any]:
    known = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    done = subprocess.run(
        [python, "-c", _PROGRAM],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd="/",
        env=known | more,
        timeout=_LIMIT_S,
        text=True,
        check=True,
    )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured
