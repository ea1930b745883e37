from pathlib import Path

import pytest

from components.core import version
from components.core.stage import load_stage


def test_the_digest_covers_what_a_stage_reaches_and_nothing_else() -> None:
    reached = {
        path.relative_to(version.ROOT).as_posix()
        for path in version._reachable(("components.pretrain", "components.pretrain.train"))
    }
    assert {"pretrain/mechanisms.py", "training/loop.py", "core/config.py"} <= reached
    assert not any(path.startswith(("report/", "classification/", "digits/")) for path in reached)


def test_a_change_of_the_source_changes_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "components"
    for path in version._reachable(("components.digits", "components.digits.write")):
        copy = root / path.relative_to(version.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    before = version.code_of(load_stage("digits")).digest
    monkeypatch.setattr(version, "ROOT", root)
    version._digest.cache_clear()
    assert version.code_of(load_stage("digits")).digest == before
    (root / "digits/scenes.py").write_text("# changed\n" + (root / "digits/scenes.py").read_text())
    version._digest.cache_clear()
    assert version.code_of(load_stage("digits")).digest != before
    version._digest.cache_clear()
