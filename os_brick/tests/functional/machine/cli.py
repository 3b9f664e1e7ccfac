# SPDX-License-Identifier: Apache-2.0
"""The commands of ``tools/lab``."""

from __future__ import annotations

import argparse
import fcntl
import pathlib
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence

from . import boot, channel, prepare, qemu
from .prepare import say
from .settings import LabError, Settings, read_settings

DESCRIPTION = """\
Real initiators against real targets in one virtual machine.

  up             prepare this host (packages, kernel, Python) and boot the machine
  exec CMD...    run a command in it, as root; its output and exit code are yours
  test [NAME...] run scenarios: names, patterns, groups ("smoke", "iscsi"); all by default
  demo [PROTO]   attach, write, read back, check on the target's side, detach, look
  list           name the scenarios
  down           end the machine
"""
#: The whole set of scenarios, in emulation; each scenario has its own, shorter limit.
TEST_LIMIT_S = 3 * 3600
DEMO_LIMIT_S = 600
_SIGN_OF_LIFE_S = 30
#: Exit code of a run that left a machine which nothing can clean any more.
SPOILED = 75
#: Exit code of a run whose machine does nothing at all any more, not even take orders.
FROZEN = 122
#: What a run ends with whose rest is for a new machine.
_GIVEN_UP = (SPOILED, FROZEN, channel.MACHINE_GONE, channel.JOB_HUNG)


def main(arguments: Sequence[str], repo: pathlib.Path) -> int:
    """Carry out one command; return the exit code for the shell."""
    parser = argparse.ArgumentParser(
        prog="tools/lab",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("words", nargs=argparse.REMAINDER)
    chosen = parser.parse_args(list(arguments))
    try:
        return COMMANDS[chosen.command](read_settings(repo), chosen.words)
    except (LabError, subprocess.SubprocessError) as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        return 130


def up(settings: Settings, words: list[str]) -> int:
    """Bring the machine up; nothing to do if it is."""
    settings.machine.mkdir(parents=True, exist_ok=True)
    with (settings.machine / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _up(settings)


def _up(settings: Settings) -> int:
    if qemu.running_pid(settings) is not None:
        say("the machine is up")
        return 0
    prepare.packages(())
    unpacked, release, image = prepare.kernel(settings)
    prepare.environment(settings)
    kernel = prepare.kernel_image(unpacked)
    accel = qemu.accelerator(settings, kernel, image)
    _new_share(settings)
    python = str(settings.venv / "bin/python")
    script = boot.boot_script(unpacked, release, settings.repo, python)
    (settings.share / "boot.sh").write_text(script)
    (settings.share / "agent.sh").write_text(channel.AGENT)
    began = time.monotonic()
    say(f"booting Linux {release} ({accel}, {settings.cpus} CPUs, {settings.memory_mib} MiB)")
    process = qemu.start(settings, kernel, image, accel)
    while not (settings.share / "ready").exists():
        if process.poll() is not None or time.monotonic() - began > settings.boot_limit_s:
            qemu.stop(settings)
            raise LabError(f"the machine did not come up:\n{_console_tail(settings)}")
        time.sleep(0.05)
    code, output = channel.Channel(settings).run("true", 60)
    if code:
        raise LabError(f"the machine is up but runs no command: {output.decode(errors='replace')}")
    say(f"up after {time.monotonic() - began:.1f} s; it ends by itself in {settings.lifetime_s} s")
    return 0


def _new_share(settings: Settings) -> None:
    """Empty the folder that host and guest share, but for the results of earlier runs."""
    settings.share.mkdir(parents=True, exist_ok=True)
    (settings.share / "ready").unlink(missing_ok=True)
    shutil.rmtree(settings.share / "jobs", ignore_errors=True)


def down(settings: Settings, words: list[str]) -> int:
    """End the machine."""
    say("the machine is down" if qemu.stop(settings) else "there was no machine")
    return 0


def execute(settings: Settings, words: list[str]) -> int:
    """Run one command in the machine."""
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        raise LabError("exec needs a command")
    if qemu.running_pid(settings) is None:
        up(settings, [])
    setup = "export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n"
    code, _ = channel.Channel(settings).run(
        setup + channel.script_of(words), settings.exec_limit_s, channel.to_stdout
    )
    if code in (channel.TIMED_OUT, channel.MACHINE_GONE):
        say("the command's time was over" if code == channel.TIMED_OUT else "the machine ended")
    return code


def test(settings: Settings, words: list[str]) -> int:
    """Run scenarios in the machine; boots it first if needed, and leaves it as it was."""
    end = time.monotonic() + TEST_LIMIT_S
    # How far another run came is not for this one to go on with.
    progress = settings.share / "results/summary.json"
    progress.unlink(missing_ok=True)
    code, before = in_machine(settings, "run", words, TEST_LIMIT_S), ""
    while code in _GIVEN_UP and time.monotonic() < end:
        if code == channel.MACHINE_GONE and qemu.was_stopped(settings):
            break
        now = progress.read_text() if progress.exists() else ""
        if now == before:
            say("this machine came no further than the one before")
            break
        before = now
        say("going on with the rest in a new machine")
        qemu.stop(settings)
        # A guest whose processors stand still has not been brought there by what runs in it.
        how = "--resume-frozen" if code == FROZEN else "--resume"
        code = in_machine(settings, "run", [*words, how], end - time.monotonic())
    return code


def demo(settings: Settings, words: list[str]) -> int:
    """Show one volume's way, step by step."""
    return in_machine(settings, "demo", words, DEMO_LIMIT_S)


def list_names(settings: Settings, words: list[str]) -> int:
    """Name the scenarios; needs no machine."""
    prepare.environment(settings)
    command = [str(settings.venv / "bin/python"), "-m", "os_brick.tests.functional.run", "--list"]
    return subprocess.run([*command, *words], cwd=settings.repo, check=False).returncode


def in_machine(settings: Settings, module: str, words: list[str], limit_s: float) -> int:
    """Run a module of ``os_brick.tests.functional`` in the machine; return its exit code.

    Boots the machine if none is up, and ends it then.
    """
    settings.machine.mkdir(parents=True, exist_ok=True)
    with (settings.machine / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError("another test or demo is running in this machine") from None
        return _alone_in_python(settings, module, words, limit_s)


def _alone_in_python(settings: Settings, module: str, words: list[str], limit_s: float) -> int:
    was_up = qemu.running_pid(settings) is not None
    prepare.packages(protocols_of(words))
    up(settings, [])
    try:
        prepare.compile_bytes(settings)
        _bring_code(settings)
        python = settings.venv / "bin/python"
        script = f"""
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONUNBUFFERED=1
cd {shlex.quote(str(settings.repo))}
sh /lab/code.sh || exit 2
exec {shlex.quote(str(python))} -m os_brick.tests.functional.{module} {shlex.join(words)}
"""
        heart = None
        if module == "run":
            heart = channel.Heart(settings.share / "heartbeat", settings.silence_limit_s)
        code, _ = channel.Channel(settings).run(script, limit_s, channel.to_stdout, heart)
        if code == channel.JOB_HUNG:
            code = _look_at_hung(settings)
    finally:
        if not was_up:
            qemu.stop(settings)
    if code == channel.TIMED_OUT:
        say(f"not done after {limit_s} s: ended")
    if code == channel.MACHINE_GONE:
        say(f"the machine ended meanwhile:\n{_console_tail(settings)}")
    return code


def _look_at_hung(settings: Settings) -> int:
    """Say what the machine does whose run has stopped; return the exit code for it."""
    code, output = channel.Channel(settings).run("ps -eo pid,stat,wchan:30,args", _SIGN_OF_LIFE_S)
    frozen = code != 0
    say("the machine is frozen" if frozen else "the run hangs, its machine does not")
    if not frozen:
        say(output.decode(errors="replace"))
    say("\n".join(qemu.threads(settings)))
    say(_console_tail(settings))
    return FROZEN if frozen else channel.JOB_HUNG


def protocols_of(words: Sequence[str]) -> list[str]:
    """Return the protocols with packages of their own that chosen scenarios may be of."""
    chosen = [word for word in words if not word.startswith("-")]
    return [
        protocol
        for protocol in prepare.MORE_PACKAGES
        if chosen in ([], ["all"])
        or "smoke" in chosen
        or any(word.startswith((protocol, "*", "?", "[")) for word in chosen)
    ]


def _bring_code(settings: Settings) -> None:
    """Hand the library as it is now to the guest, whose view of the host may be older.

    The guest keeps it in memory, at the same place: it also loads faster from there.
    """
    parcel = settings.share / "code.tar"
    subprocess.run(
        ["tar", "-C", str(settings.repo), "-cf", str(parcel), "os_brick"], check=True, timeout=60
    )
    place = shlex.quote(str(settings.repo / "os_brick"))
    (settings.share / "code.sh").write_text(
        f"mkdir -p {place}\n"
        f"mountpoint -q {place} || mount -t tmpfs -o size=100m,mode=755 code {place}\n"
        f"find {place} -mindepth 1 -delete\n"
        f"tar -C {shlex.quote(str(settings.repo))} -xf /lab/code.tar\n"
    )


def _console_tail(settings: Settings) -> str:
    text = ""
    for name in ("console.log", "qemu.log"):
        path = settings.machine / name
        if path.exists():
            text += path.read_text(errors="replace")[-3000:]
    return text


COMMANDS: dict[str, Callable[[Settings, list[str]], int]] = {
    "up": up,
    "down": down,
    "exec": execute,
    "test": test,
    "demo": demo,
    "list": list_names,
}
