"""What the repository's files say of the project, alike in each of them."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]


def test_the_citation_and_the_changelog_know_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert citation["version"] == VERSION
    assert headings[:2] == ["Unreleased", VERSION]


def test_a_commit_passes_what_make_check_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = {hook["entry"].removeprefix(".venv/bin/") for hook in hooks}
    rules = dict(re.findall(r"^(\w+):[^\n]*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), re.M))
    commands = "".join(rules[name] for name in ("lint", "types", "contracts"))

    # The hook is given the Dockerfiles by name.
    checks = re.findall(r"^\t\$\(BIN\)/(.+?)(?: images/\*/Dockerfile)?$", commands, re.MULTILINE)
    assert set(checks) == entries
    assert re.search(r"^check: lint types contracts", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_picture_of_the_packages_is_that_of_the_contracts() -> None:
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    layers = {
        contract["layers"][0].partition(".")[0]: contract["layers"]
        for contract in contracts
        if contract["type"] == "layers"
    }
    picture = []
    for folder in ("pipelines", "components"):
        for row, layer in enumerate(layers[folder]):
            names = layer.replace(f"{folder}.", "").replace(" | ", "  ")
            picture.append(f"    {'' if row else f'{folder}/':<13}{names}")
    packages = {path.parent.name for path in (ROOT / "components").glob("*/__init__.py")}

    assert "\n".join(picture) in (ROOT / "README.md").read_text()
    assert packages == set(re.findall(r"\w+", " ".join(picture[7:]))) - {"components"}


def test_links_between_pages_lead_somewhere() -> None:
    folders = ("charts", "components", "images", "pipelines", "tests")
    pages = [
        *ROOT.glob("*.md"),
        *(page for name in folders for page in (ROOT / name).rglob("*.md")),
    ]
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert len(pages) > 5
    assert broken == []
