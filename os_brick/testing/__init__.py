# SPDX-License-Identifier: Apache-2.0
"""FakeHost: a host in a folder, for tests of this library and of the services that use it.

::

    def test_detach_logs_out_though_the_disk_is_gone(fake_host):
        volume = fake_host.iscsi_target(portals=2).lun(1)
        connector = fake_host.connector("ISCSI", use_multipath=True)
        info = connector.connect_volume(volume.properties)
        volume.vanish()                                   # the array unmapped it first
        connector.disconnect_volume(volume.properties, info, force=True, ignore_errors=True)
        assert fake_host.leftovers() == []

The fixture ``fake_host`` is in :mod:`os_brick.testing.pytest_plugin`; without pytest it is
``with FakeHost() as host``. No kernel, root or program is needed, and time is
virtual (:mod:`os_brick.testing.clock`). What there is to hold, by noun:

* ``fake_host``: ``iscsi_target``, ``connector``, ``host`` (the doors for the library), ``execute``
  (an execute function for a service that supplies its own); ``open``, ``write``, ``mount``,
  ``put_on_top``, ``add_partition`` (who uses a device); ``at``, ``after``, ``pass_time``, ``now``;
  ``delays`` and ``faults``; ``started``, ``changes``, ``journal``, ``lost``, ``leftovers``.
* a target: ``lun(number, size=…, wwid=…, addressing=…)`` gives a volume; ``portals``, ``iqns``.
* a volume: ``properties``, ``connection(plural=…, text_lun=…, …)``, ``data``, ``wwid``;
  ``vanish``, ``map_after``, ``remap``, ``grow``; ``unit.luks`` and ``unit.signature``, what
  encryptors find on it.
* a portal: ``silent``, ``refuse``, ``hang``, ``kill``, ``restore``, ``login_s``.
* ``ceph`` (a cluster: ``image``, ``be``, ``map``, ``bindings``) and ``shares`` (remote file
  systems: ``share``, ``occupy``, ``mounted``).
* ``lvm``: ``disk``, ``group``, ``volume``, ``activate``, ``suspend``.
* ``nvme_subsystem``: its ``namespace(nsid, size=…, block_size=…)`` gives a volume with
  ``connection(*identifiers)`` and ``old_connection``; ``portals``, ``sends_events``, ``set_ana``.
  ``nvme`` is the kernel's side, ``nvme_cli`` the tool with its ``version``, ``nvme_identity`` the
  files below ``/etc/nvme``, ``md`` the arrays.
* the parts of the host: ``multipathd``, ``iscsid``, ``node_records``, ``sessions``, ``udev``,
  ``network``, ``devices``, ``mapper``, each with the settings that an operator has.
* ``faults``: ``hang``, ``fail``, ``slow``, ``mumble`` (programs by their words), ``unreadable``
  (sysfs), ``slow_writes``, ``failing_writes``.

A mistake against the host (an unknown program, a device node removed as a link) fails the test at
its end even if the library swallowed the error; :meth:`FakeHost.check` raises it.
"""

from os_brick.testing.fake_host import FakeHost

__all__ = ["FakeHost"]
