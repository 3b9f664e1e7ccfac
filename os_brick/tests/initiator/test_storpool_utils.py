# SPDX-License-Identifier: Apache-2.0
"""A configuration of StorPool for tests: those of Cinder's driver import it from here."""

SP_CONF = {
    "SP_API_HTTP_HOST": "127.0.100.1",
    "SP_API_HTTP_PORT": "8080",
    "SP_AUTH_TOKEN": "1234567890123456789",
    "SP_OURID": "1",
}
