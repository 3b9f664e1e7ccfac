# SPDX-License-Identifier: Apache-2.0
"""A vCenter server with one datacenter, one datastore and one backing machine: SOAP, export leases
and datastore folders over real HTTPS."""

from __future__ import annotations

import hashlib
import itertools
import ssl
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from os_brick.tests.unit.initiator.vendors.servers import DATA, Answering, Asked, Said
from os_brick.tests.unit.initiator.vendors.vim_wsdl import wsdl

USER, PASSWORD = "administrator", "V3ry<secret>'1"
COOKIE = '"52aa-session"'
DISK = "[ds 1] vol/vol.vmdk"
_VIM = "{urn:vim25}"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_MANAGERS = ("propertyCollector", "sessionManager", "virtualDiskManager", "fileManager")


class Fault(Exception):
    """A fault of the API, by its type's name."""

    def __init__(self, name: str, text: str = "") -> None:
        super().__init__(name, text)
        self.name, self.text = name, text or name


@dataclass
class Disk:
    """A disk in the machine."""

    file: str
    capacity: int = 8 * 1024 * 1024
    uuid: str = "6000C29a-old"
    content_id: str = "c0ffee"


@dataclass
class Vm:
    """The backing machine."""

    disks: list[Disk] = field(default_factory=lambda: [Disk(DISK)])
    snapshots: int = 0


def _nothing(method: str) -> None:
    """Called with each method before it acts."""


class Vcenter(Answering):
    """The server."""

    def __init__(self) -> None:
        super().__init__(tls=True)
        self.reset()

    def reset(self) -> None:
        """Be as at the beginning. (A client reads the API's description once for each server, which
        takes it longer than all else.)"""
        self.asked.clear()
        #: Files of the datastore, by ``[ds 1] path``. A disk that was copied begins with FLAT.
        self.files: dict[str, bytes] = {DISK: b"FLAT:KDMV old"}
        self.folders: set[str] = set()
        self.vm = Vm()
        self.sessions = 0
        self.methods: list[str] = []
        self.exported = b"KDMV" + bytes(3000)
        self.leases: dict[str, str] = {}
        self.thumbprint = self._own_thumbprint()
        #: Methods that fail, and how: with a fault at once, or (tasks) in the end.
        self.faults: dict[str, Fault] = {}
        self.task_faults: dict[str, Fault] = {}
        #: Answers of HTTP to give in place of the usual ones, by method.
        self.instead: dict[str, Said] = {}
        self.before: Callable[[str], None] = _nothing
        self.lease_looks = 1
        self.url = "https://*:{port}/nfc/{lease}/disk-0.vmdk"
        self._tasks: dict[str, Fault | None] = {}
        self._numbers = itertools.count(1)

    @staticmethod
    def _own_thumbprint() -> str:
        pem = (DATA / "server.pem").read_text()
        digest = hashlib.sha1(ssl.PEM_cert_to_DER_cert(pem[: pem.index("-----BEGIN PRIV")]))
        text = digest.hexdigest().upper()
        return ":".join(text[at : at + 2] for at in range(0, 40, 2))

    # -- HTTP ---------------------------------------------------------------------------------
    def answer(self, asked: Asked) -> Said:
        if asked.method in self.instead and asked.path != "/sdk/vimService.wsdl":
            return self.instead[asked.method]
        if asked.path == "/sdk/vimService.wsdl":
            return Said(200, wsdl(), {"Content-Type": "text/xml"})
        if asked.path == "/sdk":
            return self._soap(asked)
        if f"vmware_soap_session={COOKIE}" not in asked.headers.get("Cookie", ""):
            return Said(401)
        if asked.method == "GET" and asked.path.split("/")[2] in self.leases:
            return Said(200, self.exported)
        if asked.method == "PUT" and asked.path.startswith("/folder/"):
            return self._store(asked)
        return Said(404)

    def _store(self, asked: Asked) -> Said:
        where = urllib.parse.urlsplit(asked.path)
        query = urllib.parse.parse_qs(where.query)
        if query != {"dcPath": ["east/dc 1"], "dsName": ["ds 1"]}:
            return Said(404)
        path = urllib.parse.unquote(where.path.removeprefix("/folder/"))
        if path.rpartition("/")[0] not in self.folders:
            return Said(404)
        self.files[f"[ds 1] {path}"] = asked.body
        return Said(201)

    # -- SOAP ---------------------------------------------------------------------------------
    def _soap(self, asked: Asked) -> Said:
        body = ET.fromstring(asked.body).find("{http://schemas.xmlsoap.org/soap/envelope/}Body")
        assert body is not None
        call = body[0]
        method = call.tag.removeprefix(_VIM)
        self.methods.append(method)
        headers = {"Content-Type": "text/xml"}
        try:
            self.before(method)
            if method in self.faults:
                raise self.faults[method]
            cookie = f"vmware_soap_session={COOKIE}" in asked.headers.get("Cookie", "")
            if method not in ("RetrieveServiceContent", "Login") and not cookie:
                raise Fault("NotAuthenticated")
            returned = self._act(method, call)
        except Fault as fault:
            text = (
                "<soapenv:Fault><faultcode>ServerFaultCode</faultcode>"
                f"<faultstring>{escape(fault.text)}</faultstring><detail>"
                f'<{fault.name}Fault xmlns="urn:vim25" xsi:type="{fault.name}"/>'
                "</detail></soapenv:Fault>"
            )
            return Said(500, _envelope(text), headers)
        if method == "Login":
            headers["Set-Cookie"] = f"vmware_soap_session={COOKIE}; Path=/; HttpOnly; Secure"
        text = f'<{method}Response xmlns="urn:vim25">{returned}</{method}Response>'
        return Said(200, _envelope(text), headers)

    def _act(self, method: str, call: ET.Element) -> str:
        acting: dict[str, Callable[[ET.Element], str]] = {
            "RetrieveServiceContent": self._content,
            "Login": self._login,
            "Logout": self._logout,
            "RetrievePropertiesEx": self._properties,
            "ExportVm": self._export,
            "HttpNfcLeaseProgress": lambda _call: "",
            "HttpNfcLeaseComplete": lambda call: self._end_lease(call, "complete"),
            "HttpNfcLeaseAbort": lambda call: self._end_lease(call, "aborted"),
            "MakeDirectory": self._make_directory,
        }
        if method in acting:
            return acting[method](call)
        task = f"task-{next(self._numbers)}"
        self._tasks[task] = self.task_faults.get(method)
        if self._tasks[task] is None:
            try:
                getattr(self, f"_{method.lower()}")(call)
            except Fault as fault:
                self._tasks[task] = fault
        return _mor("returnval", "Task", task)

    def _content(self, call: ET.Element) -> str:
        parts = "".join(_mor(name, name[0].upper() + name[1:], name) for name in _MANAGERS)
        return f"<returnval>{_mor('rootFolder', 'Folder', 'root')}{parts}</returnval>"

    def _login(self, call: ET.Element) -> str:
        if (_text(call, "userName"), _text(call, "password")) != (USER, PASSWORD):
            raise Fault("InvalidLogin", "Cannot complete login due to an incorrect user name")
        self.sessions += 1
        return f"<returnval><key>52aa</key><userName>{USER}</userName></returnval>"

    def _logout(self, call: ET.Element) -> str:
        self.sessions -= 1
        return ""

    # -- properties ---------------------------------------------------------------------------
    def _properties(self, call: ET.Element) -> str:
        target = call.find(f"{_VIM}specSet/{_VIM}objectSet/{_VIM}obj")
        assert target is not None
        kind, name = target.get("type", ""), target.text or ""
        path = _text(call, f"specSet/{_VIM}propSet/{_VIM}pathSet")
        value = self._property(kind, name, path)
        found = f"<propSet><name>{path}</name>{value}</propSet>" if value else ""
        return f"<returnval><objects>{_mor('obj', kind, name)}{found}</objects></returnval>"

    def _property(self, kind: str, name: str, path: str) -> str:
        if kind == "Task":
            return self._task_info(name)
        if kind == "HttpNfcLease":
            return self._lease(name, path)
        static = {
            ("dc-1", "name"): _val("dc 1"),
            ("dc-1", "parent"): _mor("val", "Folder", "east", True),
            ("east", "name"): _val("east"),
            ("east", "parent"): _mor("val", "Folder", "root", True),
            ("root", "name"): _val("Datacenters"),
            ("ds-1", "name"): _val("ds 1"),
            ("vm-1", "config.hardware.device"): self._devices(),
            ("vm-1", "snapshot"): self._snapshots(),
        }
        return static.get((name, path), "")

    def _task_info(self, name: str) -> str:
        fault = self._tasks[name]
        state = "success" if fault is None else "error"
        error = (
            ""
            if fault is None
            else f'<error><fault xsi:type="{fault.name}"/>'
            f"<localizedMessage>{escape(fault.text)}</localizedMessage></error>"
        )
        return (
            f'<val xsi:type="TaskInfo"><key>{name}</key>{_mor("task", "Task", name)}'
            f"<state>{state}</state>{error}</val>"
        )

    def _devices(self) -> str:
        text = (
            '<VirtualDevice xsi:type="VirtualController"><key>1000</key>'
            "<busNumber>0</busNumber></VirtualDevice>"
        )
        for number, disk in enumerate(self.vm.disks):
            text += (
                f'<VirtualDevice xsi:type="VirtualDisk"><key>{2000 + number}</key>'
                '<backing xsi:type="VirtualDiskFlatVer2BackingInfo">'
                f"<fileName>{disk.file}</fileName><diskMode>persistent</diskMode>"
                f"<thinProvisioned>true</thinProvisioned><uuid>{disk.uuid}</uuid>"
                f"<contentId>{disk.content_id}</contentId></backing>"
                f"<controllerKey>1000</controllerKey><unitNumber>{number}</unitNumber>"
                f"<capacityInKB>{disk.capacity // 1024}</capacityInKB>"
                f"<capacityInBytes>{disk.capacity}</capacityInBytes></VirtualDevice>"
            )
        return f'<val xsi:type="ArrayOfVirtualDevice">{text}</val>'

    def _snapshots(self) -> str:
        if not self.vm.snapshots:
            return ""
        tree = _mor("snapshot", "VirtualMachineSnapshot", "snapshot-1") + "<name>s</name>"
        return (
            '<val xsi:type="VirtualMachineSnapshotInfo">'
            f"<rootSnapshotList>{tree}</rootSnapshotList></val>"
        )

    # -- export -------------------------------------------------------------------------------
    def _export(self, call: ET.Element) -> str:
        lease = f"session-{next(self._numbers)}"
        self.leases[lease] = "initializing"
        return _mor("returnval", "HttpNfcLease", lease)

    def _end_lease(self, call: ET.Element, state: str) -> str:
        self.leases[_text(call, "_this")] = state
        return ""

    def _lease(self, name: str, path: str) -> str:
        if path == "state":
            state = self.leases[name]
            if state == "initializing":
                self.lease_looks -= 1
                if self.lease_looks <= 0:
                    self.leases[name] = state = "ready"
            return _val(state)
        if path == "error":
            return (
                '<val xsi:type="LocalizedMethodFault"><fault xsi:type="MethodFault"/>'
                "<localizedMessage>no host can do it</localizedMessage></val>"
            )
        url = self.url.format(port=self.port, lease=name)
        return (
            f'<val xsi:type="HttpNfcLeaseInfo">{_mor("lease", "HttpNfcLease", name)}'
            f"{_mor('entity', 'VirtualMachine', 'vm-1')}<deviceUrl><key>k</key>"
            f"<importKey/><url>{url}</url><sslThumbprint>{self.thumbprint}</sslThumbprint>"
            "<disk>true</disk></deviceUrl><leaseTimeout>300</leaseTimeout></val>"
        )

    # -- disks --------------------------------------------------------------------------------
    def _make_directory(self, call: ET.Element) -> str:
        name = _text(call, "name").removeprefix("[ds 1] ")
        if name in self.folders:
            raise Fault("FileAlreadyExists", f"{name} exists")
        self.folders.add(name)
        return ""

    def _take(self, name: str) -> bytes:
        if name not in self.files:
            raise Fault("FileNotFound", f"File {name} was not found")
        return self.files[name]

    def _put(self, name: str, data: bytes) -> None:
        if name in self.files:
            raise Fault("FileAlreadyExists", f"{name} exists")
        self.files[name] = data

    def _copyvirtualdisk_task(self, call: ET.Element) -> None:
        self._put(_text(call, "destName"), b"FLAT:" + self._take(_text(call, "sourceName")))

    def _movevirtualdisk_task(self, call: ET.Element) -> None:
        source = _text(call, "sourceName")
        if any(disk.file == source for disk in self.vm.disks):
            raise Fault("FileLocked", f"{source} is in use")
        self._put(_text(call, "destName"), self._take(source))
        del self.files[source]

    def _deletevirtualdisk_task(self, call: ET.Element) -> None:
        self._take(_text(call, "name"))
        del self.files[_text(call, "name")]

    _deletedatastorefile_task = _deletevirtualdisk_task

    def _reconfigvm_task(self, call: ET.Element) -> None:
        change = call.find(f"{_VIM}spec/{_VIM}deviceChange")
        assert change is not None
        assert change.find(f"{_VIM}fileOperation") is None, "it would destroy the file"
        device = change.find(f"{_VIM}device")
        assert device is not None
        assert device.get(f"{{{_XSI}}}type", "").endswith("VirtualDisk")
        file = _text(device, f"backing/{_VIM}fileName")
        if _text(change, "operation") == "remove":
            self.vm.disks = [disk for disk in self.vm.disks if disk.file != file]
            return
        data = self._take(file)
        # What is not given, the server reads from the file.
        given = device.find(f"{_VIM}backing/{_VIM}uuid")
        capacity = int(_text(device, "capacityInKB")) * 1024 or len(data)
        uuid = "6000C29a-new" if given is None else given.text or ""
        self.vm.disks.append(Disk(file, capacity, uuid, "fresh"))


def _text(element: ET.Element, name: str) -> str:
    return element.findtext(f"{_VIM}{name}") or ""


def _mor(element: str, kind: str, value: str, typed: bool = False) -> str:
    xsi = ' xsi:type="ManagedObjectReference"' if typed else ""
    return f'<{element} type="{kind}"{xsi}>{value}</{element}>'


def _val(text: str) -> str:
    return f'<val xsi:type="xsd:string">{escape(text)}</val>'


def _envelope(body: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope '
        'xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
        'xmlns:xsd="http://www.w3.org/2001/XMLSchema" '
        f'xmlns:xsi="{_XSI}" xmlns="urn:vim25"><soapenv:Body>{body}</soapenv:Body>'
        "</soapenv:Envelope>"
    ).encode()


def properties(server: Vcenter, tmp_dir: str, **config: Any) -> dict[str, Any]:
    """Return connection properties of the volume."""
    return {
        "volume": "vm-1",
        "volume_id": "c9f1b0de-1111",
        "vmdk_path": DISK,
        "vmdk_size": 8 * 1024 * 1024,
        "datastore": "ds-1",
        "datacenter": "dc-1",
        "config": {
            "vmware_host_ip": "127.0.0.1",
            "vmware_host_port": server.port,
            "vmware_host_username": USER,
            "vmware_host_password": PASSWORD,
            "vmware_api_retry_count": 2,
            "vmware_task_poll_interval": 0.5,
            "vmware_ca_file": str(DATA / "ca.pem"),
            "vmware_insecure": False,
            "vmware_tmp_dir": tmp_dir,
            "vmware_image_transfer_timeout_secs": 60,
            **config,
        },
    }
