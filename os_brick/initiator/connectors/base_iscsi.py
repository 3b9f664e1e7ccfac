# SPDX-License-Identifier: Apache-2.0
"""What iSCSI connectors promise beyond any connector."""

from os_brick.initiator import initiator_connector


class BaseISCSIConnector(initiator_connector.InitiatorConnector):
    """Marks connectors of iSCSI; services test for it."""
