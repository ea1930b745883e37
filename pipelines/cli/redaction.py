"""Blanks credentials in what is given away, wherever they stand.

A credential is known by the name beside it, by its form, or because this process could use it: a
variable of the environment, a credentials file, a kubeconfig. More than those is blanked rather
than less: what reads a bundle of facts is a person.
"""

import base64
import configparser
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from components.core.log import REDACTED, names_secret, scrub
from components.core.store_environment import CREDENTIALS_FILE

SHORTEST, SHORTEST_NUMBER = 4, 6  # characters of a value that is looked for
LARGEST = 1 << 20  # bytes of a file that credentials are read from

_VARIABLE = re.compile(r"(?i)secret|pass|token|credential|key|auth|cookie|dsn|connection|root_user")
_PLAIN = frozenset({"true", "false", "none", "null", "auto", "default"})
_KUBECONFIG = re.compile(
    r"(?m)^[\s-]*(?:token|password|client-key-data|client-secret|[a-z]+-token):\s*['\"]?([^\s'\"]+)"
)
_NAME = (
    r"[\w.-]{0,40}(?:secret|password|passwd|passphrase|token|credential|api[_-]?key|private[_-]?key"
    r"|access[_-]?key|signature|cookie)[\w.-]{0,40}"
)
_VALUE = r"\"[^\"\n]*\"|'[^'\n]*'|[^\s,;&\"'<>}\])]+"
_FORMS = (
    (re.compile(r"(?s)(-----BEGIN [A-Z ]*KEY-----).*?(?:-----END [A-Z ]*KEY-----|\Z)"), r"\1"),
    (re.compile(rf"(?i)({_NAME}\\?[\"']?\s*[:=]\s*)(?:{_VALUE})"), r"\1"),
    (re.compile(rf"(?i)(--{_NAME}\s+)(?:{_VALUE})"), r"\1"),
    (re.compile(r"(\s(?:-u|--user)[ =])[^\s:]+:\S+"), r"\1"),
    (re.compile(r"(?i)([?&]sig=)[^&\s\"']+"), r"\1"),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{6,}"), r"\1"),
    (re.compile(r"(?i)\b(basic\s+)[\w+/=-]{16,}"), r"\1"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"), ""),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), ""),
    (re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|xox[a-z]-)[\w-]{16,}"), ""),
)


class Redactor:
    """Blanks what it knows, and what looks like a credential.

    Args:
        secrets: Values that are credentials, beside those that can be found on this machine.
        environment: Of this process.
    """

    def __init__(
        self, secrets: Iterable[str] = (), environment: Mapping[str, str] = os.environ
    ) -> None:
        self._secrets: list[str] = []
        self._home = str(Path.home())
        self.know(secrets)
        self.know(_of_environment(environment))
        self.know(_of_files(environment))

    def know(self, secrets: Iterable[str]) -> None:
        """Learn of more credentials, in every form in which a text may hold them."""
        known = {*self._secrets}
        for secret in (given.strip() for given in secrets):
            if _can_be_found(secret):
                encoded = base64.b64encode(secret.encode()).decode()
                escaped = json.dumps(secret)[1:-1]
                known |= {secret, escaped, quote(secret, safe=""), encoded, repr(secret)[1:-1]}
        self._secrets = sorted(known, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return a text without credentials; the user's own folder is written as ~."""
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        text = scrub(text)
        for form, kept in _FORMS:
            text = form.sub(f"{kept}{REDACTED}", text)
        if len(self._home) > 1:
            text = re.sub(rf"{re.escape(self._home)}(?![\w.-])", "~", text)
        return text

    def value(self, value: Any) -> Any:
        """Return a JSON value without credentials; a field that is named like one is blanked."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): REDACTED
                if names_secret(str(key)) and item is not None and not isinstance(item, bool)
                else self.value(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value


def _can_be_found(secret: str) -> bool:
    """Say whether a value is so long that it stands for nothing else in a text."""
    shortest = SHORTEST_NUMBER if secret.isdigit() else SHORTEST
    return len(secret) >= shortest and secret.lower() not in _PLAIN


def _of_environment(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the values of variables that are named like secrets, and who asks in URLs."""
    for name, value in environment.items():
        if _VARIABLE.search(name) and not _is_path(value):
            yield value
        yield from _of_url(value)


def _of_url(value: str) -> Iterator[str]:
    """Yield the password of a URL, or its user if there is none: tokens stand there."""
    with suppress(ValueError):
        parts = urlsplit(value.strip())
        word = parts.password or parts.username if parts.netloc else None
        if word:
            yield from (word, unquote(word))


def _of_files(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the credentials in the files that clients of stores and clusters read."""
    home = Path(environment.get("HOME") or Path.home())
    profiles = configparser.RawConfigParser()
    with suppress(configparser.Error):
        place = environment.get(CREDENTIALS_FILE) or home / ".aws" / "credentials"
        profiles.read_string(_content(Path(place)))
    for section in profiles.sections():
        yield from (value for _, value in profiles.items(section))
    kubeconfig = environment.get("KUBECONFIG") or str(home / ".kube" / "config")
    for name in kubeconfig.split(os.pathsep):
        yield from _KUBECONFIG.findall(_content(Path(name)))
    for name, value in environment.items():
        if _VARIABLE.search(name) and name.upper().endswith("_FILE") and "CRED" not in name.upper():
            yield _content(Path(value))
    yield _content(Path("/var/run/secrets/kubernetes.io/serviceaccount/token"))


def _content(path: Path) -> str:
    try:
        if path.is_file() and path.stat().st_size <= LARGEST:
            return path.read_text("utf-8", "replace")
    except OSError:
        pass
    return ""


def _is_path(value: str) -> bool:
    try:
        return value.startswith(("/", "~")) and Path(value).expanduser().exists()
    except (OSError, RuntimeError):
        return False
