# SPDX-License-Identifier: Apache-2.0
"""Run scenarios in the machine: one process that has loaded the library, a fork for each.

It counts in a file for as long as it goes on; the host side gives up a machine that does not.

Prints a line when a scenario begins and one when it ends, and ``N passed, N failed`` last.
Exit codes: 0 all passed, 1 some failed, 75 the machine could not be cleaned (the host side
boots a new one and goes on with the rest).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any

from . import scenarios
from .guest import daemons, host_state, kernel, lab, reset
from .targets import tcm_fc

SPOILED = 75
SUMMARY = lab.RESULTS / "summary.json"
#: Counted up for as long as this process watches over what goes on; ``machine.cli`` looks at it.
HEARTBEAT = pathlib.Path("/lab/heartbeat")
#: Time to clean up after a scenario, which has limits of its own for each step.
_CLEANING_LIMIT_S = 300.0


@dataclasses.dataclass
class Summary:
    """How far a run has come; kept in a file, so that a new machine can go on with it."""

    passed: list[str] = dataclasses.field(default_factory=list)
    failed: list[str] = dataclasses.field(default_factory=list)
    running: str = ""
    remaining: list[str] = dataclasses.field(default_factory=list)
    #: Those during which the machine froze, which were run again in a new one.
    repeated: list[str] = dataclasses.field(default_factory=list)

    def save(self) -> None:
        """Put it into its file."""
        partial = SUMMARY.with_suffix(".new")
        partial.write_text(json.dumps(dataclasses.asdict(self)))
        partial.replace(SUMMARY)


def main(arguments: Sequence[str]) -> int:
    """Carry out the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="tools/lab test")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true", help="name the scenarios, run none")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument(
        "--resume-frozen",
        action="store_true",
        help="the same, and run the scenario again, once, during which the machine froze",
    )
    chosen = parser.parse_args(list(arguments))
    found = scenarios.load_all()
    if chosen.list:
        for each in scenarios.choose(found, chosen.names):
            print(f"{each.name:42} {each.title} ({', '.join(sorted(each.groups))})")
        return 0
    try:
        todo = scenarios.choose(found, chosen.names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    lab.RESULTS.mkdir(parents=True, exist_ok=True)
    _beat()
    if (chosen.resume or chosen.resume_frozen) and SUMMARY.exists():
        summary = resumed(json.loads(SUMMARY.read_text()), frozen=chosen.resume_frozen)
        summary.save()
    else:
        summary = Summary(remaining=[each.name for each in todo])
        summary.save()
    todo = [each for each in todo if each.name in summary.remaining]
    print(f"{len(todo)} scenarios; loaded in {time.process_time():.1f} s", flush=True)
    return _run_all(todo, summary)


def resumed(saved: dict[str, Any], *, frozen: bool) -> Summary:
    """Return how a run goes on whose machine died, hung or froze: the scenario that ran then has
    failed, but one during which the whole machine froze is run again, once."""
    summary = Summary(**saved)
    if summary.running:
        if frozen and summary.running not in summary.repeated:
            summary.repeated.append(summary.running)
            summary.remaining.insert(0, summary.running)
        else:
            summary.failed.append(summary.running)
        summary.running = ""
    return summary


def _run_all(todo: list[scenarios.Scenario], summary: Summary) -> int:
    lab.LOGS.mkdir(exist_ok=True)
    lab.warm_up()
    reset.everything()
    normal = host_state.look(ask_multipathd=False)
    total = len(todo) + len(summary.passed) + len(summary.failed)
    for number, each in enumerate(todo):
        place = total - len(todo) + number + 1
        print(f"[{place:2}/{total}] {each.name}: {each.title}", flush=True)
        summary.running = each.name
        summary.remaining = [later.name for later in todo[number + 1 :]]
        summary.save()
        passed = _run_one(each)
        (summary.passed if passed else summary.failed).append(each.name)
        summary.running = ""
        summary.save()
        if not _cleaned(normal, passed):
            return SPOILED
    for name in summary.repeated:
        print(f"the machine froze during {name}, which was run again in a new one")
    for name in summary.failed:
        print(f"failed: {name}")
    print(f"{len(summary.passed)} passed, {len(summary.failed)} failed", flush=True)
    return 1 if summary.failed else 0


def _run_one(each: scenarios.Scenario) -> bool:
    """Run one scenario in a process of its own, within its limit."""
    began = time.monotonic()
    _prepare_daemons(each)
    ready, tell = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(ready)
        _in_child(each, tell)
    os.close(tell)
    outcome = _outcome(ready, pid, began + each.limit_s * kernel.PATIENCE)
    taken = time.monotonic() - began
    _end_group()
    times = ", ".join(f"{what} {seconds:.1f}" for what, seconds in outcome.get("times", []))
    if not outcome.get("failure"):
        print(f"        ok {taken:.1f} s  {times}", flush=True)
        return True
    failure = outcome["failure"]
    if outcome.get("hung"):
        failure = f"not done within {each.limit_s * kernel.PATIENCE:.0f} s\n{host_state.report()}"
    print(f"        FAILED after {taken:.1f} s  {times}\n{_indented(failure)}", flush=True)
    _show_log(each.name)
    return False


def _prepare_daemons(each: scenarios.Scenario) -> None:
    daemons.Iscsid().start()
    multipathd = daemons.Multipathd()
    if each.multipath is None:
        multipathd.stop()
    else:
        multipathd.start(each.multipath)
    multipathd.forget()


def _in_child(each: scenarios.Scenario, tell: int) -> None:
    """Run the scenario's body, then look for leftovers; never returns."""
    outcome: dict[str, Any] = {}
    world = None
    try:
        host_state.enter_group()
        from .guest import service

        service.log_to(lab.LOGS / f"{each.name}.log")
        service.set_up(**each.options)
        service.as_root()
        world = lab.Lab(each.name)
        each.body(world)
        world.heal()
        world.expect_clean()
    except BaseException as error:  # noqa: BLE001 - every failure is the result
        outcome["failure"] = _explained(error)
    if world is not None:
        outcome["times"] = world.times
    with open(tell, "w") as pipe:
        json.dump(outcome, pipe)
    sys.stdout.flush()
    os._exit(0)


def _explained(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    timeline = getattr(error, "timeline", None)
    if timeline is not None:
        text += f"timeline: {timeline}\n"
    return text + host_state.report()


def _outcome(ready: int, pid: int, end: float) -> dict[str, Any]:
    """Return what the child tells, or that it hung or died.

    Its end is its own end, not that of the pipe: what it forked may hold the pipe open.
    """
    os.set_blocking(ready, False)
    said = b""
    with open(ready, "rb", buffering=0) as pipe:
        ended = False
        while not ended:
            ended = os.waitpid(pid, os.WNOHANG)[0] != 0
            while piece := pipe.read():
                said += piece
            if not ended and time.monotonic() > end:
                os.kill(pid, signal.SIGUSR1)  # It writes its threads' stacks to its log.
                time.sleep(2)
                return {"failure": "hung", "hung": True}
            _beat()
            time.sleep(0.05)
    if not said:
        return {"failure": "the scenario's process died"}
    outcome: dict[str, Any] = json.loads(said)
    return outcome


def _end_group() -> None:
    """Kill every process that the scenario left, whoever is its parent now."""
    if host_state.GROUP.exists():
        kernel.write(host_state.GROUP / "cgroup.kill", "1")
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def _cleaned(normal: host_state.HostState, passed: bool) -> bool:
    """Bring the machine back to normal; False if it cannot be, or hangs over it."""
    problems: list[str] = []

    def clean() -> None:
        try:
            problems.extend(_clean(normal))
        except Exception:  # noqa: BLE001 - whatever it is, the machine is not clean
            problems.append(traceback.format_exc())

    cleaner = threading.Thread(target=clean, daemon=True)
    cleaner.start()
    end = time.monotonic() + _CLEANING_LIMIT_S
    while cleaner.is_alive() and time.monotonic() < end:
        _beat()
        cleaner.join(0.05)
    if cleaner.is_alive():
        problems.append(f"not done within {_CLEANING_LIMIT_S:.0f} s\n{host_state.stacks()}")
    for problem in problems:
        print(_indented(f"the machine cannot be cleaned: {problem}"), flush=True)
    if not passed and not problems:
        print("        cleaned up by force; going on", flush=True)
    return not problems


def _clean(normal: host_state.HostState) -> list[str]:
    reset.everything()
    if tcm_fc.is_stuck():
        return ["its array is stuck"]
    try:
        kernel.wait_for(
            lambda: not host_state.look(ask_multipathd=False).more_than(normal), "clean", 60
        )
    except kernel.NotSeen:
        return host_state.look(ask_multipathd=False).more_than(normal)
    return []


_beats = 0


def _beat() -> None:
    global _beats
    _beats += 1
    if _beats % 20 == 1:
        HEARTBEAT.write_text(str(_beats))


def _show_log(name: str) -> None:
    log = lab.LOGS / f"{name}.log"
    if not log.exists():
        return
    text = log.read_text(errors="replace")
    (lab.RESULTS / log.name).write_text(text)
    print(_indented("log, its end (whole: results/" + log.name + "):"))
    print(_indented("\n".join(text.splitlines()[-60:])), flush=True)


def _indented(text: str) -> str:
    return "\n".join("        | " + line for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
