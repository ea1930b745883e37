"""Lists what software is in an image, as a CycloneDX document, from the image's files alone."""

import email.parser
import re
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import quote

BLOCK = 1 << 20  # bytes read at once: an image is gigabytes
METADATA = re.compile(r"\.dist-info/METADATA$")
STATUS = "var/lib/dpkg/status"
STATUS_FOLDER = "var/lib/dpkg/status.d"  # where images without dpkg keep the same, a file a package
RELEASE = ("etc/os-release", "usr/lib/os-release")
# An interpreter that was built from source, which no package names, as in the official images.
PATCHLEVEL = re.compile(r"^usr/local/include/python3\.\d+/patchlevel\.h$")
NAMED_LICENCE = 100  # characters; older packages put the whole text where a name belongs


@dataclass(frozen=True)
class Subject:
    """The image that a document is about.

    Attributes:
        name: Its repository.
        version: Its version.
        reference: What it can be had by, by digest where there is one.
        identity: SHA-256 of its config, which names all its layers.
    """

    name: str
    version: str
    reference: str
    identity: str


@dataclass(frozen=True, order=True)
class Package:
    """A piece of software.

    Attributes:
        purl: Package URL, which says kind, name and version.
        name: Its name.
        version: Its version.
        licence: SPDX expression or name of its licence, if it states one.
        spdx: Whether the licence is an expression of SPDX.
    """

    purl: str
    name: str
    version: str
    licence: str = ""
    spdx: bool = False


def read_inventory(stream: IO[bytes]) -> set[Package]:
    """Find the Python and Debian packages of a file system.

    Args:
        stream: A tar archive of it.
    """
    python: set[Package] = set()
    debian: list[str] = []
    release = ""
    with tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if not member.isfile():
                continue
            if METADATA.search(name):
                python.add(python_package(_text(archive, member)))
            elif PATCHLEVEL.search(name):
                python.add(interpreter(_text(archive, member)))
            elif name == STATUS or PurePosixPath(name).parent.as_posix() == STATUS_FOLDER:
                debian.append(_text(archive, member))
            elif name in RELEASE:
                release = release or _text(archive, member)
    distribution = _release(release)
    return python | {one for text in debian for one in debian_packages(text, distribution)}


def python_package(metadata: str) -> Package:
    """Read the METADATA file of an installed distribution."""
    headers = email.parser.HeaderParser().parsestr(metadata)
    name, version = headers["Name"], headers["Version"]
    canonical = re.sub(r"[-_.]+", "-", name).lower()
    purl = f"pkg:pypi/{canonical}@{quote(version)}"
    if expression := headers["License-Expression"]:
        return Package(purl, name, version, expression, spdx=True)
    licence = (headers["License"] or "").strip()
    if "\n" in licence or len(licence) > NAMED_LICENCE:
        licence = ""
    return Package(purl, name, version, licence)


def interpreter(patchlevel: str) -> Package:
    """Read the version of an interpreter from its header."""
    (version,) = re.findall(r'^#define PY_VERSION\s+"(.+)"', patchlevel, re.MULTILINE)
    return Package(f"pkg:generic/python@{version}", "python", version, "PSF-2.0", spdx=True)


def debian_packages(status: str, distribution: str) -> Iterator[Package]:
    """Read dpkg's record of what is installed.

    Args:
        status: Text of its status file.
        distribution: `ID-VERSION` as in os-release, like `debian-12`.
    """
    for paragraph in re.split(r"\n\n+", status):
        fields = email.parser.HeaderParser().parsestr(paragraph.lstrip())
        name, version = fields["Package"], fields["Version"]
        installed = fields.get("Status", "install ok installed").endswith(" installed")
        if not name or not version or not installed:
            continue
        vendor = distribution.partition("-")[0]
        where = f"arch={fields['Architecture']}&distro={distribution}"
        yield Package(f"pkg:deb/{vendor}/{quote(name)}@{quote(version)}?{where}", name, version)


def software_bill(subject: Subject, packages: set[Package]) -> dict[str, Any]:
    """Write a CycloneDX 1.6 document; the same image gives the same document."""
    image: dict[str, Any] = {
        "type": "container",
        "bom-ref": subject.reference,
        "name": subject.name,
        "version": subject.version,
        "hashes": [{"alg": "SHA-256", "content": subject.identity}],
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, subject.identity)}",
        "version": 1,
        "metadata": {"component": image},
        "components": [_component(package) for package in sorted(packages)],
    }


def _component(package: Package) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
    }
    if package.licence:
        stated = {"license": {"name": package.licence}}
        component["licenses"] = [{"expression": package.licence} if package.spdx else stated]
    return component


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    content = archive.extractfile(member)
    assert content is not None  # a regular file has one
    return content.read().decode("utf-8", "replace")


def _release(text: str) -> str:
    fields = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE))
    return f"{fields.get('ID', 'linux')}-{fields.get('VERSION_ID', '')}".rstrip("-")
