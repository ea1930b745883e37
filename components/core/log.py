"""Structured logs on stderr: lines for people on a terminal, JSON lines in a pod."""

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from components.core.store_environment import SECRETS

IN_CODE_DIGEST = False  # what a log shows, no result is computed from

REDACTED = "[redacted]"
_SECRET_NAME = re.compile(
    r"(?i)secret|password|passwd|token|credential|private_?key|access_?key$|^authorization$"
)
# What follows, to the end of its line, signs a request: in texts of HTTP errors and in frames.
_SIGNED = re.compile(
    r"(?i)(AWS4-HMAC-SHA256|authorization['\"]?\s*[:=]|invalid header value)[^\n]*"
)
# Who asks, in a URL: `scheme://USER:PASSWORD@host`.
_USER_INFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,20}://)[^/\s'\"<>]*@")
_SECRET_ENVIRONMENT = (*SECRETS, "MINIO_ROOT_PASSWORD")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger; events are short phrases, everything else goes into named fields."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger


def configure(json_lines: bool | None = None, level: str | None = None) -> None:
    """Set up logging once for a process.

    Args:
        json_lines: JSON lines or human lines; by default human only on a terminal,
            or as the environment's MOCO_LOG (`json` or `human`) says.
        level: Lowest level that is shown; by default MOCO_LOG_LEVEL, else `info`.
    """
    if json_lines is None:
        form = os.environ.get("MOCO_LOG", "human" if sys.stderr.isatty() else "json")
        json_lines = form == "json"
    threshold = logging.getLevelNamesMapping().get(
        (level or os.environ.get("MOCO_LOG_LEVEL", "info")).upper(), logging.INFO
    )
    shape: list[Any] = (
        [structlog.processors.dict_tracebacks, redact, structlog.processors.JSONRenderer()]
        if json_lines
        else [redact, structlog.dev.ConsoleRenderer(pad_event_to=0)]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(
                fmt="iso" if json_lines else "%H:%M:%S", utc=json_lines
            ),
            *shape,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank fields named like secrets, and known secret values wherever they stand."""
    secrets = known_secrets()
    for name, value in event.items():
        event[name] = REDACTED if names_secret(name) else _scrub(value, secrets)
    return event


def scrub(text: str) -> str:
    """Blank the secrets of this process's environment, what signs a request, who asks in a URL."""
    return _scrubbed(text, known_secrets())


def names_secret(name: str) -> bool:
    """Say whether a field called so holds a secret."""
    return bool(_SECRET_NAME.search(name))


def known_secrets() -> list[str]:
    """Return the secret values that this process was given by environment.

    Without the white space around them, which is left out where they are used.
    """
    values = (os.environ.get(name, "").strip() for name in _SECRET_ENVIRONMENT)
    return [value for value in values if len(value) >= 4]


def _scrubbed(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    return _USER_INFO.sub(rf"\1{REDACTED}@", _SIGNED.sub(rf"\1 {REDACTED}", text))


def _scrub(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        return _scrubbed(value, secrets)
    if isinstance(value, dict):
        return {
            key: REDACTED if names_secret(str(key)) else _scrub(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_scrub(item, secrets) for item in value]
    return value
