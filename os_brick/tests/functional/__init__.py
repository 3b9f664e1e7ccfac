# SPDX-License-Identifier: Apache-2.0
"""Tests of the library on a real kernel, in one virtual machine: see ``README.rst`` here.

``machine`` is the host side: it prepares, boots and ends the machine, with nothing but
the standard library.  ``guest``, ``targets`` and ``scenarios`` run inside the machine.
"""
