import json
from collections.abc import Iterator

import pytest
import structlog

from components.core import log


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Let no later test write to the file that was captured here."""
    yield
    structlog.reset_defaults()


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


def test_what_signs_a_request_is_blanked_even_where_no_secret_is_known(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "MINIO_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    signature = "AWS4-HMAC-SHA256 Credential=me/20200101/r/s3/aws4_request, Signature=5ca1ab1e"
    texts = (
        f"ValueError: Invalid header value b'{signature}'\nnext",
        f"{{'Authorization': '{signature}'}}\nnext",
        "Authorization: Bearer 5ca1ab1e\nnext",
    )
    for text in texts:
        assert "5ca1ab1e" not in log.scrub(text)
        assert log.scrub(text).endswith("\nnext")
    log.configure(json_lines=True)
    log.get_logger("x").info("sent", headers={"Authorization": "5ca1ab1e"}, why=texts[0])
    assert "5ca1ab1e" not in capfd.readouterr().err


def test_a_secret_is_blanked_without_the_line_break_that_it_was_given_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-value-78\n")
    assert log.scrub("it is canary-value-78.") == "it is [redacted]."


def test_who_asks_in_a_url_is_blanked_and_the_rest_of_it_stays() -> None:
    text = "no answer from http://me:p4ss@store:9000/b, nor https://t0ken@host; s3://b/a@b stays"
    assert log.scrub(text) == (
        "no answer from http://[redacted]@store:9000/b, nor https://[redacted]@host; "
        "s3://b/a@b stays"
    )
