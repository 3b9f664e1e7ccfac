# SPDX-License-Identifier: Apache-2.0
"""The one error that derives from oslo.concurrency: ``os_brick.exception.ExecutionTimeout``."""

from oslo_concurrency import processutils


class ExecutionTimeout(processutils.ProcessExecutionError):
    """A program did not end in time and was stopped.

    ``stdout`` is empty, ``stderr`` says which process and how long, ``exit_code`` is None, ``cmd``
    is masked.
    """


# The name under which services know it, and under which it crosses from the privileged daemon.
ExecutionTimeout.__module__ = "os_brick.exception"
