# SPDX-License-Identifier: Apache-2.0
"""Host side of the lab: prepare, boot, command and end the virtual machine.

Only the standard library is used here, and nothing of ``os_brick`` is imported: this code
runs before any Python environment exists.
"""
