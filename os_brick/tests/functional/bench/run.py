# SPDX-License-Identifier: Apache-2.0
"""Measure in the machine: contenders take turns at attaching and detaching, round by round.

Each case's figures are put into a file of ``/lab/results/bench`` as soon as it is done.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Sequence
from typing import Any

from ..guest import lab, reset
from . import cases
from .contender import Contender, Failed
from .fc_stage import FcStage
from .nvme_stage import NvmeStage
from .stage import Stage

RESULTS = lab.RESULTS / "bench"
#: A contender that has failed so often in a case has no more turns in it.
_PATIENCE = 2
_STAGES: dict[str, type[Stage]] = {
    "ISCSI": Stage,
    "NVMEOF": NvmeStage,
    "FIBRE_CHANNEL": FcStage,
}

Turn = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Measure the cases that are named; return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+")
    parser.add_argument("--peer", required=True, help="the peer's interpreter")
    parser.add_argument("--repeat", type=int)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args(list(arguments))
    RESULTS.mkdir(parents=True, exist_ok=True)
    for old in RESULTS.glob("*.json"):
        old.unlink()
    reset.everything()
    contenders = {
        cases.MINIMUM: Contender(cases.MINIMUM, sys.executable, ours=True),
        cases.OURS: Contender(cases.OURS, sys.executable, ours=True),
        cases.PEER: Contender(cases.PEER, chosen.peer, ours=False),
    }
    try:
        about = {name: _introduced(each) for name, each in contenders.items()}
        for name in chosen.names:
            case = cases.by_name(name)
            rounds = chosen.repeat or (case.quick if chosen.quick else case.rounds)
            once = case.silent and case.protocol == "ISCSI"
            _measure(case, 1 if once else rounds, contenders, about)
    finally:
        for each in contenders.values():
            each.end()
        reset.everything()
    return 0


def _introduced(contender: Contender) -> dict[str, Any]:
    """Wait until a contender is loaded, and insist that it is who it should be."""
    about = contender.ready()
    print(
        f"{contender.name:8} {about['version'] or '-'} {about['file']},"
        f" loaded in {about['seconds']:.1f} s",
        flush=True,
    )
    here = pathlib.Path(__file__).resolve().parents[3]
    at_home = pathlib.Path(about["file"]).is_relative_to(here)
    assert at_home is (contender.name != cases.PEER), f"{contender.name} is {about['file']}"
    return about


def _measure(
    case: cases.Case, rounds: int, contenders: dict[str, Contender], about: dict[str, Any]
) -> None:
    began = time.monotonic()
    print(f"== {case.name}: {case.title}", flush=True)
    turns: list[Turn] = []
    for others in case.others:
        stage = _STAGES[case.protocol](case, others)
        try:
            stage.build()
            _warm_up(stage, case, [contenders[name] for name in case.contenders])
            turns += _rounds(stage, case, rounds, contenders, others)
        finally:
            stage.clear()
    uname = platform.uname()
    found = {
        "case": case.name,
        "title": case.title,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"kernel": uname.release, "cpus": os.cpu_count()},
        "contenders": about,
        "turns": turns,
    }
    partial = RESULTS / f"{case.name}.new"
    partial.write_text(json.dumps(found, indent=1))
    partial.replace(RESULTS / f"{case.name}.json")
    print(f"   {time.monotonic() - began:.0f} s for the case", flush=True)


def _warm_up(stage: Stage, case: cases.Case, contenders: list[Contender]) -> None:
    """Have each contender load what it loads late, and the targets know the initiator."""
    kind = (case.protocol, case.portals > 1)
    for number, each in enumerate(contenders):
        if number and kind in each.warm:
            continue
        volumes = stage.volumes[:1] if number else stage.volumes
        try:
            for do in ("attach", "detach"):
                errors = each.ask(do, volumes, case.limit_s)["errors"]
                if errors:
                    raise Failed(next(iter(errors.values())))
                stage.wait_until_quiet()
            each.warm.add(kind)
        except (Failed, AssertionError) as error:
            print(f"   warming up, {each.name}: TROUBLE {error}", flush=True)
            stage.again()


def _rounds(
    stage: Stage, case: cases.Case, rounds: int, contenders: dict[str, Contender], others: int
) -> list[Turn]:
    turns: list[Turn] = []
    for number in range(1, rounds + 1):
        for name in case.contenders:
            lost = [turn for turn in turns if turn["contender"] == name and turn["trouble"]]
            if len(lost) >= _PATIENCE:
                continue
            turn = _turn(stage, case, contenders[name])
            turns.append(turn | {"contender": name, "round": number, "others": others})
            _show(turns[-1])
            if turn["trouble"] or turn["leftovers"]:
                stage.again()
    return turns


def _turn(stage: Stage, case: cases.Case, contender: Contender) -> Turn:
    """Attach, check, detach, look for leftovers."""
    turn: Turn = {"trouble": "", "leftovers": []}
    stage.spoil()
    try:
        turn["attach"] = _asked(contender, "attach", stage, case)
        turn["paths"] = stage.check(turn["attach"].pop("paths"))
        if case.extends:
            stage.grow()
            turn["extend"] = _asked(contender, "extend", stage, case)
        turn["detach"] = _asked(contender, "detach", stage, case)
        turn["leftovers"] = stage.leftovers()
    except (Failed, AssertionError, OSError) as error:
        turn["trouble"] = f"{type(error).__name__}: {error}"
    finally:
        stage.heal()
    return turn


def _asked(contender: Contender, do: str, stage: Stage, case: cases.Case) -> Turn:
    answer = contender.ask(do, stage.volumes, case.limit_s)
    if answer["errors"]:
        raise Failed(f"{do}: " + "\n".join(answer.pop("errors").values()))
    return answer


def _show(turn: Turn) -> None:
    parts = [
        f"{do} {turn[do]['seconds']:.2f} s, {len(turn[do]['programs'])} programs,"
        f" slept {turn[do]['slept']:.2f} s"
        for do in ("attach", "extend", "detach")
        if do in turn
    ]
    among = f" among {turn['others']}" if turn["others"] else ""
    print(f"   {turn['round']} {turn['contender']:8}{among} {'; '.join(parts)}", flush=True)
    if turn["trouble"]:
        print("     TROUBLE " + turn["trouble"].replace("\n", "\n     "), flush=True)
    for left in turn["leftovers"]:
        print(f"     LEFT OVER: {left}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
