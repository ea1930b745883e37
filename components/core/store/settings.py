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

from components.core.errors import StoreError
from components.core.log import get_logger, scrub

log = get_logger(__name__)

AWS = "https://s3.amazonaws.com"

_HOST = re.compile(r"[\w.-]+|[0-9a-f:.]+(%\w+)?", re.ASCII)  # a name, or an address of IPv6
_REGION = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", re.IGNORECASE)
_SENDABLE = re.compile(r"[!-~]+")
_COPY = "a blank, a line break, or one outside ASCII; copy it anew"

# Each setting's variables, the first that is set counts.
_VARIABLES = {
    "endpoint": ("MOCO_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "ca_bundle": ("AWS_CA_BUNDLE", "SSL_CERT_FILE"),
    "addressing": ("MOCO_S3_ADDRESSING",),
    "retry_seconds": ("MOCO_S3_RETRY_SECONDS",),
}
_KEY_FIELDS = ("access_key", "secret_key", "session_token")
_KEY_VARIABLES = (
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_SESSION_TOKEN"),
)
# A pod's service account; without these the provider would ask a cloud's metadata address.
_SERVICE_ACCOUNT_VARIABLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
# What the client's provider keeps of its process's environment, and under which attributes.
_SERVICE_ACCOUNT_ATTRIBUTES = {
    "_token": "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "_token_file": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "_identity_file": "AWS_WEB_IDENTITY_TOKEN_FILE",
    "_aws_region": "AWS_REGION",
    "_role_arn": "AWS_ROLE_ARN",
    "_role_session_name": "AWS_ROLE_SESSION_NAME",
    "_full_uri": "AWS_CONTAINER_CREDENTIALS_FULL_URI",
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
        for names in _KEY_VARIABLES:
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
            _value(environment, "AWS_SHARED_CREDENTIALS_FILE")
            or str(home / ".aws" / "credentials"),
            _value(environment, "AWS_PROFILE") or "default",
        )
        if any(_value(environment, name) for name in _SERVICE_ACCOUNT_VARIABLES):
            return ChainedProvider([provider, _ServiceAccount(environment)])
        try:
            credentials = provider.retrieve()
        except (ValueError, configparser.Error):
            raise StoreError(
                "no credentials for the store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "AWS_PROFILE to a profile of the AWS credentials file"
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
        path = _value(environment, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        self._relative_uri = f"/{path.lstrip('/')}" if path else None

    @override
    def retrieve(self) -> Credentials:
        try:
            return super().retrieve()
        except Exception as error:  # of files, of the network, of what is answered
            raise StoreError(
                "the pod's service account gives no credentials for the store: "
                f"{scrub(str(error))}; check {' / '.join(_SERVICE_ACCOUNT_VARIABLES)}, or set "
                f"{' and '.join(_KEY_VARIABLES[0][:2])}"
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
    variables = " / ".join(names[_KEY_FIELDS.index(field)] for names in _KEY_VARIABLES)
    return f"the {field.replace('_', ' ')} ({variables}) holds a character that none has: {_COPY}"


def _shown(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not location:
        return f"{' / '.join(_KEY_VARIABLES[0][:2])}: {message}"
    names = _VARIABLES.get(str(location[0]), (str(location[0]),))
    return f"{' / '.join(names)}: {message}"
