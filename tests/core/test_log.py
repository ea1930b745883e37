import json

import pytest

from components.core import log


def test_pods_get_json_lines_without_secrets(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-value-77")
    log.configure(json_lines=True)
    log.get_logger("x").info(
        "connected canary-value-77", secret_key="abc", nested={"password": "p", "n": 1}, step=3
    )
    line = json.loads(capfd.readouterr().err)
    assert line["event"] == "connected [redacted]"
    assert line["secret_key"] == "[redacted]"
    assert line["nested"] == {"password": "[redacted]", "n": 1}
    assert line["step"] == 3
    assert line["level"] == "info"


def test_people_get_lines(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure(json_lines=False)
    log.get_logger("x").info("epoch finished", epoch=3)
    text = capfd.readouterr().err
    assert "epoch finished" in text
    assert not text.startswith("{")
