# SPDX-License-Identifier: Apache-2.0
"""The privileged daemon itself: a real one, without privileges, started by a process of its own."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest

HELPER = shutil.which("privsep-helper", path=os.path.dirname(sys.executable)) or shutil.which(
    "privsep-helper"
)

pytestmark = pytest.mark.skipif(HELPER is None, reason="privsep-helper is not installed")

# No capabilities: any user may start it. DEBUG: it tells all it would ever tell.
CONFIG = """
[DEFAULT]
debug = True
[privsep_osbrick]
capabilities =
helper_command = {helper} --config-file {path}
"""

PRELUDE = """
import json, logging, os, sys
logging.basicConfig(level=logging.DEBUG, filename=sys.argv[2])
from oslo_config import cfg
cfg.CONF(["--config-file", sys.argv[1]], project="service")
from os_brick import exception, privileged
from os_brick.privileged import rootwrap

def attempt(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except Exception as exc:
        return type(exc).__name__, str(exc), bool(exc)
"""


@pytest.fixture
def service(tmp_path: pathlib.Path) -> Any:
    """Runs lines of Python in a service; returns what they put into ``result``, and all logs."""
    config = tmp_path / "service.conf"
    config.write_text(CONFIG.format(helper=HELPER, path=config))
    log = tmp_path / "service.log"

    def run(lines: Any) -> Any:
        program = PRELUDE + lines + "\nprint(json.dumps(result))\n"
        done = subprocess.run(
            [sys.executable, "-c", program, str(config), str(log)],
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), log.read_text() + done.stderr

    return run


def test_commands_run_in_the_daemon(service: Any) -> None:
    result, _log = service(
        """
hooks = []
out, err = rootwrap.execute("sh", "-c", "echo $PPID", run_as_root=True, on_execute=hooks.append)
result = [int(out) != os.getpid(), type(out).__name__, hooks]
"""
    )

    assert result == [True, "str", []]


def test_left_out_hooks_are_told(service: Any) -> None:
    _result, log = service(
        """
result = rootwrap.execute("true", run_as_root=True, on_completion=print)
"""
    )

    assert "on_completion cannot be called for true" in log


def test_arguments_that_are_no_plain_data(service: Any) -> None:
    result, _log = service(
        """
import pathlib, signal
from oslo_concurrency import processutils
result = rootwrap.execute(
    "sh", "-c", "ulimit -n; exit 3", pathlib.Path("/"), run_as_root=True, check_exit_code={3},
    prlimit=processutils.ProcessLimits(number_files=17), signal=signal.SIGTERM,
)
"""
    )

    assert result == ["17\n", ""]


def test_failures_come_back_whole(service: Any) -> None:
    result, _log = service(
        """
result = {
    "exit": attempt(rootwrap.execute, "sh", "-c", "echo x >&2; exit 7", run_as_root=True),
    "missing": attempt(rootwrap.execute, "/no/such/program", run_as_root=True),
    "timeout": attempt(rootwrap.execute, "sleep", "1000", run_as_root=True, timeout=0.1),
    "chain": attempt(rootwrap.unlink_root, "/no/such/1", "/no/such/2", raise_at_end=True),
    "checked": attempt(rootwrap.link_root, "/x", "relative"),
}
"""
    )

    assert result["exit"][0] == "ProcessExecutionError"
    assert "Exit code: 7" in result["exit"][1]
    assert result["missing"][0] == "ProcessExecutionError"
    assert "No such file" in result["missing"][1]
    assert result["timeout"][0] == "ExecutionTimeout"
    assert "after waiting 0.1 seconds" in result["timeout"][1]
    assert result["chain"][0] == "ExceptionChainer"
    assert result["chain"][2]
    assert "/no/such/1" in result["chain"][1]
    assert "Chained Exception #2" in result["chain"][1]
    assert result["checked"][0] == "InvalidParameterValue"
    assert "relative" in result["checked"][1]


def test_links(service: Any, tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link"
    result, _log = service(
        f"""
rootwrap.link_root("/dev/dm-3", {str(link)!r})
first = os.readlink({str(link)!r})
rootwrap.unlink_root({str(link)!r})
result = first
"""
    )

    assert result == "/dev/dm-3"
    assert not os.path.lexists(link)


def test_no_secret_in_any_log(service: Any) -> None:
    result, log = service(
        """
secret = "a'b Zq7"
pair = ("-n", "node.session.auth.password", "-v", secret)
result = [
    attempt(rootwrap.execute, "sh", "-c", script, "iscsiadm", *pair, run_as_root=True, timeout=0.5)
    for script in ('echo "password = $4"', 'echo "$4"; exit 1', "sleep 1000")
]
logging.getLogger("service").warning("%r", result[1:])
"""
    )

    assert "Zq7" in result[0][0]  # The caller gets what was printed,
    assert "privsep: reply[" in log  # the log tells of it,
    assert "Zq7" not in log  # and hides it.


def test_a_hidden_result_is_packed_whole_and_logged_masked(service: Any) -> None:
    """As the daemon does with what an entry point returns."""
    result, log = service(
        """
import msgpack
hidden = (4, privileged.Hidden("Zq7"))
logging.getLogger("oslo_privsep.daemon").debug("reply: %(reply)s", {"reply": hidden})
result = msgpack.unpackb(msgpack.packb(hidden, use_bin_type=True))[1]
"""
    )

    assert result == "Zq7"
    assert "reply: (4, '***')" in log
    assert "Zq7" not in log


def test_a_secret_on_standard_input_is_in_no_log(service: Any) -> None:
    result, log = service(
        """
secret = privileged.Hidden("päss\\nwörd-Zq7")
result = rootwrap.execute("wc", "-c", process_input=secret, run_as_root=True)[0].split()
attempt(rootwrap.execute, "false", process_input=secret, run_as_root=True)
"""
    )

    assert result == ["15"]
    assert "Zq7" not in log
