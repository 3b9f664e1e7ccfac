# SPDX-License-Identifier: Apache-2.0
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oslo_concurrency import processutils
from oslo_context import context

from os_brick import exception, executor, privileged
from os_brick.privileged import rootwrap

PASSWORD = ("iscsiadm", "-n", "node.session.auth.password", "-v")


class Recorder:
    """An execute function of a caller."""

    def __init__(self, answer: Any = ("", "")) -> None:
        self.calls: list[Any] = []
        self.answer = answer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture(autouse=True)
def in_process() -> Iterator[Any]:
    privileged.default.set_client_mode(False)
    yield
    privileged.default.set_client_mode(True)


def test_the_callers_function_gets_words_and_keywords_as_they_are() -> None:
    execute = Recorder()
    runner = executor.Executor("sudo helper", execute, "ignored", also="ignored")

    runner._execute("a", 5, run_as_root=True, root_helper=runner._root_helper, attempts=2)

    assert execute.calls == [
        (("a", 5), {"run_as_root": True, "root_helper": "sudo helper", "attempts": 2})
    ]


def test_functions_and_helpers_can_be_replaced() -> None:
    old, new = Recorder(), Recorder()
    runner = executor.Executor("sudo", execute=old)

    runner.set_execute(new)
    runner.set_root_helper("other")
    runner._execute("a")

    assert (len(old.calls), len(new.calls)) == (0, 1)
    assert runner._root_helper == "other"


def test_the_librarys_own_function_is_the_default() -> None:
    runner = executor.Executor("sudo")

    assert runner._execute("echo", "x", run_as_root=True, root_helper="sudo") == ("x\n", "")


def test_whose_function_it_is() -> None:
    assert not executor.Executor("sudo").has_own_execute
    assert not executor.Executor("sudo", rootwrap.execute).has_own_execute
    assert executor.Executor("sudo", processutils.execute).has_own_execute
    runner = executor.Executor("sudo", processutils.execute)
    runner.set_execute(None)
    assert not runner.has_own_execute


@pytest.mark.parametrize("answer", [None, (), ""])
def test_a_function_that_returns_nothing(answer: Any) -> None:
    assert executor.Executor("", Recorder(answer))._execute("a") == answer


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"le\xc3\xaddos", "leídos"),
        (b"le\xeddos", "ledos"),
        ("leídos", "leídos"),
        (os.fsdecode(b"le\xeddos"), "ledos"),
        ("plain", "plain"),
        (None, None),
    ],
)
def test_output_is_text(raw: Any, text: str) -> None:
    runner = executor.Executor("", Recorder((raw, raw)))

    assert runner._execute("a") == (text, text)
    assert executor.Executor.safe_decode(raw) == text


@pytest.mark.parametrize("cmd", [b"dd \xed", ["dd", b"\xed"]])
def test_texts_of_errors_are_text(cmd: Any) -> None:
    raw: Any = {"stdout": b"le\xeddos", "stderr": b"le\xc3\xaddos", "description": b"\xed"}
    failure = processutils.ProcessExecutionError(cmd=cmd, **raw)
    runner = executor.Executor("", Recorder(failure))

    with pytest.raises(processutils.ProcessExecutionError) as caught:
        runner._execute("a")

    exc = caught.value
    assert exc is failure
    assert (exc.stdout, exc.stderr, exc.description) == ("ledos", "leídos", "")
    assert exc.cmd in ("dd ", ["dd", ""])
    str(exc).encode("utf-8")
    assert "xed" not in repr(exc)


def test_make_putils_error_safe() -> None:
    raw: Any = b"a"
    failure = processutils.ProcessExecutionError(stdout=raw, exit_code=5)

    executor.Executor.make_putils_error_safe(failure)

    assert (failure.stdout, failure.stderr, failure.exit_code) == ("a", None, 5)


def test_other_errors_pass() -> None:
    for error in (OSError("no"), exception.BrickException("no")):
        with pytest.raises(type(error)) as caught:
            executor.Executor("", Recorder(error))._execute("a")
        assert caught.value is error


@given(secret=st.text(min_size=1, max_size=20).map(lambda text: text + "Zq7"))
def test_no_secret_in_errors_of_the_callers_function(secret: str) -> None:
    """oslo.concurrency masks by patterns: of ``a'b`` it lets ``'b`` through."""
    failure = processutils.ProcessExecutionError(
        stdout=f"said {secret}", stderr=secret, cmd=" ".join(PASSWORD) + " ***'Zq7", exit_code=1
    )

    with pytest.raises(processutils.ProcessExecutionError) as caught:
        executor.Executor("", Recorder(failure))._execute(*PASSWORD, secret)

    assert caught.value.cmd == " ".join(PASSWORD) + " ***"
    assert caught.value.exit_code == 1
    assert "Zq7" not in str(caught.value) + repr(caught.value)


def test_no_secret_with_processutils() -> None:
    runner = executor.Executor("", processutils.execute)

    with pytest.raises(processutils.ProcessExecutionError) as caught:
        runner._execute("sh", "-c", 'echo "$4"; exit 1', *PASSWORD, "a'b Zq7")

    assert "Zq7" not in str(caught.value) + repr(caught.value)


# --- links ----------------------------------------------------------------------------------------


def test_links_by_the_privileged_verbs(tmp_path: pathlib.Path) -> None:
    runner = executor.Executor("sudo")
    link = tmp_path / "link"

    runner._link_root("/dev/dm-3", str(link))
    assert os.readlink(link) == "/dev/dm-3"

    runner._unlink_root(str(link))
    assert not os.path.lexists(link)


def test_links_by_the_callers_function(tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)  # a directory, which must be replaced and not entered
    as_root = []

    def execute(*cmd: Any, run_as_root: Any, root_helper: Any) -> Any:
        as_root.append((run_as_root, root_helper))
        return processutils.execute(*cmd)

    runner = executor.Executor("sudo", execute)
    runner._link_root("/dev/dm-3", str(link))
    assert os.readlink(link) == "/dev/dm-3"

    runner._unlink_root(str(link))
    assert os.listdir(tmp_path) == []
    assert as_root == [(True, "sudo")] * 2


# --- threads --------------------------------------------------------------------------------------


@pytest.fixture
def request_context() -> Iterator[Any]:
    current = context.RequestContext(request_id="req-of-the-caller", overwrite=True)
    yield current
    del context._request_store.context


def test_a_thread_has_the_request_of_its_maker(request_context: Any) -> None:
    seen = []
    thread = executor.Thread(
        target=lambda *args, **kwargs: seen.append((args, kwargs, context.get_current())),
        args=(1,),
        kwargs={"two": 2},
        name="worker",
        daemon=True,
    )

    # It is the maker's at the time of making, not of starting.
    context.RequestContext(request_id="a later request", overwrite=True)
    thread.start()
    thread.join()

    assert seen == [((1,), {"two": 2}, request_context)]
    assert thread.name == "worker"
    assert thread.daemon


def test_a_thread_without_a_request() -> None:
    seen = []
    thread = executor.Thread(target=lambda: seen.append(context.get_current()))
    thread.start()
    thread.join()

    assert seen == [None]


def test_nothing_is_logged_by_default(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    executor.Executor("sudo")._execute("true")

    assert not caplog.records
