# SPDX-License-Identifier: Apache-2.0
"""What the tests of services import from here; our own are in ``os_brick.tests.unit``."""
