# SPDX-License-Identifier: Apache-2.0
"""Which encryptor a volume gets (EN-01 to EN-05), and the one that does nothing (section 7)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from os_brick import encryptors, exception
from os_brick.encryptors import base, cryptsetup, luks, nop
from os_brick.tests.unit.encryptors.helpers import KeyManager

INFO: dict[str, Any] = {
    "driver_volume_type": "iscsi",
    "data": {"device_path": "/dev/disk/by-path/no-such-volume", "auth_password": "s3cr'et-word"},
}


def made(provider: Any, location: Any = "front-end", info: Any = INFO, **more: Any) -> Any:
    if location is not None:
        more["control_location"] = location
    return encryptors.get_volume_encryptor("sudo", info, KeyManager(), provider=provider, **more)


class OutOfTree(base.VolumeEncryptor):
    """An encryptor of somebody else's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.got = (args, kwargs)
        if kwargs.get("cipher") == "broken":
            raise exception.Invalid("this cipher is broken")
        super().__init__(*args, **kwargs)

    def attach_volume(self, context: Any, **kwargs: Any) -> None: ...

    def detach_volume(self, **kwargs: Any) -> None: ...

    def extend_volume(self, context: Any, **kwargs: Any) -> None: ...


# -- control location (EN-01) ----------------------------------------------------------------
@given(
    st.sampled_from(["front-end"]).flatmap(
        lambda word: st.tuples(*(st.sampled_from([one, one.upper()]) for one in word))
    )
)
def test_front_end_in_any_letter_case_selects_the_provider(letters: tuple[str, ...]) -> None:
    assert type(made("luks", "".join(letters))) is luks.LuksEncryptor


@pytest.mark.parametrize("location", [None, "back-end", "", "frontend", 1])
def test_any_other_location_gives_the_one_that_does_nothing(location: Any) -> None:
    assert type(made("luks", location)) is nop.NoOpEncryptor


# -- provider (EN-02) ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("luks", luks.LuksEncryptor),
        ("luks2", luks.Luks2Encryptor),
        ("plain", cryptsetup.CryptsetupEncryptor),
        (None, nop.NoOpEncryptor),
        ("nova.volume.encryptors.luks.LuksEncryptor", luks.LuksEncryptor),
        ("os_brick.encryptors.luks.LuksEncryptor", luks.LuksEncryptor),
        ("LuksEncryptor", luks.LuksEncryptor),
        (
            "nova.volume.encryptors.cryptsetup.CryptsetupEncryptor",
            cryptsetup.CryptsetupEncryptor,
        ),
        ("os_brick.encryptors.cryptsetup.CryptsetupEncryptor", cryptsetup.CryptsetupEncryptor),
        ("CryptsetupEncryptor", cryptsetup.CryptsetupEncryptor),
        ("nova.volume.encryptors.nop.NoopEncryptor", nop.NoOpEncryptor),
        ("os_brick.encryptors.nop.NoopEncryptor", nop.NoOpEncryptor),
        ("NoOpEncryptor", nop.NoOpEncryptor),
    ],
)
def test_formats_and_old_class_names(
    provider: Any, expected: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert type(made(provider)) is expected
    is_old = provider in encryptors.LEGACY_PROVIDER_CLASS_TO_FORMAT_MAP
    assert ("refused in a future release" in caplog.text) == is_old


def test_a_class_of_somebody_else(caplog: pytest.LogCaptureFixture) -> None:
    found = made(f"{__name__}.OutOfTree", cipher="x", key_size=256)
    assert type(found).__name__ == "OutOfTree"
    args, kwargs = found.got
    assert args[0] == "sudo"
    assert args[1] is INFO
    assert args[3] is None
    assert kwargs["key_size"] == 256  # EN-03: the metadata, by keyword
    assert "out of tree" in caplog.text


@pytest.mark.parametrize(
    ("provider", "error"),
    [
        ("nosuchformat", ValueError),
        ("os_brick.encryptors.luks.NoSuchClass", ImportError),
        ("no_such_package.luks.LuksEncryptor", ImportError),
    ],
)
def test_a_provider_that_cannot_be_loaded(
    provider: str, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(error):
        made(provider)
    assert f"Error instantiating {provider}: " in caplog.text


def test_the_error_of_the_constructor_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(exception.Invalid, match="this cipher is broken"):
        made(f"{__name__}.OutOfTree", cipher="broken")
    assert "OutOfTree: this cipher is broken" in caplog.text


def test_no_secret_of_the_connection_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    made("luks")
    assert "Using volume encryptor 'os_brick.encryptors.luks.LuksEncryptor'" in caplog.text
    assert "s3cr" not in caplog.text


def test_the_maps_lead_to_classes() -> None:
    for path in encryptors.FORMAT_TO_FRONTEND_ENCRYPTOR_MAP.values():
        assert path.startswith("os_brick.encryptors.")
    formats = {encryptors.LUKS, encryptors.LUKS2, encryptors.PLAIN}
    assert set(encryptors.FORMAT_TO_FRONTEND_ENCRYPTOR_MAP) == formats
    assert set(encryptors.LEGACY_PROVIDER_CLASS_TO_FORMAT_MAP.values()) < formats | {None}


# -- metadata (EN-05) ------------------------------------------------------------------------
class Cinder:
    """The volume API."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def get_volume_encryption_metadata(self, context: Any, volume_id: str) -> Any:
        self.asked.append((context, volume_id))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def metadata(api: Cinder, info: Any) -> Any:
    return encryptors.get_encryption_metadata("context", api, "volume-1", info)


@pytest.mark.parametrize(
    "info", [{}, {"data": {}}, {"data": None}, {"data": {"encrypted": False}}, {"data": {"a": 1}}]
)
def test_volumes_that_are_not_encrypted_have_no_metadata(info: Any) -> None:
    api = Cinder({"provider": "luks"})
    assert metadata(api, info) == {}
    assert api.asked == []


def test_metadata_of_an_encrypted_volume() -> None:
    api = Cinder({"provider": "luks", "key_size": 256})
    assert metadata(api, {"data": {"encrypted": True}}) == {"provider": "luks", "key_size": 256}
    assert api.asked == [("context", "volume-1")]


@pytest.mark.parametrize("empty", [{}, None])
def test_missing_metadata_is_told(empty: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert metadata(Cinder(empty), {"data": {"encrypted": True}}) == {}
    assert "volume-1 should be encrypted" in caplog.text


def test_a_failing_api_is_told_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConnectionError):
        metadata(Cinder(ConnectionError("no answer")), {"data": {"encrypted": True}})
    assert "volume-1: no answer" in caplog.text


# -- the one that does nothing (section 7) ---------------------------------------------------
def test_nothing_is_done_with_any_keywords() -> None:
    before = copy.deepcopy(INFO)
    encryptor = made(None, "back-end", encryption_key_id="key-1", unheard_of=1)
    assert encryptor.attach_volume("context", cipher="x", unheard_of=1) is None
    assert encryptor.detach_volume(cipher="x", unheard_of=1) is None
    assert encryptor.extend_volume("context", cipher="x", unheard_of=1) is None
    assert encryptor.encryption_key_id == "key-1"
    assert before == INFO


def test_a_network_volume_needs_no_device_without_an_encryptor() -> None:
    assert made("luks", "back-end", info={"driver_volume_type": "rbd", "data": {}})


# -- the base --------------------------------------------------------------------------------
def test_the_base_is_abstract() -> None:
    with pytest.raises(TypeError):
        base.VolumeEncryptor(None, INFO, KeyManager())  # type: ignore[abstract]
