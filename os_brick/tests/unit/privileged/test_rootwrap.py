# SPDX-License-Identifier: Apache-2.0
"""Real processes are run here; none of the tests needs root."""

import contextlib
import logging
import os
import pathlib
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oslo_concurrency import processutils

from os_brick import exception, privileged
from os_brick.privileged import process, rootwrap

SECRET = "a'b\"c Zq7"


@pytest.fixture(autouse=True)
def in_process() -> Iterator[Any]:
    """Entry points run in this process, as in a service that is root."""
    privileged.default.set_client_mode(False)
    yield
    privileged.default.set_client_mode(True)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE_S", 0.2)
    monkeypatch.setattr(process, "KILL_S", 0.2)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pauses between tries, recorded instead of made."""
    made: list[float] = []
    monkeypatch.setattr(process, "pause", made.append)
    return made


@pytest.fixture(params=[False, True], ids=["user", "root"])
def as_root(request: pytest.FixtureRequest) -> Any:
    return request.param


def is_running(pid: Any) -> Any:
    """Whether a process is there and no zombie: who reaps orphans depends on the machine."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def have_ended(pids: Any) -> Any:
    """Whether processes end: those that were killed may take a moment for it."""
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        with os.fdopen(pidfd) as file:
            if not select.select([file], [], [], 10)[0]:
                return False
    return True


def pids_in(path: Any) -> Any:
    return [int(line) for line in path.read_text().split()]


# --- results --------------------------------------------------------------------------------------


def test_output_is_text(as_root: bool) -> None:
    assert rootwrap.execute("sh", "-c", "echo out; echo err >&2", run_as_root=as_root) == (
        "out\n",
        "err\n",
    )


def test_root_helper_is_ignored(as_root: bool) -> None:
    out, _err = rootwrap.execute("echo", "x", run_as_root=as_root, root_helper="false")

    assert out == "x\n"


@pytest.mark.parametrize("printed", [r"le\303\255dos", r"le\355dos"], ids=["utf-8", "latin-1"])
@pytest.mark.parametrize("code", [0, 1])
def test_output_that_is_not_utf8_is_dropped(printed: Any, code: Any) -> None:
    out, err = rootwrap.execute(
        "sh",
        "-c",
        f"printf '{printed}'; printf '{printed}' >&2; exit {code}",
        check_exit_code=[0, 1],
    )

    assert out == err
    assert out in ("leídos", "ledos")
    out.encode("utf-8")


def test_output_of_a_failure_is_text() -> None:
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        rootwrap.execute("sh", "-c", r"printf 'le\355dos' >&2; exit 1")

    assert caught.value.stderr == "ledos"


def test_binary() -> None:
    assert rootwrap.custom_execute("printf", r"\355", binary=True) == (b"\xed", b"")


@pytest.mark.parametrize("text", ["líne", "líne".encode()])
def test_process_input(text: str, as_root: bool) -> None:
    assert rootwrap.execute("cat", process_input=text, run_as_root=as_root) == ("líne", "")


def test_other_keywords(tmp_path: pathlib.Path, as_root: bool) -> None:
    out, _err = rootwrap.execute(
        *("sh", "-c", "echo $X; pwd"),
        cwd=str(tmp_path),
        env_variables={"X": "y", "PATH": os.environ["PATH"]},
        run_as_root=as_root,
    )

    assert out == f"y\n{tmp_path}\n"


def test_words_that_are_no_text(tmp_path: pathlib.Path, as_root: bool) -> None:
    out, _err = rootwrap.execute("echo", 5, tmp_path, run_as_root=as_root)

    assert out == f"5 {tmp_path}\n"


def test_limits(as_root: bool) -> None:
    limits = processutils.ProcessLimits(number_files=17)

    assert rootwrap.execute("sh", "-c", "ulimit -n", prlimit=limits, run_as_root=as_root) == (
        "17\n",
        "",
    )


def test_shell_without_root() -> None:
    assert rootwrap.custom_execute("echo $((1 + 1))", shell=True) == ("2\n", "")


@pytest.mark.parametrize("keyword", ["shell", "run_as_root"])
def test_execute_root_has_no_shell(keyword: Any) -> None:
    with pytest.raises(TypeError, match=keyword):
        rootwrap.execute_root("true", **{keyword: False})


def test_unknown_keyword(as_root: bool) -> None:
    with pytest.raises(TypeError, match="no_such_keyword"):
        rootwrap.execute("true", run_as_root=as_root, no_such_keyword=1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root needs no helper")
def test_root_helper_of_custom_execute() -> None:
    assert rootwrap.custom_execute("x", run_as_root=True, root_helper="echo a") == ("a x\n", "")
    with pytest.raises(processutils.NoRootWrapSpecified):
        rootwrap.custom_execute("x", run_as_root=True)


def test_sigpipe_ends_a_program() -> None:
    """Python ignores SIGPIPE; programs expect to be ended by it."""
    out, _err = rootwrap.execute("sh", "-c", "(yes; echo $? >&2) | head -1")

    assert out == "y\n"


def test_hooks(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []

    rootwrap.execute("true", on_execute=seen.append, on_completion=seen.append)

    assert len(seen) == 2
    assert seen[0] is seen[1]
    assert isinstance(seen[0], subprocess.Popen)


def test_a_hook_that_fails_ends_the_process(short_grace: Any) -> None:
    started = []

    def fail(running: Any) -> None:
        started.append(running)
        raise RuntimeError("hook")

    with pytest.raises(RuntimeError, match="hook"):
        rootwrap.execute("sleep", "1000", on_execute=fail)

    assert started[0].returncode == -signal.SIGKILL


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "code"),
    [(True, 0), (None, 0), (0, 0), ([0], 0), ((0, 5), 5), ({5}, 5), (5, 5), (False, 7), ([21], 21)],
)
def test_accepted_exit_codes(accepted: Any, code: Any, as_root: bool) -> None:
    rootwrap.execute("sh", "-c", f"exit {code}", check_exit_code=accepted, run_as_root=as_root)


@pytest.mark.parametrize(
    ("accepted", "code"), [(True, 1), (None, 1), (0, 1), ([0], 5), ((0, 5), 1), (5, 0), ([], 0)]
)
def test_other_exit_codes(accepted: Any, code: Any, as_root: bool) -> None:
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        rootwrap.execute(
            *("sh", "-c", f"echo out; echo err >&2; exit {code}"),
            check_exit_code=accepted,
            run_as_root=as_root,
        )

    exc = caught.value
    assert (exc.exit_code, exc.stdout, exc.stderr) == (code, "out\n", "err\n")
    assert str(exc.cmd).startswith("sh -c echo out")


def test_a_missing_program_is_an_execution_error(as_root: bool) -> None:
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        rootwrap.execute("/no/such/program", "--password", SECRET, run_as_root=as_root)

    assert caught.value.cmd == "/no/such/program --password ***"
    assert "No such file" in str(caught.value.description)
    assert "Zq7" not in repr(caught.value) + str(caught.value)


def test_a_missing_program_of_custom_execute_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        rootwrap.custom_execute("/no/such/program")


# --- tries ----------------------------------------------------------------------------------------


def tries(path: Any, fail_times: Any) -> Any:
    """A command that fails a number of times, and leaves a line at each try."""
    return ("sh", "-c", f"echo >> {path}; test $(wc -l < {path}) -gt {fail_times}")


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, [2, 4]),
        ({"interval": 3}, [6, 12]),
        ({"interval": 0.5, "backoff_rate": 1}, [0.5, 0.5]),
        ({"delay_on_retry": False}, []),
    ],
)
def test_pauses_come_before_tries_and_none_after_the_last(
    tmp_path: pathlib.Path, pauses: Any, keywords: Any, expected: Any, as_root: bool
) -> None:
    path = tmp_path / "tries"

    with pytest.raises(processutils.ProcessExecutionError):
        rootwrap.execute(*tries(path, 9), attempts=3, run_as_root=as_root, **keywords)

    assert pauses == expected
    assert len(path.read_text()) == 3


def test_a_pause_is_over_when_the_next_try_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[object] = []
    monkeypatch.setattr(process, "pause", lambda seconds: events.append(("pause", seconds)))

    with pytest.raises(processutils.ProcessExecutionError):
        rootwrap.execute("false", attempts=3, on_execute=lambda _proc: events.append("start"))

    assert events == ["start", ("pause", 2), "start", ("pause", 4), "start"]


def test_random_pause_of_oslo(tmp_path: pathlib.Path, pauses: Any) -> None:
    with pytest.raises(processutils.ProcessExecutionError):
        rootwrap.execute("false", attempts=3, delay_on_retry=True, interval=100)

    assert len(pauses) == 2
    assert all(0.2 <= pause <= 2 for pause in pauses)


def test_success_ends_the_tries(tmp_path: pathlib.Path, pauses: Any, as_root: bool) -> None:
    path = tmp_path / "tries"

    rootwrap.execute(*tries(path, 1), attempts=5, run_as_root=as_root)

    assert pauses == [2]
    assert len(path.read_text()) == 2


@pytest.mark.parametrize("attempts", [-1, 0, 1])
def test_there_is_always_one_try(attempts: Any, pauses: Any) -> None:
    with pytest.raises(processutils.ProcessExecutionError):
        rootwrap.execute("false", attempts=attempts)

    assert pauses == []


def test_the_last_failure_is_raised(tmp_path: pathlib.Path, pauses: Any) -> None:
    path = tmp_path / "tries"

    with pytest.raises(processutils.ProcessExecutionError) as caught:
        rootwrap.execute("sh", "-c", f"echo >> {path}; exit $(wc -l < {path})", attempts=3)

    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("log_errors", "codes"), [(0, []), (processutils.LOG_FINAL_ERROR, [3]), (1, [1, 2, 3])]
)
def test_which_failures_are_logged(
    tmp_path: pathlib.Path,
    pauses: Any,
    caplog: pytest.LogCaptureFixture,
    log_errors: Any,
    codes: Any,
) -> None:
    path = tmp_path / "tries"

    with pytest.raises(processutils.ProcessExecutionError):
        rootwrap.execute(
            *("sh", "-c", f"echo >> {path}; exit $(wc -l < {path})"),
            attempts=3,
            log_errors=log_errors,
            loglevel=logging.WARNING,
        )

    assert [code for code in (1, 2, 3) if f"Exit code: {code}" in caplog.text] == codes


def test_a_wrong_call_is_not_tried_again(pauses: Any, as_root: bool) -> None:
    with pytest.raises(TypeError):
        rootwrap.execute("true", attempts=3, no_such_keyword=1, run_as_root=as_root)

    assert pauses == []


# --- timeout: each of these hangs where a limit does not hold -------------------------------------


@pytest.mark.parametrize("accepted", [True, None, 0, [0], False])
def test_a_timeout_is_never_success(
    accepted: Any, as_root: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(exception.ExecutionTimeout) as caught:
        rootwrap.execute(
            "sleep", "1000", timeout=0.1, check_exit_code=accepted, run_as_root=as_root
        )

    exc = caught.value
    assert (exc.stdout, exc.exit_code, exc.cmd) == ("", None, "sleep 1000")
    assert str(exc.stderr).startswith("Time out on proc ")
    assert str(exc.stderr).endswith(" after waiting 0.1 seconds when running sleep 1000")
    assert "Stopping sleep 1000 with signal 15 after 0.1s." in caplog.text


def test_a_timeout_is_a_result_if_so_asked(as_root: bool) -> None:
    out, err = rootwrap.execute(
        "sh", "-c", "echo x; sleep 1000", timeout=0.1, raise_timeout=False, run_as_root=as_root
    )

    assert out == ""
    assert err.startswith("Time out on proc ")


@pytest.mark.parametrize("timeout", [0, None])
def test_no_limit(timeout: Any) -> None:
    assert rootwrap.execute("echo", "x", timeout=timeout) == ("x\n", "")


def test_each_try_has_the_whole_time(tmp_path: pathlib.Path, pauses: Any) -> None:
    path = tmp_path / "tries"

    with pytest.raises(exception.ExecutionTimeout):
        rootwrap.execute("sh", "-c", f"echo >> {path}; sleep 1000", attempts=2, timeout=0.3)

    assert len(path.read_text()) == 2
    assert pauses == [2]


def test_a_timeout_before_the_last_try_is_tried_again(tmp_path: pathlib.Path, pauses: Any) -> None:
    path = tmp_path / "tries"
    script = f"echo >> {path}; test $(wc -l < {path}) -gt 1 || sleep 1000; echo done"

    assert rootwrap.execute("sh", "-c", script, attempts=2, timeout=2) == ("done\n", "")


def test_the_signal_of_the_caller_is_sent(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "got"

    with pytest.raises(exception.ExecutionTimeout):
        rootwrap.execute(
            *("sh", "-c", f"trap 'echo USR1 > {path}; exit' USR1; sleep 1000 & wait"),
            timeout=0.3,
            signal=signal.SIGUSR1,
        )

    assert path.read_text() == "USR1\n"


def test_a_process_that_ignores_the_signal_is_killed(
    tmp_path: pathlib.Path, short_grace: Any
) -> None:
    path = tmp_path / "pids"
    script = f"trap '' TERM; echo $$ >> {path}; sleep 1000 & echo $! >> {path}; sleep 1000"

    with pytest.raises(exception.ExecutionTimeout):
        rootwrap.execute("sh", "-c", script, timeout=0.3)

    assert len(pids_in(path)) == 2
    assert have_ended(pids_in(path))


@pytest.mark.parametrize("output", ["", ">/dev/null 2>&1"], ids=["same output", "own output"])
def test_children_are_killed_too(tmp_path: pathlib.Path, short_grace: Any, output: Any) -> None:
    """Also those of a process that has ended at the signal, and that do not hold its output."""
    path = tmp_path / "pids"
    child = f"(trap '' TERM; sleep 1000 & echo $! >> {path}; wait) {output} &"

    with pytest.raises(exception.ExecutionTimeout):
        rootwrap.execute("sh", "-c", f"{child} sleep 1000", timeout=0.5)

    assert have_ended(pids_in(path))


def test_a_child_that_keeps_the_output_open_does_not_keep_the_caller(
    tmp_path: pathlib.Path, short_grace: Any
) -> None:
    path = tmp_path / "pids"

    with pytest.raises(exception.ExecutionTimeout):
        rootwrap.execute("sh", "-c", f"sleep 1000 & echo $! > {path}", timeout=0.3)

    assert have_ended(pids_in(path))


def test_what_cannot_be_stopped_is_reported(
    tmp_path: pathlib.Path, short_grace: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A grandchild in a session of its own is out of reach; the caller is released all the same."""
    path = tmp_path / "pids"
    program = f"import os, time; os.setsid(); open({str(path)!r}, 'w').write(str(os.getpid()))"

    with pytest.raises(exception.ExecutionTimeout) as caught:
        rootwrap.execute(
            *("sh", "-c", f'"{sys.executable}" -c "{program}; time.sleep(1000)" & wait'),
            timeout=1,
        )

    (pid,) = pids_in(path)
    assert is_running(pid)
    os.kill(pid, signal.SIGKILL)
    assert "left its group and is still running" in str(caught.value.stderr)
    assert "left its group and is still running" in caplog.text


def test_input_that_nobody_reads_does_not_keep_the_caller(short_grace: Any) -> None:
    with pytest.raises(exception.ExecutionTimeout):
        rootwrap.execute("sleep", "1000", process_input="x" * 1_000_000, timeout=0.2)


def test_a_timed_out_process_leaves_no_open_files(short_grace: Any) -> None:
    def open_files() -> set[tuple[str, str]]:
        found = set()
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # that of the listing itself
                found.add((number, os.readlink(f"/proc/self/fd/{number}")))
        return found

    before = open_files()  # What other tests have left open may be closed at any moment.
    kept: list[Any] = []  # What is still referred to is not closed by itself.
    for _time in range(3):
        with pytest.raises(exception.ExecutionTimeout):
            rootwrap.execute(
                "sh", "-c", "sleep 1000 & sleep 1000", timeout=0.1, on_execute=kept.append
            )

    assert open_files() - before == set()


def test_where_the_kernel_has_no_pidfd(
    monkeypatch: pytest.MonkeyPatch, short_grace: Any, tmp_path: pathlib.Path
) -> None:
    def missing(_pid: Any, _flags: Any = 0) -> None:
        raise OSError(38, "Function not implemented")

    path = tmp_path / "pid"

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", missing)
        with pytest.raises(exception.ExecutionTimeout):
            rootwrap.execute("sh", "-c", f"echo $$ > {path}; exec sleep 1000", timeout=0.3)

    assert have_ended(pids_in(path))


# --- secrets --------------------------------------------------------------------------------------


@given(
    middle=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
)
def test_no_secret_in_errors(middle: Any) -> None:
    secret = f"q{middle}Zq7"

    with pytest.raises(processutils.ProcessExecutionError) as caught:
        rootwrap.execute(
            *("sh", "-c", 'printf %s "$4"; printf %s "$4" >&2; exit 1', "iscsiadm"),
            *("-n", "node.session.auth.password", "-v", secret),
        )

    assert "***" in str(caught.value.stdout)
    assert "Zq7" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("script", ["true", "exit 1", "sleep 1000"])
def test_no_secret_in_logs(script: Any, caplog: pytest.LogCaptureFixture, as_root: bool) -> None:
    caplog.set_level(logging.DEBUG)

    try:
        rootwrap.execute(
            *("sh", "-c", f'echo "$4"; {script}', "iscsiadm"),
            *("-n", "node.session.auth.password", "-v", SECRET),
            timeout=0.3,
            run_as_root=as_root,
        )
    except processutils.ProcessExecutionError as exc:
        logging.getLogger("a service").exception("it failed: %r", exc)

    assert "Running cmd (subprocess): sh -c" in caplog.text
    assert "-v ***" in caplog.text
    assert "Zq7" not in caplog.text


def test_debug_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rootwrap.execute("true", loglevel=logging.INFO)

    assert "Running cmd (subprocess): true" in caplog.text
    assert 'CMD "true" returned: 0 in ' in caplog.text


def test_output_in_the_daemons_debug_line_is_masked() -> None:
    out, err = rootwrap.execute_root("sh", "-c", "echo 'password = Zq7'; echo plain >&2")

    assert out == "password = Zq7\n"
    assert "Zq7" not in repr((4, (out, err)))
    assert "plain" in repr((4, (out, err)))


def test_hidden_result() -> None:
    secret = privileged.Hidden("Zq7")

    assert secret == "Zq7"
    assert repr((4, {"x": [secret]})) == "(4, {'x': ['***']})"


# --- links ----------------------------------------------------------------------------------------


def test_link(tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link"

    rootwrap.link_root("/dev/dm-3", str(link))

    assert os.readlink(link) == "/dev/dm-3"
    assert os.listdir(tmp_path) == ["link"]


@pytest.mark.parametrize("existing", ["file", "link", "link to a directory", "dangling link"])
def test_link_replaces_what_is_there(tmp_path: pathlib.Path, existing: Any) -> None:
    link = tmp_path / "link"
    folder = tmp_path / "folder"
    folder.mkdir()
    if existing == "file":
        link.write_text("x")
    elif existing == "link to a directory":
        link.symlink_to(folder)
    else:
        link.symlink_to("/dev/null" if existing == "link" else "/none")

    rootwrap.link_root("/dev/dm-3", str(link), force=True)

    assert os.readlink(link) == "/dev/dm-3"
    assert sorted(os.listdir(tmp_path)) == ["folder", "link"]
    assert not os.listdir(folder)


def test_link_without_force_replaces_nothing(tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link"
    rootwrap.link_root("/dev/dm-3", str(link), force=False)

    with pytest.raises(FileExistsError):
        rootwrap.link_root("/dev/dm-4", str(link), force=False)
    assert os.readlink(link) == "/dev/dm-3"


def test_link_that_cannot_be_made_leaves_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").mkdir()

    with pytest.raises(OSError, match="directory"):
        rootwrap.link_root("/dev/dm-3", str(tmp_path / "link"))
    with pytest.raises(FileNotFoundError):
        rootwrap.link_root("/dev/dm-3", str(tmp_path / "missing" / "link"))
    assert os.listdir(tmp_path) == ["link"]


@pytest.mark.parametrize("path", ["relative", "", "/tmp/"])
def test_link_names_are_checked(path: str) -> None:
    with pytest.raises(exception.InvalidParameterValue):
        rootwrap.link_root("/dev/dm-3", path)
    with pytest.raises(exception.InvalidParameterValue):
        rootwrap.unlink_root(path)


def test_unlink(tmp_path: pathlib.Path) -> None:
    links = [str(tmp_path / name) for name in "abc"]
    for link in links:
        os.symlink("/none", link)

    rootwrap.unlink_root(*links)

    assert os.listdir(tmp_path) == []


def links_with_one_missing(tmp_path: pathlib.Path) -> Any:
    links = [str(tmp_path / name) for name in "abc"]
    for link in links:
        os.symlink("/none", link)
    os.unlink(links[1])
    return links


def test_unlink_stops_at_the_first_failure(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        rootwrap.unlink_root(*links_with_one_missing(tmp_path))

    assert os.listdir(tmp_path) == ["c"]


def test_unlink_raises_at_the_end(tmp_path: pathlib.Path) -> None:
    with pytest.raises(exception.ExceptionChainer, match="FileNotFoundError"):
        rootwrap.unlink_root(*links_with_one_missing(tmp_path), raise_at_end=True)

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("raise_at_end", [True, False])
def test_unlink_without_errors(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, raise_at_end: Any
) -> None:
    links = links_with_one_missing(tmp_path)

    rootwrap.unlink_root(*links, no_errors=True, raise_at_end=raise_at_end)

    assert os.listdir(tmp_path) == []
    assert f"Error unlinking {links[1]}" in caplog.text


def test_unlink_removes_no_device() -> None:
    with pytest.raises(PermissionError):
        rootwrap.unlink_root("/dev/null")
    assert os.path.exists("/dev/null")


def test_unlink_takes_no_other_keyword() -> None:
    with pytest.raises(TypeError, match="force"):
        rootwrap.unlink_root("/none", force=True)


# --- the contexts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["default", "brick_privsep_hide_output"])
def test_contexts(name: str) -> None:
    context = getattr(privileged, name)

    assert context is getattr(privileged, name)
    assert context.pypath == f"os_brick.privileged.{name}"
    assert context.cfg_section == "privsep_osbrick"
    assert set(context.conf.capabilities) == {21, 2}


def test_loggers_of_the_contexts() -> None:
    assert privileged.default.conf.logger_name == "os_brick.privileged"
    quiet = privileged.brick_privsep_hide_output.conf.logger_name
    assert quiet == "brick_privsep_hide_output"
    assert not logging.getLogger(quiet).isEnabledFor(logging.WARNING)


def test_no_other_context() -> None:
    with pytest.raises(AttributeError, match="other"):
        _ = privileged.other


@pytest.mark.parametrize("name", ["execute_root", "link_root", "unlink_root"])
def test_entry_points_need_only_the_default_context(name: str) -> None:
    assert privileged.default.is_entrypoint(getattr(rootwrap, name))
