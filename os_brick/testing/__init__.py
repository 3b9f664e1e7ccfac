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
"""

from os_brick.testing.fake_host import FakeHost

__all__ = ["FakeHost"]
