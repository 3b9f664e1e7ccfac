# SPDX-License-Identifier: Apache-2.0
"""No secret gets through, whatever it consists of."""

import dataclasses
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from os_brick import masking

SECRETS = st.text(min_size=1, max_size=30)
# A part of the secret that cannot come from anything else in the text.
MARK = "Zq7"
MARKED = st.tuples(st.text(max_size=12), st.text(max_size=12)).map(lambda t: t[0] + MARK + t[1])

SECRET_NAMES = [
    "auth_password",
    "auth_username",
    "discovery_auth_password",
    "discovery_auth_username",
    "serverPassword",
    "serverUsername",
    "serverToken",
    "secret",
    "secret_uuid",
    "keyring",
    "passphrase",
    "private_key",
    "encrypted_key",
    "key",
    "new_pass",
    "auth_token",
    "node.session.auth.password",
    "node.session.auth.password_in",
    "node.session.auth.username",
    "discovery.sendtargets.auth.password",
    "dhchap-secret",
]

PLAIN_NAMES = [
    "auth_method",
    "discovery_auth_method",
    "auth_enabled",
    "secret_type",
    "target_portal",
    "target_lun",
    "encryption_key_id",
    "key_size",
    "node.session.auth.authmethod",
    "node.session.scan",
    "passive",
    "device_path",
    "volume_id",
]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_names_of_secrets(name: str) -> None:
    assert masking.is_secret_name(name)
    assert masking.is_secret_name(name.encode())


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_names_of_what_may_be_read(name: str) -> None:
    assert not masking.is_secret_name(name)


@pytest.mark.parametrize("name", [None, 5, ("auth_password",)])
def test_what_is_no_name(name: str) -> None:
    assert not masking.is_secret_name(name)


@given(name=st.sampled_from(SECRET_NAMES), secret=MARKED)
def test_dictionary(name: str, secret: str) -> None:
    shown = masking.masked_repr({"data": [{name: secret, "lun": 1}], "tuple": ({name: secret},)})

    assert MARK not in shown
    assert "'lun': 1" in shown


@given(name=st.sampled_from(SECRET_NAMES), secret=MARKED)
def test_a_secret_that_is_a_list_or_bytes(name: str, secret: str) -> None:
    assert MARK not in masking.masked_repr({name: [secret], "b": {name: secret.encode()}})


def test_dictionary_is_copied() -> None:
    properties = {"auth_password": "s3cret", "target_luns": [1, 2]}

    assert masking.masked(properties) == {"auth_password": "***", "target_luns": [1, 2]}
    assert properties["auth_password"] == "s3cret"


def test_no_password_is_shown_as_such() -> None:
    assert masking.masked({"auth_password": None}) == {"auth_password": None}


@pytest.mark.parametrize("pair", [("-n", "-v"), ("--name", "--value")])
@given(secret=MARKED)
def test_iscsiadm_pairs(pair: Any, secret: str) -> None:
    name, value = pair
    cmd = (
        *("iscsiadm", "-m", "node", "-o", "update"),
        *(name, "node.session.auth.authmethod", value, "CHAP"),
        *(name, "node.session.auth.password", value, secret),
        *(name, "discovery.sendtargets.auth.password", value, secret),
        *(name, "node.startup", value, "manual"),
    )

    masked = masking.mask_command(cmd)

    assert len(masked) == len(cmd)
    assert MARK not in " ".join(masked)
    assert masked.count("***") == 2
    assert "CHAP" in masked
    assert masked[-1] == "manual"
    assert MARK not in masking.masked_repr(cmd)
    assert MARK not in masking.masked_repr(list(cmd))


@pytest.mark.parametrize(
    "words",
    [
        ("nvme", "connect", "-S", "{}"),
        ("/usr/sbin/nvme", "connect", "-C", "{}", "-n", "nqn"),
        ("nvme", "connect", "--dhchap-secret", "{}"),
        ("nvme", "connect", "--dhchap-secret={}"),
        ("iscsiadm", "--name=node.session.auth.password", "--value={}"),
        ("iscsiadm", "-n", "node.session.auth.password", "-v{}"),
        ("mount", "-o", "username=u,password={}", "/a"),
        ("tool", "key=1", "a=b,secret={}"),
        ("tool", "--auth-token", "{}"),
    ],
)
@given(secret=MARKED)
def test_other_commands(words: Any, secret: str) -> None:
    cmd = tuple(word.replace("{}", secret) for word in words)

    assert MARK not in " ".join(masking.mask_command(cmd))
    assert any(MARK in found for found in masking.secrets_of_command(cmd))


@given(st.lists(st.from_regex(r"[a-z0-9/.:,-]{0,12}", fullmatch=True)))
def test_words_without_secrets_stay(words: Any) -> None:
    assume(not any(masking.is_secret_name(word) for word in words))
    assume("nvme" not in "".join(words))

    assert masking.mask_command(words) == tuple(words)


@given(name=st.sampled_from(SECRET_NAMES), secret=MARKED)
def test_text_of_a_dictionary(name: str, secret: str) -> None:
    """Somebody else's repr() of a dictionary, whatever quotes it chose."""
    text = masking.mask_text(f"failed: { ({name: secret, 'target_lun': 5})!r}")

    assert MARK not in text


@given(secret=st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=12))
def test_text_of_settings(secret: str) -> None:
    text = masking.mask_text(
        f"node.session.auth.password = x{secret}{MARK}\nnode.session.auth.authmethod = CHAP"
    )

    assert MARK not in text
    assert "authmethod = CHAP" in text


@pytest.mark.parametrize(
    "text",
    [
        """('iscsiadm', '-n', 'node.session.auth.password', '-v', "a'Zq7")""",
        """iscsiadm -n node.session.auth.password -v a'Zq7 b -n node.startup -v manual""",
        """nvme connect --dhchap-secret a'Zq7""",
        """{"auth_password": "a\\"Zq7", "lun": 1}""",
        """'{\\'auth_password\\': "a\\'Zq7"}'""",
        """Credentials(user='x', password="a'Zq7", lun=1)""",
        """http://user:a'Zq7@host:80/path""",
        """auth_password=***Zq7""",
    ],
)
def test_text_of_others(text: str) -> None:
    assert MARK not in masking.mask_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "iscsiadm: initiator reported error (24 - iSCSI login failed due to authorization failure)",
        "http://[2001:db8::1]:3260/x",
        "",
        "Device /dev/sda passed all checks",
    ],
)
def test_text_without_secrets_stays(text: str) -> None:
    assert masking.mask_text(text) == text


@given(before=st.text(), secret=st.text(min_size=4), after=st.text())
def test_known_secrets_are_found_anywhere(before: Any, secret: str, after: Any) -> None:
    assume(secret not in before + masking.MASK + after)
    text = masking.mask_text(f"{before}{secret}{after}", {secret})

    assert secret not in text


def test_secrets_in_a_structure() -> None:
    properties = {"auth_password": "one", "data": [{"secret": b"two", "x": "three"}], "keyring": ""}

    assert masking.secrets_in(properties) == {"one", "two"}


@dataclasses.dataclass(frozen=True)
class Chap:
    username: str
    password: str
    portal: str
    hidden: str = dataclasses.field(repr=False, default="hidden")


@given(secret=MARKED)
def test_dataclass(secret: str) -> None:
    shown = masking.masked_repr([Chap("me", secret, "1.2.3.4:3260")])

    assert MARK not in shown
    assert shown == "[Chap(username=***, password=***, portal='1.2.3.4:3260')]"


def test_other_objects_are_shown_by_their_masked_repr() -> None:
    class Volume:
        def __repr__(self) -> str:
            return "<Volume password=Zq7>"

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert masking.masked_repr({"v": Volume()}) == "{'v': <Volume password=***}"
    assert masking.masked_repr(Broken()) == "<Broken: no repr, RuntimeError>"
    assert masking.masked_repr({1}) == "{1}"


def test_a_circle_ends() -> None:
    circle: dict[str, Any] = {"a": 1}
    circle["self"] = circle

    assert "..." in masking.masked_repr(circle)


def test_a_long_text_takes_linear_time() -> None:
    """A pattern with two unbounded parts would run for hours on this."""
    text = "a.-_" * 100_000 + " password = x"

    assert masking.mask_text(text).endswith("password = ***")
