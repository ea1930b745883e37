"""Where a bucket is and who asks: read from the environment, the secret never shown."""

import configparser
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from minio.credentials.credentials import Credentials
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    IamAwsProvider,
    Provider,
    StaticProvider,
)
from pydantic import (
    BaseModel,
    ConfigDict,
    FilePath,
    NonNegativeFloat,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from typing_extensions import override

from components.core import store_environment as variables
from components.core.errors import StoreError
from components.core.log import get_logger, scrub

log = get_logger(__name__)

AWS = "https://s3.amazonaws.com"

_HOST = re.compile(r"[\w.-]+|[0-9a-f:.]+(%\w+)?", re.ASCII)  # a name, or an address of IPv6
_REGION = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", re.IGNORECASE)
_SENDABLE = re.compile(r"[!-~]+")
_BOTH_KEYS = f"{variables.ACCESS_KEY} and {variables.SECRET_KEY}"
_COPY = "a blank, a line break, or one outside ASCII; copy it anew"

# Each setting's variables, the first that is set counts.
_VARIABLES = {
    "endpoint": variables.ENDPOINT,
    "region": variables.REGION,
    "ca_bundle": variables.CA_BUNDLE,
    "addressing": variables.ADDRESSING,
    "retry_seconds": variables.RETRY_SECONDS,
}
_KEY_FIELDS = ("access_key", "secret_key", "session_token")
# What the client's provider keeps of its process's environment, and under which attributes.
_SERVICE_ACCOUNT_ATTRIBUTES = {
    "_token": variables.AUTHORIZATION,
    "_token_file": variables.AUTHORIZATION_FILE,
    "_identity_file": variables.IDENTITY_FILE,
    "_aws_region": variables.REGION[0],
    "_role_arn": variables.ROLE,
    "_role_session_name": variables.ROLE_SESSION,
    "_full_uri": variables.CREDENTIALS_URL,
}


class S3Settings(BaseModel):
    """What reaching a bucket takes beside its URL."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    endpoint: str | None = None
    """URL of the store; its scheme decides on TLS. AWS when there is none."""
    region: str | None = None
    """Asked from the store when there is none."""
    ca_bundle: FilePath | None = None
    """Certificates to trust, PEM."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """Bucket in the path or in the host name; auto: in the path, but for AWS."""
    retry_seconds: NonNegativeFloat = 120
    """How long one request is tried again while the store is away or busy."""
    access_key: str | None = None
    secret_key: SecretStr | None = None
    session_token: SecretStr | None = None

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_a_server(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        try:
            parts = urlsplit(endpoint)
            host, port = parts.hostname, parts.port
        except ValueError:  # of a port that is no number, or half an IPv6 address
            host = port = parts = None
        if parts is None or parts.scheme not in ("http", "https") or not host or port == 0:
            shown = "" if "@" in endpoint else f"{endpoint!r}: "  # there may be a password in it
            raise ValueError(
                f"{shown}write http://HOST:PORT or https://HOST:PORT, the port from 1 to 65535"
            )
        if "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("it must end after the port; credentials have their own variables")
        if not _HOST.fullmatch(host) or not endpoint.isprintable():
            raise ValueError(f"{endpoint!r}: its host holds a character that no host name has")
        return f"{parts.scheme}://{parts.netloc.rstrip(':')}"

    @field_validator("region")
    @classmethod
    def _region_is_a_name(cls, region: str | None) -> str | None:
        if region is not None and not _REGION.fullmatch(region):
            raise ValueError(f"{region!r}: write letters, digits and hyphens, such as us-east-1")
        return region

    @model_validator(mode="after")
    def _keys_can_be_sent(self) -> Self:
        for field in _KEY_FIELDS:
            value = getattr(self, field)
            shown = value.get_secret_value() if isinstance(value, SecretStr) else value
            if fault := _key_fault(field, shown):
                raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _keys_come_in_pairs(self) -> Self:
        if bool(self.access_key) != bool(self.secret_key):
            raise ValueError("an access key id needs its secret access key, and the reverse")
        return self

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings; white space around a value is left out, with a warning.

        Raises:
            StoreError: naming the variables at fault, never showing a credential.
        """
        values = {
            field: next((value for name in names if (value := _value(environment, name))), None)
            for field, names in _VARIABLES.items()
        }
        for names in variables.KEYS:
            if _value(environment, names[0]):
                given = (_value(environment, name) for name in names)
                values |= zip(_KEY_FIELDS, given, strict=True)
                break
        try:
            return cls.model_validate({k: v for k, v in values.items() if v is not None})
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)
            raise StoreError("\n".join(_shown(f["loc"], f["msg"]) for f in faults)) from None

    def credentials(self, environment: Mapping[str, str] = os.environ) -> Provider:
        """Give what signs the requests: the keys, else the usual files, else the service account.

        Files and service accounts are asked again when their credentials expire, as they do
        during a long training.

        Args:
            environment: Where files and service accounts are named.

        Raises:
            StoreError: when there are none.
        """
        if self.access_key and self.secret_key:
            token = self.session_token.get_secret_value() if self.session_token else None
            return StaticProvider(self.access_key, self.secret_key.get_secret_value(), token)
        home = Path(environment.get("HOME") or Path.home())
        provider = AWSConfigProvider(
            _value(environment, variables.CREDENTIALS_FILE) or str(home / ".aws" / "credentials"),
            _value(environment, variables.PROFILE) or "default",
        )
        # Without these the provider would ask a cloud's metadata address.
        if any(_value(environment, name) for name in variables.SERVICE_ACCOUNT):
            return ChainedProvider([provider, _ServiceAccount(environment)])
        try:
            credentials = provider.retrieve()
        except (ValueError, configparser.Error):
            raise StoreError(
                f"no credentials for the store: set {_BOTH_KEYS}, or "
                f"{variables.PROFILE} to a profile of the AWS credentials file"
            ) from None
        for field in _KEY_FIELDS:
            if fault := _key_fault(field, getattr(credentials, field)):
                raise StoreError(f"in the profile of the AWS credentials file, {fault}")
        return provider


class _ServiceAccount(IamAwsProvider):
    """The client's own provider, but for the environment that it reads."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__()
        for attribute, name in _SERVICE_ACCOUNT_ATTRIBUTES.items():
            setattr(self, attribute, _value(environment, name))
        path = _value(environment, variables.CREDENTIALS_PATH)
        self._relative_uri = f"/{path.lstrip('/')}" if path else None

    @override
    def retrieve(self) -> Credentials:
        try:
            return super().retrieve()
        except Exception as error:  # of files, of the network, of what is answered
            raise StoreError(
                "the pod's service account gives no credentials for the store: "
                f"{scrub(str(error))}; check {' / '.join(variables.SERVICE_ACCOUNT)}, "
                f"or set {_BOTH_KEYS}"
            ) from None


def _value(environment: Mapping[str, str], name: str) -> str | None:
    """Return a variable without the white space around it: a secret made by `echo` ends in some."""
    value = environment.get(name)
    if value is not None and value != value.strip():
        _warn_of_white_space(name)
    return value and value.strip()


@cache
def _warn_of_white_space(name: str) -> None:
    log.warning("white space around a setting is left out: correct it at its source", variable=name)


def _key_fault(field: str, value: str | None) -> str | None:
    """Say what keeps a credential from being used, without showing it; None if nothing does.

    All but the secret go into headers, where a blank or a line break would spoil the request.
    """
    if not value or (value.isprintable() if field == "secret_key" else _SENDABLE.fullmatch(value)):
        return None
    given_as = " / ".join(names[_KEY_FIELDS.index(field)] for names in variables.KEYS)
    return f"the {field.replace('_', ' ')} ({given_as}) holds a character that none has: {_COPY}"


def _shown(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not location:
        return f"{variables.ACCESS_KEY} / {variables.SECRET_KEY}: {message}"
    names = _VARIABLES.get(str(location[0]), (str(location[0]),))
    return f"{' / '.join(names)}: {message}"
