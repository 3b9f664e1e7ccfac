# SPDX-License-Identifier: Apache-2.0
"""Translation of the texts that reach a user: ``_("text")``."""

import oslo_i18n

DOMAIN = "os-brick"

_translators = oslo_i18n.TranslatorFactory(domain=DOMAIN)

_ = _translators.primary
