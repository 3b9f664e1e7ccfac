# SPDX-License-Identifier: Apache-2.0
"""The part of vSphere's API description (vim25) that backing machines and their disks need.

Types and methods as the vSphere Web Services API reference has them, with the fields that matter
here.
"""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

_MOR = "ManagedObjectReference"
# Name: (base, fields); a field is "name type" with ? for may be absent and * for any number.
_TYPES: dict[str, tuple[str, str]] = {
    "ServiceContent": (
        "",
        f"rootFolder {_MOR}, propertyCollector {_MOR}, sessionManager {_MOR}?,"
        f"virtualDiskManager {_MOR}?, fileManager {_MOR}?",
    ),
    "UserSession": ("", "key string, userName string"),
    "DynamicProperty": ("", "name string, val anyType"),
    "MissingProperty": ("", "path string, fault LocalizedMethodFault"),
    "ObjectContent": ("", f"obj {_MOR}, propSet DynamicProperty*, missingSet MissingProperty*"),
    "RetrieveResult": ("", "token string?, objects ObjectContent*"),
    "RetrieveOptions": ("", "maxObjects int?"),
    "SelectionSpec": ("", "name string?"),
    "PropertySpec": ("", "type string, all boolean?, pathSet string*"),
    "ObjectSpec": ("", f"obj {_MOR}, skip boolean?, selectSet SelectionSpec*"),
    "PropertyFilterSpec": ("", "propSet PropertySpec*, objectSet ObjectSpec*"),
    "MethodFault": ("", ""),
    "FileAlreadyExists": ("MethodFault", "file string"),
    "FileNotFound": ("MethodFault", "file string"),
    "NoDiskSpace": ("MethodFault", "file string"),
    "InvalidLogin": ("MethodFault", ""),
    "LocalizedMethodFault": ("", "fault MethodFault, localizedMessage string?"),
    "TaskInfo": (
        "",
        f"key string, task {_MOR}, state string, error LocalizedMethodFault?",
    ),
    "HttpNfcLeaseDeviceUrl": (
        "",
        "key string, importKey string, url string, sslThumbprint string, disk boolean?",
    ),
    "HttpNfcLeaseInfo": (
        "",
        f"lease {_MOR}, entity {_MOR}, deviceUrl HttpNfcLeaseDeviceUrl*, leaseTimeout int",
    ),
    "VirtualDeviceBackingInfo": ("", ""),
    "VirtualDeviceFileBackingInfo": ("VirtualDeviceBackingInfo", "fileName string"),
    "VirtualDiskFlatVer2BackingInfo": (
        "VirtualDeviceFileBackingInfo",
        "diskMode string, thinProvisioned boolean?, uuid string?, contentId string?",
    ),
    "VirtualDevice": (
        "",
        "key int, backing VirtualDeviceBackingInfo?, controllerKey int?, unitNumber int?",
    ),
    "VirtualController": ("VirtualDevice", "busNumber int"),
    "VirtualDisk": ("VirtualDevice", "capacityInKB long, capacityInBytes long?"),
    "ArrayOfVirtualDevice": ("", "VirtualDevice VirtualDevice*"),
    "VirtualMachineSnapshotTree": ("", f"snapshot {_MOR}, name string"),
    "VirtualMachineSnapshotInfo": (
        "",
        f"currentSnapshot {_MOR}?, rootSnapshotList VirtualMachineSnapshotTree*",
    ),
    "VirtualDeviceConfigSpec": (
        "",
        "operation string?, fileOperation string?, device VirtualDevice",
    ),
    "VirtualMachineConfigSpec": ("", "deviceChange VirtualDeviceConfigSpec*"),
}
_DISKS = (
    f"sourceName string, sourceDatacenter {_MOR}?, destName string, destDatacenter {_MOR}?,"
    " force boolean?"
)
# Name: (arguments, result).
_METHODS: dict[str, tuple[str, str]] = {
    "RetrieveServiceContent": ("", "ServiceContent"),
    "Login": ("userName string, password string, locale string?", "UserSession"),
    "Logout": ("", ""),
    "RetrievePropertiesEx": (
        "specSet PropertyFilterSpec*, options RetrieveOptions",
        "RetrieveResult?",
    ),
    "ExportVm": ("", _MOR),
    "HttpNfcLeaseProgress": ("percent int", ""),
    "HttpNfcLeaseComplete": ("", ""),
    "HttpNfcLeaseAbort": ("fault LocalizedMethodFault?", ""),
    "MakeDirectory": (
        f"name string, datacenter {_MOR}?, createParentDirectories boolean?",
        "",
    ),
    "ReconfigVM_Task": ("spec VirtualMachineConfigSpec", _MOR),
    "CopyVirtualDisk_Task": (_DISKS, _MOR),
    "MoveVirtualDisk_Task": (_DISKS, _MOR),
    "DeleteVirtualDisk_Task": (f"name string, datacenter {_MOR}?", _MOR),
    "DeleteDatastoreFile_Task": (f"name string, datacenter {_MOR}?", _MOR),
}
_XSD = frozenset({"string", "boolean", "int", "long", "anyType"})


def _element(field: str) -> str:
    name, _, kind = field.strip().partition(" ")
    bounds = ""
    if kind[-1] in "?*":
        bounds = ' minOccurs="0"' + (' maxOccurs="unbounded"' if kind[-1] == "*" else "")
        kind = kind[:-1]
    prefix = "xsd" if kind in _XSD else "vim25"
    return f'<element name={quoteattr(name)} type="{prefix}:{kind}"{bounds}/>'


def _sequence(fields: str) -> str:
    return "<sequence>" + "".join(_element(one) for one in fields.split(",") if one) + "</sequence>"


def _types() -> str:
    text = (
        f'<complexType name="{_MOR}"><simpleContent><extension base="xsd:string">'
        '<attribute name="type" type="xsd:string"/></extension></simpleContent></complexType>'
    )
    for name, (base, fields) in _TYPES.items():
        inner = _sequence(fields)
        if base:
            inner = (
                f'<complexContent><extension base="vim25:{base}">{inner}'
                "</extension></complexContent>"
            )
        text += f'<complexType name="{name}">{inner}</complexType>'
    for name, (fields, result) in _METHODS.items():
        arguments = f"_this {_MOR}" + (f", {fields}" if fields else "")
        returned = f"returnval {result}" if result else ""
        text += (
            f'<element name="{name}"><complexType>{_sequence(arguments)}</complexType></element>'
            f'<element name="{name}Response"><complexType>{_sequence(returned)}</complexType>'
            "</element>"
        )
    return text


def wsdl() -> bytes:
    """Return the whole description."""
    messages = operations = bindings = ""
    for name in _METHODS:
        for kind, element in (("RequestMsg", name), ("ResponseMsg", f"{name}Response")):
            messages += (
                f'<message name="{name}{kind}"><part name="parameters" '
                f'element="vim25:{element}"/></message>'
            )
        operations += (
            f'<operation name="{name}"><input message="vim25:{name}RequestMsg"/>'
            f'<output message="vim25:{name}ResponseMsg"/></operation>'
        )
        bindings += (
            f'<operation name="{name}"><soap:operation soapAction="urn:vim25/6.0" '
            'style="document"/><input><soap:body use="literal"/></input>'
            '<output><soap:body use="literal"/></output></operation>'
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<definitions targetNamespace="urn:vim25" xmlns="http://schemas.xmlsoap.org/wsdl/" '
        'xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/" xmlns:vim25="urn:vim25">'
        '<types><schema targetNamespace="urn:vim25" elementFormDefault="qualified" '
        'xmlns="http://www.w3.org/2001/XMLSchema" xmlns:xsd="http://www.w3.org/2001/XMLSchema" '
        f'xmlns:vim25="urn:vim25">{_types()}</schema></types>{messages}'
        f'<portType name="VimPortType">{operations}</portType>'
        '<binding name="VimBinding" type="vim25:VimPortType"><soap:binding style="document" '
        f'transport="http://schemas.xmlsoap.org/soap/http"/>{bindings}</binding>'
        '<service name="VimService"><port binding="vim25:VimBinding" name="VimPort">'
        '<soap:address location="https://localhost/sdk/vimService"/></port></service>'
        "</definitions>"
    ).encode()
