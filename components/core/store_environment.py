"""The variables that say where a store is and who asks it: the name of each, and what it means.

`components.core.store` reads them, `components.core.log` blanks the secret ones, and whoever starts
a container of ours sets some. Where a thing has several names, the first that is set counts.
"""

from collections.abc import Iterable, Mapping

IN_CODE_DIGEST = False  # stores carry bytes, which are verified by their hashes

ENDPOINT = ("MOCO_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""URL of the store, `http://HOST:PORT` or `https://HOST:PORT`; AWS if there is none."""
REGION = ("AWS_REGION", "AWS_DEFAULT_REGION")
"""The store's region; asked from it if there is none."""
CA_BUNDLE = ("AWS_CA_BUNDLE", "SSL_CERT_FILE")
"""File with the certificates to trust, PEM; those of certifi if there is none."""
ADDRESSING = ("MOCO_S3_ADDRESSING",)
"""Where a request names the bucket: `path`, `virtual` for the host name, or `auto`."""
RETRY_SECONDS = ("MOCO_S3_RETRY_SECONDS",)
"""How long one request is tried again while the store is away or busy."""

KEYS = (
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_SESSION_TOKEN"),
)
"""Access key id, secret access key and session token: all of the first set that has an id."""
ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = KEYS[0]
"""What containers of ours are given."""
CREDENTIALS_FILE = "AWS_SHARED_CREDENTIALS_FILE"
"""File with profiles of credentials; `~/.aws/credentials` if there is none."""
PROFILE = "AWS_PROFILE"
"""Profile of that file; `default` if there is none."""
CREDENTIALS = (*(access_key for access_key, *_ in KEYS), PROFILE)
"""With any of these somebody says who asks."""

IDENTITY_FILE = "AWS_WEB_IDENTITY_TOKEN_FILE"
"""File with the token of a pod's service account, for which AWS gives credentials."""
ROLE = "AWS_ROLE_ARN"
"""The role that the token is for."""
ROLE_SESSION = "AWS_ROLE_SESSION_NAME"
"""What that use of the role is called."""
CREDENTIALS_PATH = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
"""Path at which a container is given credentials, at the address that AWS has for it."""
CREDENTIALS_URL = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
"""URL at which it is given them elsewhere."""
AUTHORIZATION = "AWS_CONTAINER_AUTHORIZATION_TOKEN"
"""What a container shows there."""
AUTHORIZATION_FILE = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
"""File with that."""
SERVICE_ACCOUNT = (IDENTITY_FILE, CREDENTIALS_PATH, CREDENTIALS_URL)
"""With any of these a pod asks as its service account, where there are neither keys nor a file."""

SECRETS = (*(name for _, *secrets in KEYS for name in secrets), AUTHORIZATION)
"""Those whose values nobody may see."""


def names_endpoint(environment: Mapping[str, str]) -> bool:
    """Say whether an environment says where the store is."""
    return _names_any(environment, ENDPOINT)


def names_region(environment: Mapping[str, str]) -> bool:
    """Say whether an environment says which region the store is in."""
    return _names_any(environment, REGION)


def names_credentials(environment: Mapping[str, str]) -> bool:
    """Say whether somebody chose in an environment who asks the store."""
    return _names_any(environment, CREDENTIALS)


def environment_of(
    endpoint: str | None = None, region: str | None = None, ca_bundle: str | None = None
) -> dict[str, str]:
    """Return the variables with which a process finds a store; credentials are not among them.

    Args:
        endpoint: Its URL.
        region: Its region.
        ca_bundle: Path of the certificates to trust, where the process runs.
    """
    values = {ENDPOINT[0]: endpoint, REGION[0]: region, CA_BUNDLE[0]: ca_bundle}
    return {name: value for name, value in values.items() if value}


def _names_any(environment: Mapping[str, str], names: Iterable[str]) -> bool:
    return any(environment.get(name) for name in names)
