# SPDX-License-Identifier: Apache-2.0
"""Names of protocols, platforms and operating systems, as services write them.

Services read modules below this one as attributes without importing them (``initiator.linuxscsi``);
each is loaded when first asked for.
"""

from __future__ import annotations

import re
from types import ModuleType
from typing import TYPE_CHECKING

DEVICE_SCAN_ATTEMPTS_DEFAULT = 3

# Time-stamped complaints that multipath-tools mix into their output.
MULTIPATH_ERROR_REGEX = re.compile(r"\w{3} \d+ \d\d:\d\d:\d\d \|.*$")
# A line of a path in ``multipath -ll``: contains an H:C:T:L address.
MULTIPATH_PATH_CHECK_REGEX = re.compile(r"\s+\d+:\d+:\d+:\d+\s+")

PLATFORM_ALL = "ALL"
PLATFORM_x86 = "X86"
PLATFORM_S390 = "S390"
PLATFORM_PPC64 = "PPC64"

OS_TYPE_ALL = "ALL"
OS_TYPE_LINUX = "LINUX"

# What platform.machine() says.
S390X = "s390x"
S390 = "s390"
PPC64 = "ppc64"
PPC64LE = "ppc64le"

ISCSI = "ISCSI"
ISER = "ISER"
FIBRE_CHANNEL = "FIBRE_CHANNEL"
NFS = "NFS"
SMBFS = "SMBFS"
GLUSTERFS = "GLUSTERFS"
LOCAL = "LOCAL"
HUAWEISDSHYPERVISOR = "HUAWEISDSHYPERVISOR"
RBD = "RBD"
SCALEIO = "SCALEIO"
SCALITY = "SCALITY"
QUOBYTE = "QUOBYTE"
VZSTORAGE = "VZSTORAGE"
VMDK = "VMDK"
GPFS = "GPFS"
STORPOOL = "STORPOOL"
NVME = "NVME"
NVMEOF = "NVMEOF"
LIGHTOS = "LIGHTOS"

if not TYPE_CHECKING:

    def __getattr__(name: str) -> ModuleType:
        import importlib.util

        if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
