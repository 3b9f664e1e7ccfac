# SPDX-License-Identifier: Apache-2.0
"""Storage targets of the kernel, made and changed by hand, as an array would."""
