# SPDX-License-Identifier: Apache-2.0
"""What all unit tests may use."""

import os

from hypothesis import HealthCheck, settings

from os_brick.testing.pytest_plugin import fake_host as fake_host

# No test asserts a time: a busy machine is no failure. The same cases in every run, whatever ran
# before; HYPOTHESIS_PROFILE=explore looks for others.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("unit", _PATIENT, derandomize=True, database=None)
settings.register_profile("explore", _PATIENT, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))
