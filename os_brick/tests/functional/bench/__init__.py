# SPDX-License-Identifier: Apache-2.0
"""What an attach and a detach cost, beside a hand-written minimum and the peer.

``cli`` and ``peer`` work on the host, ``run`` and what it imports in the machine, ``worker`` in
one process for each contender.  ``figures`` and ``verdicts`` are pure.
"""
