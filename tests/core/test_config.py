import json
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from components.core.config import Config, Incidental, apply_settings, parse_config, read_config
from components.core.errors import ConfigError
from components.detection.coco import CocoConfig
from components.pretrain import PretrainConfig


class Inner(Config):
    """Nested."""

    depth: int = 1
    patience: Annotated[int, Field(ge=0), Incidental()] = 3


class Outer(Config):
    """Outer."""

    width: int
    name: str = "x"
    inner: Inner = Inner()


def test_every_fault_is_reported_at_once_with_its_path_and_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(Outer, {"widht": 3, "inner": {"depht": 2, "depth": "deep"}})
    message = str(caught.value)
    assert "4 fault(s)" in message
    assert "width: is required" in message
    assert "widht: no such field; did you mean 'width'?" in message
    assert "inner.depht: no such field; did you mean 'depth'?" in message
    assert "inner.depth: " in message
    assert "(got deep)" in message


def test_a_fault_shows_no_more_of_a_value_than_a_line_can_hold() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(Outer, {"width": list(range(99)), "inner": {"depth": 9 * "deep, too deep, "}})
    assert all(len(line) < 200 for line in str(caught.value).splitlines())
    # Of what several fields do together the message says all, and their config says nothing.
    with pytest.raises(ConfigError) as caught:
        parse_config(CocoConfig, {"model": {"kind": "c4", "keypoints": True}})
    assert str(caught.value).endswith(
        "  model: keypoints and surfaces are read from a pyramid, not from c4"
    )


@pytest.mark.parametrize("text", ["{", "[1]", "null", '"x"', "@/nowhere/config.json"])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"Outer|config\.json"):
        read_config(Outer, text)


def test_a_config_cannot_be_changed() -> None:
    config = Outer(width=1)
    with pytest.raises(ValueError, match="frozen"):
        config.width = 2  # type: ignore[misc]


def test_settings_reach_nested_fields_and_are_validated() -> None:
    config = apply_settings(Outer(width=1), {"inner.depth": "5", "name": "free text"})
    assert (config.inner.depth, config.name) == (5, "free text")
    with pytest.raises(ConfigError, match=r"inner\.depht: no such field; did you mean 'depth'"):
        apply_settings(config, {"inner.depht": "5"})
    with pytest.raises(ConfigError, match="'width' holds no further fields"):
        apply_settings(config, {"width.x": "5"})


@given(
    width=st.integers(-(2**53), 2**53),
    name=st.text(st.characters(exclude_categories=["Cs"])),
    depth=st.integers(0, 9),
)
def test_json_brings_the_same_config_back(width: int, name: str, depth: int) -> None:
    config = Outer(width=width, name=name, inner=Inner(depth=depth))
    assert parse_config(Outer, config.to_json()) == config
    assert json.loads(config.to_json())["name"] == name


def test_what_is_incidental_does_not_tell_one_run_from_another() -> None:
    config = Outer(width=1)
    assert config.identity() == {"width": 1, "name": "x", "inner": {"depth": 1}}
    assert config.derive(inner={"patience": 9}).identity() == config.identity()
    assert config.derive(inner={"depth": 9}).identity() != config.identity()

    training = PretrainConfig()
    same = apply_settings(
        training,
        {"loader.workers": "0", "loader.cache": "9", "log_every": "7", "cuda_graph": "false"},
    )
    assert same != training
    assert same.identity() == training.identity()
    assert training.derive(lr=0.1).identity() != training.identity()


def test_no_number_without_a_value_is_accepted() -> None:
    for value in ("NaN", "Infinity"):
        with pytest.raises(ConfigError):
            parse_config(PretrainConfig, f'{{"lr": {value}}}')
