"""Where a bucket is and who asks: read from the environment, the secret never shown."""

import configparser
import os
from collections.abc import Mapping
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

AWS = "https://s3.amazonaws.com"

# Each setting's variables, the first that is set counts.
_VARIABLES = {
    "endpoint": ("MOCO_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "ca_bundle": ("AWS_CA_BUNDLE", "SSL_CERT_FILE"),
    "addressing": ("MOCO_S3_ADDRESSING",),
    "retry_seconds": ("MOCO_S3_RETRY_SECONDS",),
}
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
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("write it as http://HOST:PORT or https://HOST:PORT")
        if parts.username or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("it must end after the port; credentials have their own variables")
        return f"{parts.scheme}://{parts.netloc}"

    @model_validator(mode="after")
    def _keys_come_in_pairs(self) -> Self:
        if bool(self.access_key) != bool(self.secret_key):
            raise ValueError("an access key id needs its secret access key, and the reverse")
        return self

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings.

        Raises:
            StoreError: naming the variables at fault, never their values.
        """
        values = {
            field: next((environment[name] for name in names if environment.get(name)), None)
            for field, names in _VARIABLES.items()
        }
        for access_key, secret_key, session_token in _KEY_VARIABLES:
            if environment.get(access_key):
                values["access_key"] = environment[access_key]
                values["secret_key"] = environment.get(secret_key)
                values["session_token"] = environment.get(session_token)
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
            environment.get("AWS_SHARED_CREDENTIALS_FILE") or str(home / ".aws" / "credentials"),
            environment.get("AWS_PROFILE") or "default",
        )
        if any(environment.get(name) for name in _SERVICE_ACCOUNT_VARIABLES):
            return ChainedProvider([provider, _ServiceAccount(environment)])
        try:
            provider.retrieve()
        except (ValueError, configparser.Error):
            raise StoreError(
                "no credentials for the store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "AWS_PROFILE to a profile of the AWS credentials file"
            ) from None
        return provider


class _ServiceAccount(IamAwsProvider):
    """The client's own provider, but for the environment that it reads."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__()
        for attribute, name in _SERVICE_ACCOUNT_ATTRIBUTES.items():
            setattr(self, attribute, environment.get(name))
        path = environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        self._relative_uri = f"/{path.lstrip('/')}" if path else None

    @override
    def retrieve(self) -> Credentials:
        try:
            return super().retrieve()
        except Exception as error:  # of files, of the network, of what is answered
            raise StoreError(
                f"the pod's service account gives no credentials for the store: {error}; check "
                f"{' / '.join(_SERVICE_ACCOUNT_VARIABLES)}, or set {_KEY_VARIABLES[0][0]} and "
                f"{_KEY_VARIABLES[0][1]}"
            ) from None


def _shown(location: tuple[int | str, ...], message: str) -> str:
    if not location:
        return f"{' / '.join(_KEY_VARIABLES[0][:2])}: {message}"
    names = _VARIABLES.get(str(location[0]), (str(location[0]),))
    return f"{' / '.join(names)}: {message}"
