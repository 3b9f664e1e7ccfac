# SPDX-License-Identifier: Apache-2.0
"""``tools/bench``: the host's side."""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from ..machine import cli as lab
from ..machine import prepare
from ..machine.settings import LabError, Settings, read_settings
from . import cases, figures, imports, peer, verdicts

DESCRIPTION = """\
Measure attaching and detaching beside a hand-written minimum and the peer (os-brick of the
package index), in one machine and one run, in turn; print figures and verdicts.

Without a CASE all are measured, in about an hour under emulation. A CASE may be a pattern.
Exit codes: 0 every bound that was measured holds, 1 one is missed, 2 the bench itself failed.
"""
#: Overall, whatever happens.
_LIMIT_S = 2 * 3600 - 120
_QUICK_LIMIT_S = 3600
_IMPORTS = 15


def main(arguments: Sequence[str], repo: pathlib.Path) -> int:
    """Carry out one command; return the exit code for the shell."""
    parser = argparse.ArgumentParser(
        prog="tools/bench",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", metavar="CASE", nargs="*")
    parser.add_argument("--repeat", type=int, metavar="N", help="rounds of each case")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--report", action="store_true", help="show the latest of each case")
    chosen = parser.parse_args(list(arguments))
    try:
        names = cases.choose(chosen.cases)
        if chosen.list:
            return _list(names)
        settings = read_settings(repo)
        results = settings.repo / ".bench/results"
        if not chosen.report:
            results = _measure(settings, names, results, chosen)
        return _report(results, names)
    except (LabError, ValueError, subprocess.SubprocessError) as error:
        print(f"bench: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _list(names: Sequence[str]) -> int:
    for name in names:
        title = "fresh interpreters" if name == cases.IMPORT else cases.by_name(name).title
        print(f"{name:22} {title}")
    return 0


def _measure(
    settings: Settings, names: list[str], results: pathlib.Path, chosen: argparse.Namespace
) -> pathlib.Path:
    """Measure; return the folder of this run's results."""
    python = peer.prepare(settings.repo / ".bench/peer")
    folder = results / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    if cases.IMPORT in names:
        prepare.environment(settings)
        found = imports.measure(settings.repo, str(settings.venv / "bin/python"), python, _IMPORTS)
        (folder / f"{cases.IMPORT}.json").write_text(json.dumps(found, indent=1))
    inside = [name for name in names if name != cases.IMPORT]
    if not inside:
        return folder
    words = [*inside, "--peer", python]
    words += ["--repeat", str(chosen.repeat)] if chosen.repeat else []
    words += ["--quick"] if chosen.quick else []
    limit_s = _QUICK_LIMIT_S if chosen.quick else _LIMIT_S
    code = lab.in_machine(settings, "bench.run", words, limit_s)
    for file in (settings.share / "results/bench").glob("*.json"):
        shutil.copy(file, folder)
    if code:
        print(f"bench: the run in the machine ended with {code}", file=sys.stderr)
    return folder


def _report(results: pathlib.Path, names: Sequence[str]) -> int:
    """Show the figures and verdicts of the newest document of each case."""
    documents: dict[str, dict[str, Any]] = {}
    for file in sorted(results.rglob("*.json")):
        if file.stem in names:
            documents[file.stem] = json.loads(file.read_text())
    if not documents:
        print(f"bench: there are no results in {results}", file=sys.stderr)
        return 2
    ordered = [documents[name] for name in names if name in documents]
    found = figures.read(ordered)
    print(f"\nresults in {results}\n")
    print("\n".join(verdicts.table(found)) + "\n")
    for line in figures.troubles(ordered):
        print(f"TROUBLE {line}")
    judged = [each for each in verdicts.judge(found) if each.bound.key.case in names]
    print("\n".join(str(each) for each in judged))
    missed = [each for each in judged if each.holds is False]
    unknown = [each for each in judged if each.holds is None]
    print(
        f"{len(judged) - len(missed) - len(unknown)} bounds hold, {len(missed)} missed,"
        f" {len(unknown)} not measured"
    )
    if missed:
        return 1
    return 2 if unknown else 0
