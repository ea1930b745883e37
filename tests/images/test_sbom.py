"""What is found in the files of an image, tried on this machine's own packages."""

import importlib.metadata
import io
import json
import tarfile
from pathlib import Path

import pytest

from images.sbom import Package, Subject, read_inventory, software_bill

NAME = "registry.example/me/moco-transfer-torch"
SUBJECT = Subject(NAME, "0.1.0", f"{NAME}@sha256:{'a' * 64}", "b" * 64)
STATUS = """\
Package: libstdc++6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 12.2.0-14+deb12u1
Description: GNU Standard C++ Library v3
 This package contains an additional runtime library.

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: bzip2
Status: install ok installed
Architecture: amd64
Version: 1:1.0.8-5
"""
RELEASE = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n'


def archive(files: dict[str, bytes]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    stream.seek(0)
    return stream


def installed_here() -> dict[str, bytes]:
    """Return the METADATA of the packages of this environment, as an image has them."""
    files = {}
    for one in importlib.metadata.distributions():
        text = one.read_text("METADATA")
        if text and one.name:
            files[f"opt/venv/lib/{one.name}-{one.version}.dist-info/METADATA"] = text.encode()
    return files


def test_every_python_package_is_found() -> None:
    files = installed_here()

    found = read_inventory(archive(files))

    assert {(one.name, one.version) for one in found} == {
        (one.name, one.version)
        for one in importlib.metadata.distributions()
        if one.read_text("METADATA")
    }
    (torch,) = (one for one in found if one.name == "torch")
    assert torch.purl == f"pkg:pypi/torch@{importlib.metadata.version('torch')}".replace("+", "%2B")
    assert torch.licence


def test_debian_packages_are_those_installed() -> None:
    files = {"./var/lib/dpkg/status": STATUS.encode(), "./etc/os-release": RELEASE.encode()}

    found = read_inventory(archive(files))

    where = "arch=amd64&distro=debian-12"
    assert {one.purl for one in found} == {
        f"pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?{where}",
        f"pkg:deb/debian/bzip2@1%3A1.0.8-5?{where}",
    }


def test_this_machines_debian_packages_are_found() -> None:
    status = Path("/var/lib/dpkg/status")
    if not status.is_file():
        pytest.skip("no Debian here")

    found = read_inventory(archive({"var/lib/dpkg/status": status.read_bytes()}))

    assert "libc6" in {one.name for one in found}


def test_an_interpreter_built_from_source_is_found() -> None:
    header = b'#define PY_MAJOR_VERSION 3\n#define PY_VERSION      \t"3.11.14"\n'
    files = {"usr/local/include/python3.11/patchlevel.h": header}

    (found,) = read_inventory(archive(files))

    assert found == Package("pkg:generic/python@3.11.14", "python", "3.11.14", "PSF-2.0", True)


def test_a_licence_that_is_a_whole_text_is_left_out() -> None:
    text = b"Name: odd\nVersion: 1\nLicense: Permission is granted\n        to everybody\n"

    (found,) = read_inventory(archive({"x/odd-1.dist-info/METADATA": text}))

    assert found == Package("pkg:pypi/odd@1", "odd", "1")


def test_the_bill_is_valid_and_repeats() -> None:
    json_validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    files = installed_here() | {"var/lib/dpkg/status": STATUS.encode()}

    bill = software_bill(SUBJECT, read_inventory(archive(files)))

    validator = json_validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(bill)) is None
    assert bill == software_bill(SUBJECT, read_inventory(archive(files)))
    image = bill["metadata"]["component"]
    assert (image["name"], image["bom-ref"]) == (NAME, SUBJECT.reference)
    assert image["hashes"][0]["content"] == "b" * 64
