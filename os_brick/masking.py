# SPDX-License-Identifier: Apache-2.0
"""Keep secrets out of logs, errors and results.

Values are masked *before* they become text: a secret is recognised by the name it goes by (a key of
a dictionary, a setting of iscsiadm, an option of a command), so what it consists of does not
matter. :func:`mask_text` is the last resort for text that others wrote; where names leave doubt
about the end of a value it masks the rest of the line.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MASK = "***"

# User names count: a CHAP name is half of the credential. ``auth_method``, ``auth_enabled`` and
# ``secret_type`` say how, not what.
_WORDS = (
    r"(?:passw|passphrase|pswd|(?<![a-z])pass(?![a-z])|secret(?!_type\b)|token|keyring|credential"
    r"|authorization|user_?name|(?<![a-z])auth_(?!method\b|enabled\b)|key(?![\w.\-]))"
)
_SECRET_NAME = re.compile(_WORDS, re.IGNORECASE)

# A replacement of a shorter value would make a text unreadable without hiding anything.
_SHORTEST_LITERAL = 4

# A share of Virtuozzo Storage may end in its cluster's password: [MDS,...:/]CLUSTER:PASSWORD. What
# follows the colon of ``server:/export`` is none.
_EXPORT = "export"
_SHARE_WITH_PASSWORD = re.compile(r"(\S+?:/[\w-]+|[\w-]+(?=:[^/])):.+", re.DOTALL)

# How deep structures are looked into; deeper ones, and circles, are cut off.
_DEPTH = 16


def is_secret_name(name: object) -> bool:
    """Whether what goes by this name is a secret: ``"node.session.auth.password"`` for one."""
    return isinstance(name, (str, bytes)) and bool(_SECRET_NAME.search(_text(name)))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


# --- commands -------------------------------------------------------------------------------------

_NAME_OPTIONS = ("-n", "--name")
_VALUE_OPTIONS = ("-v", "--value")
# nvme-cli: -S is --dhchap-secret, -C is --dhchap-ctrl-secret. Other tools use these letters for
# other things.
_NVME_OPTIONS = ("-S", "-C")


def mask_command(cmd: Sequence[object]) -> tuple[str, ...]:
    """The words of a command with its secrets replaced by ``***``.

    Known are settings of iscsiadm (``-n node.session.auth.password -v SECRET``, several pairs in
    one call too), options (``--password SECRET``, ``--password=SECRET``), assignments (``-o
    user=x,password=SECRET``) and nvme-cli's keys.
    """
    return tuple(word for word, _secret in _split_command(cmd))


def command_text(cmd: Sequence[object]) -> str:
    """The masked command in one line, for logs and errors."""
    return " ".join(mask_command(cmd))


def secrets_of_command(cmd: Sequence[object]) -> frozenset[str]:
    """The secrets among the words of a command, to be looked for in what the program prints."""
    return frozenset(secret for _word, secret in _split_command(cmd) if secret)


def _split_command(cmd: Sequence[object]) -> Iterable[tuple[str, str]]:
    """Each word as (masked word, the secret in it or "")."""
    words = [_text(word) if isinstance(word, bytes) else str(word) for word in cmd]
    is_nvme = any(word == "nvme" or word.endswith("/nvme") for word in words[:8])
    name_is_secret = False  # of the setting that the next -v is the value of
    previous = ""
    for word in words:
        option, equals, value = word.partition("=")
        if _takes_secret(previous, name_is_secret, is_nvme):
            yield MASK, word
            previous = ""
            continue
        if previous in _NAME_OPTIONS:
            name_is_secret = is_secret_name(word)
            previous = ""
            yield word, ""
            continue
        if option == "--name" and equals:
            name_is_secret = is_secret_name(value)
            yield word, ""
        elif name_is_secret and (option == "--value" and equals):
            yield f"--value={MASK}", value
        elif name_is_secret and word.startswith("-v") and len(word) > 2:
            yield f"-v{MASK}", word[2:]
        else:
            yield _mask_assignment(word)
        previous = word


def _takes_secret(previous: str, name_is_secret: bool, is_nvme: bool) -> bool:
    """Whether the word after ``previous`` is a secret."""
    if previous in _VALUE_OPTIONS:
        return name_is_secret
    if is_nvme and previous in _NVME_OPTIONS:
        return True
    return previous.startswith("--") and "=" not in previous and is_secret_name(previous)


def _mask_assignment(word: str) -> tuple[str, str]:
    """``a=b,password=SECRET``: everything after ``password=`` is masked.

    A comma may be part of the secret.
    """
    start = 0
    while (equals := word.find("=", start)) >= 0:
        name = re.split(r"[,;&?\s]", word[start:equals])[-1]
        if is_secret_name(name):
            return word[: equals + 1] + MASK, word[equals + 1 :]
        start = equals + 1
    return mask_text(word), ""


# --- structures -----------------------------------------------------------------------------------


class _Shown:
    """Stands for a value in a masked structure: its ``repr`` is the given text."""

    __slots__ = ("_shown",)

    def __init__(self, shown: str) -> None:
        self._shown = shown

    def __repr__(self) -> str:
        return self._shown


def masked(value: Any) -> Any:
    """A copy of a structure, for showing: values of secret names are ``***``, text is masked.

    Dictionaries, lists, tuples, sets and dataclasses are looked into; any other object is replaced
    by one whose ``repr`` is its masked ``repr``. None stays, so that "no password" can be told from
    "a password".
    """
    return _masked(value, _DEPTH)


def masked_repr(value: Any) -> str:
    """``repr`` of :func:`masked`."""
    return repr(masked(value))


def _masked(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return mask_text(str(value))
    if isinstance(value, (bytes, bytearray)):
        return mask_text(bytes(value).decode(errors="replace")).encode()
    return _masked_container(value, depth - 1) if depth else _Shown("...")


def _masked_container(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        return {
            key: MASK
            if is_secret_name(key) and item is not None
            else _masked(_without_password(item) if key == _EXPORT else item, depth)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        words = _masked_words(value) or [_masked(item, depth) for item in value]
        return tuple(words) if isinstance(value, tuple) else words
    if isinstance(value, (set, frozenset)):
        return _Shown("{" + ", ".join(repr(_masked(item, depth)) for item in value) + "}")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _masked_dataclass(value, depth)
    return _Shown(mask_text(_repr(value)))


def _without_password(share: Any) -> Any:
    found = _SHARE_WITH_PASSWORD.fullmatch(share) if isinstance(share, str) else None
    return f"{found[1]}:{MASK}" if found else share


def _masked_words(value: Sequence[Any]) -> list[str]:
    """What reads as a command, masked as one; empty if it does not."""
    is_command = all(isinstance(word, (str, int, float)) for word in value) and any(
        isinstance(word, str) and word.startswith("-") for word in value
    )
    return list(mask_command(value)) if is_command else []


def _masked_dataclass(value: Any, depth: int) -> _Shown:
    shown = []
    for field in dataclasses.fields(value):
        if field.repr:
            item = getattr(value, field.name, None)
            secret = is_secret_name(field.name) and item is not None
            shown.append(f"{field.name}={MASK if secret else repr(_masked(item, depth))}")
    return _Shown(f"{type(value).__name__}({', '.join(shown)})")


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as exc:  # noqa: BLE001 - a caller's broken object must not fail the call
        return f"<{type(value).__name__}: no repr, {type(exc).__name__}>"


def secrets_in(value: Any) -> frozenset[str]:
    """The texts that go by a secret name anywhere in a structure.

    They are what to look for in texts about it.
    """
    found: set[str] = set()
    _collect(value, False, _DEPTH, found)
    return frozenset(found)


def _collect(value: Any, secret: bool, depth: int, found: set[str]) -> None:
    if isinstance(value, (str, bytes)):
        if secret and value:
            found.add(_text(value))
    elif depth and isinstance(value, Mapping):
        for key, item in value.items():
            _collect(item, secret or is_secret_name(key), depth - 1, found)
    elif depth and isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            _collect(item, secret, depth - 1, found)


# --- text -----------------------------------------------------------------------------------------

# What follows a word of a secret's name is bounded, what precedes it is not looked at: so that a
# long run of letters costs linear time.
_NAME_END = rf"{_WORDS}[\w.\-]{{0,64}}"
_NAME = rf"[\w.\-]{{0,64}}{_NAME_END}"
_QUOTED = r"""[bu]?(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""
_NOT_MASKED = r"""(?!['"]?\*\*\*['"]?(?:[\s,;)}\]]|$))"""
_REST_OF_LINE = _NOT_MASKED + r"[^\s][^\n]*"

_PATTERNS = (
    # 'password': 'x', as repr() and JSON write it
    (rf"""({_NAME_END}['"]\s*:\s*){_QUOTED}""", rf"\1'{MASK}'"),
    # '-n', 'password', '-v', 'x' and '--password', 'x', as the repr() of a command has it
    (
        rf"""({_NAME_END}['"]\s*,\s*(?:(['"])(?:-v|--value)\2\s*,\s*)?){_QUOTED}""",
        rf"\1'{MASK}'",
    ),
    # -n password -v x
    (rf"""((?:-n|--name)[\s=]+{_NAME}\s+(?:-v|--value)[\s=]*){_REST_OF_LINE}""", rf"\1{MASK}"),
    # --password x
    (rf"(--{_NAME}\s+){_REST_OF_LINE}", rf"\1{MASK}"),
    # password = x, password: x
    (rf"""({_NAME_END}[\\'"]*\s*[=:]\s*){_REST_OF_LINE}""", rf"\1{MASK}"),
    # scheme://user:password@host
    (r"(://)[^/\s@]+@", rf"\1{MASK}@"),
)


@functools.cache  # Compiling costs 6 ms, and most processes never need it.
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    flags = re.IGNORECASE | re.DOTALL | re.MULTILINE
    return tuple((re.compile(pattern, flags), replacement) for pattern, replacement in _PATTERNS)


def mask_text(text: str, secrets: Iterable[str] = ()) -> str:
    """A text with its secrets replaced by ``***``.

    :param text: output of a program, an error message, the text of an object.
    :param secrets: values known to be secret (see :func:`secrets_in`, :func:`secrets_of_command`),
        replaced wherever they stand if they have four characters or more.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_LITERAL:
            text = text.replace(secret, MASK)
    if _SECRET_NAME.search(text) is None and "://" not in text:
        return text
    for pattern, replacement in _patterns():
        text = pattern.sub(replacement, text)
    return text
