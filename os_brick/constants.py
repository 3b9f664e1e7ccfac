# SPDX-License-Identifier: Apache-2.0
"""Values that storage drivers put into connection properties."""

# How a LUN number is written on the wire (SAM-5, "LUN addressing methods"); drivers send one of
# them as ``addressing_mode``.
SCSI_ADDRESSING_TRANSPARENT = "transparent"
SCSI_ADDRESSING_SAM = "SAM"
SCSI_ADDRESSING_SAM2 = "SAM2"
SCSI_ADDRESSING_SAM3_FLAT = "SAM3-flat"

SCSI_ADDRESSING_MODES = (
    SCSI_ADDRESSING_TRANSPARENT,
    SCSI_ADDRESSING_SAM,
    SCSI_ADDRESSING_SAM2,
    SCSI_ADDRESSING_SAM3_FLAT,
)
