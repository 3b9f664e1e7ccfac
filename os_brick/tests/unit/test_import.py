# SPDX-License-Identifier: Apache-2.0
"""What importing the foundation does: nothing."""

import json
import subprocess
import sys

MODULES = (
    "os_brick",
    "os_brick.constants",
    "os_brick.exception",
    "os_brick.executor",
    "os_brick.i18n",
    "os_brick.initiator",
    "os_brick.initiator.host_driver",
    "os_brick.initiator.utils",
    "os_brick.masking",
    "os_brick.privileged",
    "os_brick.utils",
    "os_brick.version",
)

HEAVY = (
    "oslo_concurrency",
    "oslo_config",
    "oslo_log",
    "oslo_privsep",
    "oslo_utils",
    "requests",
    "retrying",
    "tenacity",
)

PROGRAM = """
import json, subprocess, sys, time
started = []
subprocess.Popen = lambda *args, **kwargs: started.append(args)
before = (time.sleep, subprocess.Popen)
for name in {modules!r}:
    __import__(name)
print(json.dumps({{
    "started": started,
    "patched": (time.sleep, subprocess.Popen) != before,
    "loaded": [name for name in {heavy!r} if name in sys.modules],
}}))
"""


def test_importing_starts_patches_and_loads_nothing() -> None:
    program = PROGRAM.format(modules=MODULES, heavy=HEAVY)
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout

    assert json.loads(out) == {"started": [], "patched": False, "loaded": []}


def test_options_are_there_for_who_uses_oslo_config() -> None:
    program = "from oslo_config import cfg; import os_brick; print(cfg.CONF.os_brick.call_timeout)"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout

    assert out == b"600\n"
