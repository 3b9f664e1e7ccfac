# SPDX-License-Identifier: Apache-2.0
"""Inside the machine: daemons, faults, what the host looks like, and the library at work."""
