# SPDX-License-Identifier: Apache-2.0
import logging
import operator
import os
import pathlib
import subprocess
import time
import types
from collections.abc import Iterator
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st
from oslo_concurrency import processutils

from os_brick import exception, executor, privileged, utils
from os_brick.privileged import nvmeof

SECRET = "a'b Zq7"


# --- retry ----------------------------------------------------------------------------------------


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Any:
    made: list[float] = []
    monkeypatch.setattr(utils, "_time_sleep", made.append)
    return made


class Failing:
    """A function that fails a number of times, each time with an exception of its own."""

    def __init__(self, times: Any, error: Any = ValueError) -> None:
        self.times = times
        self.error = error
        self.raised: list[BaseException] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(self.raised) == self.times:
            return args, kwargs
        self.raised.append(self.error("again") if isinstance(self.error, type) else self.error)
        raise self.raised[-1]


def retried(function: Any, *args: Any, **kwargs: Any) -> Any:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return utils.retry(*args, **kwargs)(wrapped)


def test_success_needs_no_pause(pauses: Any) -> None:
    assert retried(Failing(0), ValueError)(1, a=2) == ((1,), {"a": 2})
    assert pauses == []


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, [1, 2]),
        ({"retries": 5}, [1, 2, 4, 8]),
        ({"interval": 3, "retries": 4}, [3, 6, 12]),
        ({"interval": 2, "backoff_rate": 1}, [2, 2]),
        ({"interval": 0.5, "backoff_rate": 3, "retries": 4}, [0.5, 1.5, 4.5]),
        ({"retries": 1}, []),
        ({"interval": 0}, [0, 0]),
    ],
)
def test_pauses(pauses: Any, keywords: Any, expected: Any) -> None:
    with pytest.raises(ValueError, match="again"):
        retried(Failing(99), ValueError, **keywords)()

    assert pauses == expected


def test_the_last_exception_is_raised_unchanged(pauses: Any) -> None:
    failing = Failing(99)

    with pytest.raises(ValueError, match="again") as caught:
        retried(failing, ValueError)()

    assert len(failing.raised) == 3
    assert caught.value is failing.raised[-1]


def test_success_after_failures(pauses: Any) -> None:
    assert retried(Failing(2), (KeyError, ValueError))() == ((), {})
    assert pauses == [1, 2]


def test_subclasses_count(pauses: Any) -> None:
    assert retried(Failing(1, KeyError), LookupError)() == ((), {})


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_other_exceptions_pass_at_once(pauses: Any, error: Any) -> None:
    failing = Failing(99, error)

    with pytest.raises(error) as caught:
        retried(failing, ValueError)()

    assert failing.raised == [caught.value]
    assert pauses == []


@pytest.mark.parametrize("retries", [0, -1])
def test_retries_start_at_one(retries: Any) -> None:
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        utils.retry(KeyError, retries=retries)


def test_name_is_kept() -> None:
    @utils.retry(ValueError)
    def some_name() -> None:
        """Some text."""

    assert (some_name.__name__, some_name.__doc__) == ("some_name", "Some text.")


@pytest.mark.parametrize(
    ("codes", "code", "again"),
    [(5, 5, True), (5, 6, False), ((5, 6), 6, True), ((5, 6), 7, False), (0, None, False)],
)
def test_retry_by_exit_code(pauses: Any, codes: Any, code: Any, again: Any) -> None:
    failing = Failing(99, processutils.ProcessExecutionError(exit_code=code))

    with pytest.raises(processutils.ProcessExecutionError):
        retried(failing, codes, retry=utils.retry_if_exit_code)()

    assert len(failing.raised) == (3 if again else 1)


def test_retry_by_exit_code_of_another_exception(pauses: Any) -> None:
    failing = Failing(99)

    with pytest.raises(ValueError, match="again"):
        retried(failing, 5, retry=utils.retry_if_exit_code)()

    assert len(failing.raised) == 1


def test_exit_codes_as_a_condition_of_tenacity() -> None:
    failing = Failing(2, processutils.ProcessExecutionError(exit_code=5))

    @tenacity.retry(
        retry=utils.retry_if_exit_code((4, 5)) & tenacity.retry_if_exception_message(match=".*"),
        stop=tenacity.stop_after_attempt(3),
    )
    def call() -> Any:
        return failing()

    call()

    assert len(failing.raised) == 2
    assert issubclass(utils.retry_if_exit_code, tenacity.retry_if_exception)


def test_exit_codes_that_are_not_meant_end_a_retry_of_tenacity() -> None:
    failing = Failing(2, processutils.ProcessExecutionError(exit_code=6))

    with pytest.raises(processutils.ProcessExecutionError):
        tenacity.retry(retry=utils.retry_if_exit_code(5), reraise=True)(failing)()

    assert len(failing.raised) == 1


def test_failures_that_are_tried_again_are_not_logged(
    pauses: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    retried(Failing(2), ValueError)()

    assert not caplog.records


def test_the_pause_of_the_process_is_not_patched() -> None:
    assert time.sleep.__module__ == "time"
    assert utils._time_sleep is time.sleep


# --- trace ----------------------------------------------------------------------------------------


class Connector:
    @utils.trace
    def connect_volume(
        self, connection_properties: Any, *more: Any, force: Any = False, **kwargs: Any
    ) -> Any:
        """Connect."""
        if "raise" in connection_properties:
            raise ValueError(f"bad {connection_properties['raise']['auth_password']}")
        self.got = connection_properties
        return {"path": "/dev/sda", "auth_password": connection_properties.get("auth_password")}


@pytest.fixture
def debug(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.DEBUG)
    return caplog


def test_trace_of_a_call(debug: pytest.LogCaptureFixture) -> None:
    Connector().connect_volume({"target_lun": 1}, 5, force=True, other=6)

    call, end = debug.messages
    assert call.startswith("==> connect_volume: call {'self': ")
    assert "'connection_properties': {'target_lun': 1}" in call
    assert "'force': True" in call
    assert "'kwargs': {'other': 6}" in call
    assert end.startswith("<== connect_volume: return (")
    assert end.endswith("ms) {'path': '/dev/sda', 'auth_password': None}")
    assert {record.name for record in debug.records} == {Connector.__module__}
    assert {record.levelno for record in debug.records} == {logging.DEBUG}


def test_trace_of_a_failure(debug: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="bad") as caught:
        Connector().connect_volume({"raise": {"auth_password": SECRET}})

    assert SECRET in str(caught.value)
    end = debug.messages[-1]
    assert end.startswith("<== connect_volume: exception (")
    assert "ValueError" in end
    assert "Zq7" not in debug.text


def test_trace_masks_what_it_logs_and_nothing_else(debug: pytest.LogCaptureFixture) -> None:
    connector = Connector()
    result = connector.connect_volume({"auth_password": SECRET, "nested": [{"secret": SECRET}]})

    assert connector.got["auth_password"] == connector.got["nested"][0]["secret"] == SECRET
    assert result["auth_password"] == SECRET
    assert len(debug.messages) == 2
    assert "Zq7" not in debug.text


@given(secret=st.text(max_size=20).map(lambda text: text + "Zq7"))
def test_no_secret_in_a_trace(secret: str) -> None:
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Handler()
    logger = logging.getLogger(Connector.__module__)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        Connector().connect_volume(
            {"auth_password": secret, "a": ({"discovery_auth_password": secret},)},
            passphrase=secret,
        )
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

    assert len(lines) == 2
    assert "Zq7" not in "".join(lines)


def test_trace_computes_nothing_without_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    class Untouchable:
        def __repr__(self) -> str:
            raise AssertionError("looked at")

    assert Connector().connect_volume({"x": Untouchable()})["path"] == "/dev/sda"
    assert not caplog.records


def test_trace_of_a_function(debug: pytest.LogCaptureFixture) -> None:
    @utils.trace
    def function(a: Any, b: Any = 2) -> Any:
        return a + b

    assert function(1) == 3
    assert debug.messages[0] == "==> function: call {'a': 1}"
    assert debug.records[0].name == "os_brick.utils"


def test_trace_of_a_wrong_call(debug: pytest.LogCaptureFixture) -> None:
    connect: Any = Connector().connect_volume
    with pytest.raises(TypeError):
        connect()

    assert "TypeError" in debug.messages[-1]


def test_trace_keeps_the_name() -> None:
    assert Connector.connect_volume.__name__ == "connect_volume"
    assert Connector.connect_volume.__doc__ == "Connect."


# --- small ones -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "connector", "expected"),
    [
        ("x86_64", "ALL", True),
        ("x86_64", "all", True),
        ("s390x", "S390X", True),
        ("s390x", "S390", False),
        ("x86_64", "X86", False),
    ],
)
def test_platform_matches(current: Any, connector: Any, expected: Any) -> None:
    assert utils.platform_matches(current, connector) is expected


@pytest.mark.parametrize(
    ("current", "connector", "expected"),
    [
        ("linux2", "ALL", True),
        ("linux2", "LINUX", True),
        ("linux", "Linux", True),
        ("win32", "WIN", True),
        ("win32", "LINUX", False),
    ],
)
def test_os_matches(current: Any, connector: Any, expected: Any) -> None:
    assert utils.os_matches(current, connector) is expected


def test_merge_dict() -> None:
    one, two = {"a": 1, "b": 1}, {"b": 2}

    assert utils.merge_dict(one, two) == {"a": 1, "b": 2}
    assert (one, two) == ({"a": 1, "b": 1}, {"b": 2})


@pytest.mark.parametrize("wrong", [None, [], "x", type("Special", (dict,), {})()])
def test_merge_dict_takes_dictionaries(wrong: Any) -> None:
    with pytest.raises(Exception, match="dictionaries"):
        utils.merge_dict({}, wrong)
    with pytest.raises(Exception, match="dictionaries"):
        utils.merge_dict(wrong, {})


def test_convert_str() -> None:
    assert utils.convert_str("leídos".encode()) == "leídos"
    assert utils.convert_str("leídos") == "leídos"


@pytest.mark.parametrize("other", [None, 5, "x", utils.ANY, float("nan")])
def test_anything(other: Any) -> None:
    """Equal to everything, greater and smaller than nothing, on either side."""
    for left, right in ((utils.ANY, other), (other, utils.ANY)):
        assert operator.eq(left, right)
        for compare in (operator.ne, operator.lt, operator.gt, operator.le, operator.ge):
            assert not compare(left, right)


def test_anything_shows_as_such() -> None:
    assert isinstance(utils.ANY, utils.Anything)
    assert repr(utils.ANY) == "<Anything>"


@pytest.mark.parametrize(
    ("kind", "encoded", "passphrase"),
    [
        ("passphrase", "pässword\n".encode(), "pässword\n"),
        ("symmetric", b"\x04\xff", "04ff"),
        ("opaque", b"abc", "616263"),
    ],
)
def test_passphrase(kind: Any, encoded: Any, passphrase: Any) -> None:
    key = types.SimpleNamespace(managed_type=lambda: kind, get_encoded=lambda: encoded)

    assert utils.get_passphrase_from_secret(key) == passphrase


# --- devices --------------------------------------------------------------------------------------


class Host:
    """An execute function that answers with one thing, and remembers what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls: list[Any] = []

    def __call__(self, *cmd: Any, **kwargs: Any) -> Any:
        self.calls.append((cmd, kwargs))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("out", "size"),
    [("1073741824\n", 1073741824), ("0", 0), ("", None), ("-5", None), ("not found", None)],
)
def test_device_size(out: Any, size: Any) -> None:
    host = Host((out, ""))

    assert utils.get_device_size(executor.Executor("sudo", host), "/dev/sda") == size
    assert host.calls == [
        (
            ("blockdev", "--getsize64", "/dev/sda"),
            {"run_as_root": True, "root_helper": "sudo", "timeout": 600},
        )
    ]


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        (("", "1+0 records in"), True),
        (("", ""), True),
        (("", None), False),
        (processutils.ProcessExecutionError(stderr="Input/output error", exit_code=1), False),
        (exception.ExecutionTimeout(stderr="Time out"), False),
    ],
)
def test_check_valid_device(answer: Any, valid: Any, caplog: pytest.LogCaptureFixture) -> None:
    host = Host(answer)

    assert utils.check_valid_device(executor.Executor("sudo", host), "/dev/sda") is valid
    assert host.calls == [
        (
            ("dd", "if=/dev/sda", "of=/dev/null", "count=1"),
            {"run_as_root": True, "root_helper": "sudo", "timeout": 600},
        )
    ]
    assert ("/dev/sda" in caplog.text) == isinstance(answer, Exception)


# --- the host's NVMe identity ---------------------------------------------------------------------


@pytest.fixture
def nvme(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What stands in for /etc/nvme, for reading and for making."""
    privileged.default.set_client_mode(False)
    monkeypatch.setattr(utils, "HOST_NQN_FILE", str(tmp_path / "nvme/hostnqn"))
    monkeypatch.setattr(utils, "HOST_ID_FILE", str(tmp_path / "nvme/hostid"))
    monkeypatch.setattr(nvmeof, "NVME_DIR", str(tmp_path / "nvme"))
    yield tmp_path / "nvme"
    privileged.default.set_client_mode(True)


def test_identity_that_is_there(nvme: Any) -> None:
    nvme.mkdir()
    (nvme / "hostnqn").write_text("nqn.here \n")
    (nvme / "hostid").write_text("id-here\n")

    assert utils.get_host_nqn("uuid") == "nqn.here"
    assert utils.get_nvme_host_id("uuid") == "id-here"


def test_identity_is_made_once(nvme: Any) -> None:
    nqn = utils.get_host_nqn("some-uuid")

    assert nqn == "nqn.2014-08.org.nvmexpress:uuid:some-uuid"
    assert utils.get_host_nqn("another-uuid") == nqn
    assert utils.get_nvme_host_id("some-uuid") == "some-uuid"
    assert utils.get_nvme_host_id("another-uuid") == "some-uuid"


@pytest.mark.parametrize("uuid", [None, ""])
def test_host_id_is_random_without_a_uuid(nvme: Any, uuid: Any) -> None:
    made = utils.get_nvme_host_id(uuid)

    assert made is not None
    assert len(made) == 36
    assert utils.get_nvme_host_id(uuid) == made


def test_an_empty_file_counts_as_none(nvme: Any) -> None:
    nvme.mkdir()
    (nvme / "hostid").write_text("\n")

    assert utils.get_nvme_host_id("some-uuid") == "some-uuid"


def test_a_file_that_is_no_text(nvme: Any, caplog: pytest.LogCaptureFixture) -> None:
    nvme.mkdir()
    (nvme / "hostnqn").write_bytes(b"\xff\xfe")

    assert utils.get_host_nqn("uuid") is None
    assert "hostnqn" in caplog.text


# --- links for encrypted volumes ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/dev/dm-3", "+dev+dm-3"),
        ("/dev/md/alias", "+dev+md+alias"),
        ("/dev/mapper/3600a", "+dev+mapper+3600a"),
        ("/dev/mapper/a+b", "+dev+mapper+a%2Bb"),
        ("/dev/mapper/100%", "+dev+mapper+100%25"),
    ],
)
def test_names_of_links(path: str, name: str) -> None:
    assert utils._symlink_name_from_device_path(path) == "/dev/disk/by-id/os-brick" + name


@given(st.text(st.sampled_from("/+%2B5ad-"), max_size=20))
def test_every_path_survives_the_round_trip(path: str) -> None:
    link = utils._symlink_name_from_device_path(path)

    assert "/" not in link.removeprefix(utils.CUSTOM_LINK_PREFIX)
    assert utils._device_path_from_symlink(link) == path


@pytest.mark.parametrize("path", ["/dev/sda", "/dev/disk/by-id/wwn-0x5", "", None, object(), b"x"])
def test_what_is_no_link_of_ours_stays(path: str) -> None:
    assert utils._device_path_from_symlink(path) is path


def test_a_link_of_an_older_version_with_a_percent_sign() -> None:
    assert (
        utils._device_path_from_symlink("/dev/disk/by-id/os-brick+dev+mapper+100%")
        == "/dev/mapper/100%"
    )


HANDLE = object()


@pytest.mark.parametrize(
    ("properties", "device_info", "path"),
    [
        ({"device_path": "/dev/a"}, {"path": "/dev/b"}, "/dev/b"),
        ({"device_path": "/dev/a"}, {"path": ""}, "/dev/a"),
        ({"device_path": "/dev/a"}, {}, "/dev/a"),
        ({"device_path": "/dev/a"}, None, "/dev/a"),
        ({"device_path": "/dev/a"}, object(), "/dev/a"),
        ({"device_path": b"/dev/a"}, None, "/dev/a"),
        ({}, {"path": b"/dev/b"}, "/dev/b"),
        ({}, {"path": HANDLE}, HANDLE),
        ({"device_path": None}, None, ""),
        ({}, None, ""),
    ],
)
def test_dev_path(properties: Any, device_info: Any, path: str) -> None:
    assert utils.get_dev_path(properties, device_info) == path


class Encrypted(executor.Executor):
    """A connector: the decorators as they are meant to be used, and what reached the functions."""

    def __init__(self, path: Any = "/dev/null", execute: Any = None) -> None:
        super().__init__("sudo", execute)
        self.path = path
        self.got: list[Any] = []
        self.failure: Exception | None = None
        self.broken_cleanup = False

    @utils.connect_volume_prepare_result
    def connect_volume(self, connection_properties: Any) -> Any:
        """Connect."""
        return {"type": "block", "path": self.path}

    @utils.connect_volume_undo_prepare_result(unlink_after=True)
    def disconnect_volume(
        self,
        connection_properties: Any,
        device_info: Any,
        force: Any = False,
        ignore_errors: Any = False,
    ) -> None:
        """Disconnect."""
        self.got.append((connection_properties, device_info, force, ignore_errors))
        if self.broken_cleanup:
            raise RuntimeError("cleanup")
        if self.failure:
            raise self.failure

    @utils.connect_volume_undo_prepare_result
    def extend_volume(self, connection_properties: Any) -> Any:
        """Extend."""
        self.got.append(connection_properties)
        return 5


@pytest.fixture
def links(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The folder of our links; root's verbs run in this process."""
    privileged.default.set_client_mode(False)
    monkeypatch.setattr(utils, "CUSTOM_LINK_PREFIX", f"{tmp_path}/os-brick")
    yield tmp_path
    privileged.default.set_client_mode(True)


def test_what_is_not_encrypted_stays(links: Any) -> None:
    connector = Encrypted()

    for properties in ({}, {"encrypted": False}):
        assert connector.connect_volume(properties)["path"] == "/dev/null"
        connector.disconnect_volume(properties, {"path": "/dev/null"}, force=True)
        connector.extend_volume(properties)

    assert connector.got[0] == ({}, {"path": "/dev/null"}, True, False)
    assert os.listdir(links) == []


@pytest.mark.parametrize("path", ["{}/device", "{}/a+b", "{}/md/100%+"])
@pytest.mark.parametrize("kind", [str, os.fsencode], ids=["text", "bytes"])
def test_round_trip(links: Any, path: str, kind: Any) -> None:
    device = links / path.format(links).removeprefix(f"{links}/")
    device.parent.mkdir(exist_ok=True)
    device.symlink_to("/dev/null")
    connector = Encrypted(kind(str(device)))
    properties = {"encrypted": True, "lun": 1}

    info = connector.connect_volume(properties)
    link = info["path"]
    assert link.startswith(f"{links}/os-brick")
    assert os.readlink(link) == "/dev/null"  # The real device, not what led to it.

    # As cryptsetup's user does:
    os.unlink(link)
    os.symlink("/dev/mapper/crypt-x", link)

    properties["device_path"] = link
    before = (dict(properties), dict(info))
    assert connector.extend_volume(properties) == 5
    assert os.path.lexists(link)
    connector.disconnect_volume(properties, info, True, ignore_errors=True)

    assert connector.got == [
        {**properties, "device_path": str(device)},
        ({**properties, "device_path": str(device)}, {**info, "path": str(device)}, True, True),
    ]
    assert (properties, info) == before
    assert not os.path.lexists(link)


@pytest.mark.parametrize("existing", ["file", "link"])
def test_what_is_at_the_links_place_is_replaced(links: Any, existing: Any) -> None:
    place = links / "os-brick+dev+null"
    if existing == "file":
        place.write_text("x")
    else:
        place.symlink_to("/dev/mapper/an-old-one")

    assert Encrypted().connect_volume({"encrypted": True})["path"] == str(place)
    assert os.readlink(place) == "/dev/null"


def test_a_handle_stays(links: Any) -> None:
    connector = Encrypted(HANDLE)
    info = connector.connect_volume({"encrypted": True})

    assert info["path"] is HANDLE
    connector.disconnect_volume({"encrypted": True}, info)
    assert connector.got == [({"encrypted": True}, info, False, False)]


@pytest.mark.parametrize("info", [None, {}, object()])
def test_disconnect_with_the_path_in_the_properties_alone(links: Any, info: Any) -> None:
    connector = Encrypted()
    properties = {"encrypted": True}
    properties["device_path"] = link = connector.connect_volume(properties)["path"]

    connector.disconnect_volume(properties, info)

    assert connector.got == [({"encrypted": True, "device_path": "/dev/null"}, info, False, False)]
    assert not os.path.lexists(link)


def test_disconnect_with_the_properties_as_device_info(links: Any) -> None:
    connector = Encrypted()
    properties = {"encrypted": True}
    properties["device_path"] = connector.connect_volume(properties)["path"]

    connector.disconnect_volume(connection_properties=properties, device_info=properties)

    ((got, info, _force, _ignore),) = connector.got
    assert got["device_path"] == "/dev/null"
    assert info["path"] == "/dev/null"


def test_the_link_of_udev_stays(links: Any) -> None:
    connector = Encrypted()
    properties = {"encrypted": True, "device_path": "/dev/disk/by-id/wwn-0x5"}

    connector.disconnect_volume(properties, None)

    assert connector.got == [(properties, None, False, False)]


def test_the_link_stays_if_the_disconnect_fails(links: Any) -> None:
    connector = Encrypted()
    info = connector.connect_volume({"encrypted": True})
    connector.failure = exception.VolumePathNotRemoved(volume_path="sda")

    with pytest.raises(exception.VolumePathNotRemoved):
        connector.disconnect_volume({"encrypted": True}, info)
    assert os.path.lexists(info["path"])


def test_a_link_that_cannot_be_removed_is_a_warning(
    links: Any, caplog: pytest.LogCaptureFixture
) -> None:
    connector = Encrypted()
    info = connector.connect_volume({"encrypted": True})
    os.unlink(info["path"])

    connector.disconnect_volume({"encrypted": True}, info)

    assert f"Failed to remove encrypted custom symlink {info['path']}" in caplog.text


@pytest.mark.parametrize("broken_cleanup", [False, True])
def test_the_volume_is_disconnected_if_the_link_cannot_be_made(
    links: Any, broken_cleanup: Any
) -> None:
    (links / "os-brick+dev+null").mkdir()
    connector = Encrypted()
    connector.broken_cleanup = broken_cleanup

    with pytest.raises(IsADirectoryError):
        connector.connect_volume({"encrypted": True})

    assert connector.got == [
        ({"encrypted": True}, {"type": "block", "path": "/dev/null"}, True, True)
    ]


def test_links_go_through_the_callers_function(links: Any) -> None:
    commands = []

    def execute(*cmd: Any, **kwargs: Any) -> Any:
        commands.append((cmd, kwargs))
        return processutils.execute(*cmd)

    connector = Encrypted(execute=execute)
    info = connector.connect_volume({"encrypted": True})
    assert os.readlink(info["path"]) == "/dev/null"
    connector.disconnect_volume({"encrypted": True}, info)
    assert not os.path.lexists(info["path"])

    assert [(cmd[0], kwargs) for cmd, kwargs in commands] == [
        ("ln", {"run_as_root": True, "root_helper": "sudo"}),
        ("rm", {"run_as_root": True, "root_helper": "sudo"}),
    ]


def test_a_connector_that_is_no_executor(links: Any) -> None:
    class Plain:
        @utils.connect_volume_prepare_result
        def connect_volume(self, connection_properties: Any) -> Any:
            return {"path": "/dev/null"}

        @utils.connect_volume_undo_prepare_result(unlink_after=True)
        def disconnect_volume(self, connection_properties: Any, device_info: Any) -> None:
            pass

    info = Plain().connect_volume({"encrypted": True})
    assert os.readlink(info["path"]) == "/dev/null"
    Plain().disconnect_volume({"encrypted": True}, info)
    assert not os.path.lexists(info["path"])


def test_decorators_keep_names() -> None:
    assert Encrypted.connect_volume.__name__ == "connect_volume"
    assert Encrypted.disconnect_volume.__doc__ == "Disconnect."
    assert Encrypted.extend_volume.__name__ == "extend_volume"


class Foreign:
    def __init__(self, answer: Any = ("", "")) -> None:
        self.answer = answer
        self.keywords: dict[str, Any] = {}

    def __call__(self, *words: str, **keywords: Any) -> Any:
        self.keywords = keywords
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_supplied_execute_is_given_a_limit() -> None:
    run = Foreign(("", "1+0"))
    assert utils.check_valid_device(executor.Executor("sudo", run), "/dev/sda")
    assert run.keywords.get("timeout")
    run = Foreign(("512", ""))
    assert utils.get_device_size(executor.Executor("sudo", run), "/dev/sda") == 512
    assert run.keywords.get("timeout")


@pytest.mark.parametrize("error", [OSError("no"), subprocess.TimeoutExpired("dd", 600)])
def test_a_device_whose_check_does_not_end_is_not_valid(error: Exception) -> None:
    assert not utils.check_valid_device(executor.Executor("sudo", Foreign(error)), "/dev/sda")
