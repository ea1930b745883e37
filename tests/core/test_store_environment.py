import pytest

from components.core import store_environment as variables
from components.core.log import known_secrets
from components.core.store_environment import (
    environment_of,
    names_credentials,
    names_endpoint,
    names_region,
)


def test_an_environment_says_where_the_store_is_and_who_asks_by_any_of_the_names() -> None:
    for says, names in (
        (names_endpoint, ("MOCO_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")),
        (names_region, ("AWS_REGION", "AWS_DEFAULT_REGION")),
        (names_credentials, ("AWS_ACCESS_KEY_ID", "MINIO_ACCESS_KEY", "AWS_PROFILE")),
    ):
        assert not says({"PATH": "/bin"})
        for name in names:
            assert says({name: "x"})
            assert not says({name: ""})


def test_what_a_container_is_given_says_where_the_store_is() -> None:
    given = environment_of("http://store:9000", "here", "/etc/ca.crt")
    assert given == {
        "MOCO_S3_ENDPOINT": "http://store:9000",
        "AWS_REGION": "here",
        "AWS_CA_BUNDLE": "/etc/ca.crt",
    }
    assert names_endpoint(given)
    assert names_region(given)
    assert not names_credentials(given)
    assert environment_of(endpoint="http://store:9000", region=None, ca_bundle="") == {
        "MOCO_S3_ENDPOINT": "http://store:9000"
    }


@pytest.mark.parametrize("name", variables.SECRETS)
def test_the_values_of_secret_ones_are_blanked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, f"value of {name}")
    assert f"value of {name}" in known_secrets()


def test_every_name_that_sounds_secret_is_treated_so_or_is_a_place() -> None:
    texts = [value for value in vars(variables).values() if isinstance(value, str)]
    names = {name for name in texts if name.startswith(("AWS_", "MINIO_"))}
    names |= {name for key_names in variables.KEYS for name in key_names}
    secret = {name for name in names if "SECRET" in name or name.endswith(("TOKEN", "PASSWORD"))}
    assert secret == set(variables.SECRETS)
