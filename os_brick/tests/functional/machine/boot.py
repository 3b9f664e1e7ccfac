# SPDX-License-Identifier: Apache-2.0
"""What the guest does before its first command: mounts, users, the daemons' folders."""

from __future__ import annotations

import pathlib
import shlex

#: A quiet configuration with the defaults that open-iscsi documents; no start-up command,
#: so that an iscsid that is stopped stays stopped.
ISCSID_CONF = """node.startup = manual
node.leading_login = No
node.session.timeo.replacement_timeout = 120
node.conn[0].timeo.login_timeout = 15
node.conn[0].timeo.logout_timeout = 15
node.conn[0].timeo.noop_out_interval = 5
node.conn[0].timeo.noop_out_timeout = 5
node.session.err_timeo.abort_timeout = 15
node.session.err_timeo.lu_reset_timeout = 30
node.session.err_timeo.tgt_reset_timeout = 30
node.session.initial_login_retry_max = 8
node.session.cmds_max = 128
node.session.queue_depth = 32
node.session.xmit_thread_priority = -20
node.session.iscsi.InitialR2T = No
node.session.iscsi.ImmediateData = Yes
node.session.iscsi.FirstBurstLength = 262144
node.session.iscsi.MaxBurstLength = 16776192
node.conn[0].iscsi.MaxRecvDataSegmentLength = 262144
node.conn[0].iscsi.MaxXmitDataSegmentLength = 0
discovery.sendtargets.iscsi.MaxRecvDataSegmentLength = 32768
node.session.nr_sessions = 1
node.session.reopen_max = 0
node.session.iscsi.FastAbort = Yes
node.session.scan = auto
"""

INITIATOR_NAME = "iqn.1993-08.org.debian:01:lab0001"


def boot_script(kernel: pathlib.Path, release: str, repo: pathlib.Path, python: str) -> str:
    """Return the script that init runs once, inside the overlay, before the agent.

    :param python: the interpreter, whose folders the unprivileged user has to reach.
    """
    way = {*repo.parents, *pathlib.Path(python).resolve().parents}
    folders = " ".join(shlex.quote(str(folder)) for folder in sorted(way))
    modules = kernel / "lib/modules" / release
    return f"""
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
# /tmp stays as the host has it (changes go to memory): the checkout may be there.
chmod 1777 /tmp
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/lock/iscsi /run/multipath /run/udev /lib/modules/{release}
mount --bind {shlex.quote(str(modules))} /lib/modules/{release}
echo lab >/proc/sys/kernel/hostname
ip link set lo up
for n in 2 3 4 5 6 7 8 9; do ip address add 127.0.0.$n/8 dev lo; done

# What the host itself may keep of iSCSI, multipath and NVMe is none of the guest's.
rm -rf /etc/iscsi /var/lib/iscsi /etc/multipath /etc/multipath.conf /etc/nvme
mkdir -p /etc/iscsi /etc/multipath /etc/nvme
cat >/etc/iscsi/iscsid.conf <<'END'
{ISCSID_CONF}END
echo InitiatorName={INITIATOR_NAME} >/etc/iscsi/initiatorname.iscsi
chmod 600 /etc/iscsi/iscsid.conf /etc/iscsi/initiatorname.iscsi
cp /etc/fstab /etc/fstab.host 2>/dev/null
echo >/etc/fstab

# An unprivileged user for the library to run as, who may become root as services may. With a
# password field of its own, since PAM refuses one that has no entry in /etc/shadow.
grep -q '^brick:' /etc/passwd || echo 'brick:*:4242:4242::/tmp:/bin/sh' >>/etc/passwd
grep -q '^brick:' /etc/group || echo 'brick:x:4242:' >>/etc/group
chmod a+rx {folders}
mkdir -p /etc/sudoers.d
printf 'root ALL=(ALL:ALL) ALL\\nbrick ALL=(root) NOPASSWD: ALL\\n' >/etc/sudoers
chmod 440 /etc/sudoers
echo 127.0.0.1 localhost lab >/etc/hosts

/sbin/modprobe loop 2>/dev/null
udevd=/lib/systemd/systemd-udevd
[ -x $udevd ] || udevd=/usr/lib/systemd/systemd-udevd
$udevd --daemon
"""
