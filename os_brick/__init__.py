# SPDX-License-Identifier: Apache-2.0
"""Attach storage volumes to a Linux host, and detach them."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oslo_config import cfg

LOG = logging.getLogger(__name__)

# Name and level of the privileged context of the same name, whose debug lines could carry secrets.
SECURE_LOG = logging.getLogger("brick_privsep_hide_output")
SECURE_LOG.setLevel(logging.ERROR)


def setup(conf: cfg.ConfigOpts, **kwargs: object) -> None:
    """Tell the library which configuration the service uses. Call it once the configuration is
    loaded.

    It sets the default of ``[os_brick] lock_path``. Calling it again is harmless.

    :param conf: the service's configuration (``oslo_config.cfg.CONF``).
    :param kwargs: for later versions; unknown ones are ignored with a warning.
    """
    # Imported here so that importing the package loads nothing.
    from os_brick import opts

    if kwargs:
        LOG.warning("Ignoring unknown arguments of os_brick.setup(): %s", ", ".join(sorted(kwargs)))
    opts.set_defaults(conf)


# A service may set our options (its tests do) once it has imported us. It has oslo.config loaded by
# then; for others, loading it would double the time of the import.
if "oslo_config.cfg" in sys.modules:
    from os_brick import opts as opts
