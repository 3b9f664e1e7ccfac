# SPDX-License-Identifier: Apache-2.0
"""Who may use the file of the locks: services of several users share it."""

from __future__ import annotations

import errno
import os
import pathlib
import stat
import subprocess
import sys
import tempfile

import pytest

from os_brick.initiator.linux.call import Call, SystemClock
from os_brick.initiator.linux.locking import Locks

# The library is loaded before the user changes, as the checkout need not be readable for him.
SCRIPT = """
import os, sys, encodings.idna
import os_brick.initiator.linux.locking
os.setgroups([4242])
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
from os_brick.initiator.linux.call import Call, SystemClock
from os_brick.initiator.linux.locking import Locks
with Locks(lambda: sys.argv[1]).held(Call("x", SystemClock(), 5), ["volume"]):
    print("held")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs other users")
@pytest.mark.parametrize("users", [(3001, 3002), (0, 3002)])
def test_who_may_write_in_the_directory_may_lock_there(users: tuple[int, int]) -> None:
    """The directory belongs to a group of all services; it has no setgid bit."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        os.chmod(made, 0o755)
        folder = pathlib.Path(made, "locks")
        folder.mkdir()
        os.chown(folder, 0, 4242)
        folder.chmod(0o770)
        for user in users:
            done = subprocess.run(
                [sys.executable, "-c", SCRIPT, str(folder), str(user)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.stdout == "held\n", done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs other users")
def test_a_file_that_root_makes_is_the_directory_owners(tmp_path: pathlib.Path) -> None:
    os.chown(tmp_path, 3001, 3001)
    tmp_path.chmod(0o755)
    with Locks(lambda: str(tmp_path)).held(Call("x", SystemClock(), 5), ["volume"]):
        pass
    status = (tmp_path / "os-brick.locks").stat()
    assert (status.st_uid, status.st_gid) == (3001, 3001)
    assert stat.S_IMODE(status.st_mode) & 0o600 == 0o600


def lock(folder: pathlib.Path) -> None:
    with Locks(lambda: str(folder)).held(Call("x", SystemClock(), 5), ["volume"]):
        pass
    assert os.listdir(folder) == ["os-brick.locks"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES])
def test_a_file_system_without_second_names(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """vfat: EPERM; CIFS, some of FUSE: EOPNOTSUPP, ENOSYS; a profile of AppArmor: EACCES."""

    def link(*_words: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    if code == errno.EPERM:
        monkeypatch.setattr(os, "fchmod", link)
    lock(tmp_path)


def test_an_owner_who_is_not_known_here(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container whose user namespace does not know the directory's owner."""

    def fchown(*_words: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fchown", fchown)
    lock(tmp_path)
