# SPDX-License-Identifier: Apache-2.0
import inspect
import logging
import pickle
import sys
import threading
from typing import Any

import pytest
from oslo_concurrency import processutils
from oslo_utils import importutils

from os_brick import exception


def of_the_catalogue() -> Any:
    return [
        cls
        for _name, cls in inspect.getmembers(exception, inspect.isclass)
        if issubclass(cls, exception.BrickException) and cls.__module__ == exception.__name__
    ]


def rebuilt(exc: Any) -> Any:
    """What oslo.privsep makes of an error of its daemon: class by name, positional arguments."""
    cls = type(exc)
    return importutils.import_class(f"{cls.__module__}.{cls.__name__}")(*exc.args)


def test_text_from_the_template() -> None:
    exc = exception.VolumeDeviceNotFound(device="/dev/sda")

    assert str(exc) == exc.msg == "Volume device not found at /dev/sda."
    assert exc.kwargs == {"device": "/dev/sda", "code": 500}


def test_ready_text_is_not_formatted() -> None:
    assert str(exception.BrickException("50% of %(this)s")) == "50% of %(this)s"
    assert str(exception.BrickException(ValueError("cause"))) == "cause"


def test_code_and_safe() -> None:
    assert exception.NotFound().kwargs["code"] == exception.NotFound.code == 404
    assert exception.NotFound.safe
    assert exception.Invalid.code == 400
    assert exception.BrickException(code=7).kwargs["code"] == 7


@pytest.mark.parametrize("keywords", [{}, {"wrong": "s3cret"}])
def test_wrong_keywords_are_logged_and_raise_nothing(
    keywords: Any, caplog: pytest.LogCaptureFixture
) -> None:
    exc = exception.VolumeNotDeactivated(**keywords)

    assert str(exc) == "Volume %(name)s was not deactivated in time."
    assert "does not fit" in caplog.text
    assert "s3cret" not in caplog.text


def test_reason_is_told() -> None:
    exc = exception.VolumeDeviceNotFound(device="LUN 5", reason="No portal answered.")

    assert str(exc) == "Volume device not found at LUN 5. No portal answered."
    assert exc.kwargs["reason"] == "No portal answered."


def test_headers_are_not_shared() -> None:
    exc = exception.BrickException()
    exc.headers["x"] = "1"

    assert exception.BrickException().headers == exception.BrickException.headers == {}


def test_timeline_is_none_until_set() -> None:
    exc = exception.BrickException()
    assert exc.timeline is None
    exc.timeline = "log in: 0.2 s"
    assert exception.BrickException().timeline is None


@pytest.mark.parametrize("cls", of_the_catalogue())
def test_every_error_survives_the_way_from_the_daemon(cls: Any) -> None:
    exc = cls("the text %s of it")

    assert type(rebuilt(exc)) is cls
    assert str(rebuilt(exc)) == str(exc) == "the text %s of it"


def test_a_formatted_error_survives_the_way_from_the_daemon() -> None:
    exc = exception.VolumePathNotRemoved(volume_path=["/dev/sda"])

    assert str(rebuilt(exc)) == str(exc) == "Volume path ['/dev/sda'] was not removed in time."


def test_invalid_connector_protocol_is_a_value_error() -> None:
    assert issubclass(exception.InvalidConnectorProtocol, ValueError)
    assert not issubclass(exception.InvalidConnectorProtocol, exception.BrickException)


def test_targets_not_found_keeps_what_was_found() -> None:
    exc = exception.HostChannelsTargetsNotFound(iqns=["iqn.a"], found=[(1, 0, 0)])

    assert exc.found == [(1, 0, 0)]
    assert "iqn.a" in str(exc)


def test_execution_timeout() -> None:
    exc = exception.ExecutionTimeout(stdout="", stderr="Time out", cmd="sleep")

    assert isinstance(exc, processutils.ProcessExecutionError)
    assert exc.exit_code is None
    assert type(rebuilt(exc)) is exception.ExecutionTimeout
    assert rebuilt(exc).stderr == "Time out"


def test_no_other_name() -> None:
    with pytest.raises(AttributeError, match="NoSuchError"):
        _ = exception.NoSuchError


# --- ExceptionChainer -----------------------------------------------------------------------------


def fail(text: Any) -> None:
    raise ValueError(text)


def test_empty_chain_is_false() -> None:
    chain = exception.ExceptionChainer()

    assert not chain
    with chain.context(True, "never logged"):
        pass
    assert not chain


def test_chain_tells_each_error(caplog: pytest.LogCaptureFixture) -> None:
    chain = exception.ExceptionChainer()
    for number in (1, 2, 3):
        with chain.context(True, "Removing %s of %s failed", number, 3):
            fail(f"cause {number}")

    assert chain
    text = str(chain)
    for number in (1, 2, 3):
        assert f"Chained Exception #{number}\n" in text
        assert f"ValueError: cause {number}" in text
        assert f"Removing {number} of 3 failed" in caplog.text
    assert "Chained Exception #4" not in text
    assert "in fail" in text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert repr(chain) == text


def test_message_is_optional(caplog: pytest.LogCaptureFixture) -> None:
    with exception.ExceptionChainer().context(True):
        fail("x")

    assert not caplog.records


def test_context_gives_the_chain() -> None:
    chain = exception.ExceptionChainer()

    with chain.context(True) as inside:
        assert inside is chain


def test_error_goes_on_if_not_to_be_caught() -> None:
    chain = exception.ExceptionChainer()

    with pytest.raises(ValueError, match="x"), chain.context(False):
        fail("x")
    assert chain


def test_nested_contexts_keep_their_settings() -> None:
    chain = exception.ExceptionChainer()

    def steps() -> None:
        with chain.context(False, "outer"):
            with chain.context(True, "inner"):
                fail("inner")
            fail("outer")

    with pytest.raises(ValueError, match="outer"):
        steps()

    assert "Chained Exception #2" in str(chain)


def test_an_error_that_passes_two_contexts_is_told_once() -> None:
    chain = exception.ExceptionChainer()

    with chain.context(True), chain.context(False):
        fail("x")

    assert "Chained Exception #2" not in str(chain)


def test_threads_keep_their_settings() -> None:
    chain = exception.ExceptionChainer()
    inside = threading.Barrier(8)
    swallowed = {}

    def work(number: Any) -> None:
        try:
            with chain.context(number % 2 == 0, "thread %s", number):
                inside.wait()
                fail(f"cause {number}")
            swallowed[number] = True
        except ValueError:
            swallowed[number] = False

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert swallowed == {number: number % 2 == 0 for number in range(8)}
    assert "Chained Exception #8" in str(chain)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_request_to_stop_is_not_swallowed(stop: Any) -> None:
    chain = exception.ExceptionChainer()

    with pytest.raises(stop), chain.context(True):
        raise stop

    assert chain


def test_raised_chain_names_its_first_cause() -> None:
    chain = exception.ExceptionChainer()
    for text in ("first", "second"):
        with chain.context(True):
            fail(text)

    with pytest.raises(exception.ExceptionChainer, match="first") as caught:
        raise chain
    assert str(caught.value.__cause__) == "first"


def test_chain_raised_in_its_own_context_is_not_told_in_itself() -> None:
    chain = exception.ExceptionChainer()
    with chain.context(True):
        fail("x")

    with chain.context(True):
        raise chain

    assert "Chained Exception #2" not in str(chain)


@pytest.mark.parametrize(
    "item",
    [
        (ValueError, ValueError("v"), "no traceback"),
        (ValueError, ValueError("v"), None),
        (ValueError, "v", None),
        ("a name", "v", ["odd"]),
        (None, None, None),
    ],
)
def test_anything_can_be_stored(item: Any) -> None:
    chain = exception.ExceptionChainer()
    chain.add_exception(*item)

    assert chain
    assert str(chain).startswith("Chained Exception #1\n")
    assert str(item[1]) in str(chain)


def test_add_exception_as_sys_exc_info_gives_it() -> None:
    chain = exception.ExceptionChainer()
    try:
        fail("x")
    except ValueError:
        chain.add_exception(*sys.exc_info())

    assert "in fail" in str(chain)


def test_chain_as_context_manager_stores_and_raises() -> None:
    chain = exception.ExceptionChainer()

    with pytest.raises(ValueError, match="x"), chain:
        fail("x")

    assert chain


def test_chain_survives_the_way_from_the_daemon() -> None:
    chain = exception.ExceptionChainer()
    for text in ("first", "second"):
        with chain.context(True):
            fail(text)

    for other in (rebuilt(chain), pickle.loads(pickle.dumps(chain))):
        assert other
        assert str(other) == str(chain)
        assert "Chained Exception #2" in str(other)
    assert not rebuilt(exception.ExceptionChainer())


def test_chain_with_a_message_is_still_empty() -> None:
    chain = exception.ExceptionChainer("a message")

    assert not chain
    assert str(chain) == "a message"
