# SPDX-License-Identifier: Apache-2.0
"""One volume's way, step by step: what ``tools/lab demo`` shows inside the machine."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence


def main(arguments: Sequence[str]) -> int:
    """Run the demo of one protocol (``iscsi``); return the exit code."""
    protocol = (arguments or ["iscsi"])[0].lower()
    if protocol not in DEMOS:
        print(f"no demo of {protocol}: there are {', '.join(sorted(DEMOS))}", file=sys.stderr)
        return 2
    began = time.monotonic()
    try:
        DEMOS[protocol]()
    except Exception as error:  # noqa: BLE001 - told to whoever watches
        from .guest import host_state

        print(f"\nFAILED: {type(error).__name__}: {error}", flush=True)
        print(getattr(error, "timeline", ""))
        print(host_state.report())
        return 1
    print(f"\nDone in {time.monotonic() - began:.1f} s: attached, used, detached, nothing left.")
    return 0


def iscsi() -> None:
    """A volume over two portals, a map, 4 MiB of data."""
    with _step("load the library, as a service does once"):
        from .guest import daemons, data, host_state, lab, reset, service

        host_state.enter_group()
        lab.LOGS.mkdir(exist_ok=True)
        service.log_to(lab.LOGS / "demo.log")
        service.set_up()
        service.as_root()
    with _step("load the kernel's modules, start iscsid and multipathd"):
        lab.warm_up()
        reset.everything()
        daemons.Iscsid().start()
        daemons.Multipathd().start(daemons.MultipathConfig())
    with _step("make a volume of 64 MiB and a target with two portals") as said:
        world = lab.Lab("demo")
        target, volume = world.target(portals=2)
        said.append(f"{target.iqn} at {', '.join(target.portals)}")
    host = world.service(multipath=True)
    given = lab.properties(target, several=True)
    with _step("attach: connect_volume") as said:
        info = host.attach(given)
        said.append(f"{info['path']} over {', '.join(host_state.disks(volume.wwid))}")
    content = data.pattern("demo", 4 * lab.MIB)
    with _step("write 4 MiB through the device"):
        data.write(info["path"], content)
    with _step("read them back, past the cache") as said:
        assert data.read(info["path"], len(content)) == content
        said.append("as written")
    with _step("look on the target's side") as said:
        assert volume.read(0, len(content)) == content
        said.append("the array has them")
    with _step("detach: disconnect_volume"):
        host.detach(given, info)
    with _step("look for leftovers, at once and after 5 s") as said:
        world.expect_clean()
        said.append("no session, record, disk, map, link or path is left")
    reset.everything()


DEMOS = {"iscsi": iscsi}


@contextlib.contextmanager
def _step(what: str) -> Iterator[list[str]]:
    print(f"{what} ... ", end="", flush=True)
    began = time.monotonic()
    said: list[str] = []
    yield said
    print(f"{time.monotonic() - began:.1f} s  {' '.join(said)}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
