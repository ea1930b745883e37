import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import components
from components.core.config import Config
from components.core.errors import ConfigError, ExitCode, UsageError
from components.core.stage import Mount, Port, Source, Stage, load_stage, stage_names


class ThingConfig(Config):
    """Thing."""

    text: str = ""


THING = Stage(
    name="some.thing",
    summary="Do the thing.",
    config=ThingConfig,
    inputs={
        "data": Port("Dataset", "images"),
        "backbone": Port("Model", "weights", optional=True, foreign=True),
        "metrics": Port("Metrics", "trials", many=True),
    },
    outputs={"weights": Port("Model", "weights"), "page": Port("HTML", "a page")},
    run="components.some.thing:run",
    resumable=True,
)

paths = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
keys = st.from_regex("[a-z][a-z0-9_]{0,8}", fullmatch=True)


@given(
    text=paths,
    data=paths | paths.map(Mount),
    backbone=st.none() | paths,
    metrics=st.dictionaries(keys, paths, min_size=1),
    state=st.none() | paths,
)
def test_the_command_line_is_read_back_as_it_was_built(
    text: str,
    data: Source,
    backbone: str | None,
    metrics: dict[str, Source],
    state: str | None,
) -> None:
    config = ThingConfig(text=text)
    inputs: dict[str, Source | Mapping[str, Source]] = {"data": data, "metrics": metrics}
    if backbone is not None:
        inputs["backbone"] = backbone
    outputs = {"weights": "a", "page": "b"}
    argv = THING.argv(config, inputs, outputs, state)
    assert argv[:2] == ["-m", "components.some.thing"]
    invocation = THING.parse(argv[2:])
    assert invocation.config == config
    assert invocation.inputs == inputs
    assert invocation.outputs == outputs
    assert invocation.state == state


def test_every_fault_of_a_command_line_is_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        THING.parse(
            ["--output.weigths", "x", "--mount.backbone=y", "--input.metrics.A!", "z", "-v"]
        )
    message = str(caught.value)
    assert "7 fault(s)" in message
    assert "--output.weigths: no such option; did you mean '--output.weights'?" in message
    assert "--mount.backbone: only a data set can be mounted; use --input.backbone" in message
    assert "the key 'A!' is not a lower-case identifier" in message
    assert "-v needs a value" in message
    assert "--input.data is missing (images)" in message
    assert "--output.weights is missing (weights)" in message
    assert "--output.page is missing (a page)" in message


def test_a_config_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="cannot read the config file /nowhere"):
        THING.parse(
            ["--config", "@/nowhere", "--input.data", "d", "--output.weights=w", "--output.page=p"]
        )


def test_the_help_has_every_port_and_field() -> None:
    for name in stage_names():
        stage = load_stage(name)
        text = stage.help()
        for port in (*stage.inputs, *stage.outputs):
            assert f"  {port}" in text
        for field, info in stage.config.model_fields.items():
            assert f"{field} " in text or f"{field}:" in text
            assert info.description, (name, field)


def test_every_stage_that_a_module_declares_is_found_by_name() -> None:
    names = list(stage_names())
    assert {"pretrain", "convert", "digits", "report", "classification.linear"} <= set(names)
    assert sorted(names) == sorted(declared_stages())
    for name in names:
        assert load_stage(name).name == name


def declared_stages() -> Iterator[str]:
    """Read in every source below `components/` whether it holds a `STAGE`."""
    root = Path(components.__path__[0])
    for source in root.rglob("*.py"):
        if any(map(assigns_stage, ast.parse(source.read_bytes()).body)):
            parts = source.relative_to(root).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__")


def assigns_stage(statement: ast.stmt) -> bool:
    match statement:
        case ast.Assign(targets=[ast.Name("STAGE")]) | ast.AnnAssign(target=ast.Name("STAGE")):
            return True
    return False


@pytest.mark.parametrize("name", ["pretrian", "core", "core.config", "Pretrain", "../x", ""])
def test_an_unknown_stage_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no stage is called"):
        load_stage(name)


HEAVY = {"torch", "torchvision", "detectron2", "kfp", "numpy", "minio", "matplotlib"}


@pytest.mark.parametrize("look", ["name", "load_stage(name)"])
def test_neither_names_nor_declarations_import_torch_or_kfp(look: str) -> None:
    program = (
        "import sys\n"
        "from components.core.stage import load_stage, stage_names\n"
        f"assert [{look} for name in stage_names()]\n"
        f"print({HEAVY} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


def test_a_wrong_config_ends_before_torch_is_imported() -> None:
    argv = [sys.executable, "-X", "importtime", "-m", "components.pretrain", "--config"]
    argv += ['{"epoch": 3}', "--mount.data", "d", "--output.encoder", "e", "--output.metrics", "m"]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert result.returncode == ExitCode.BAD_CONFIG
    assert "did you mean 'epochs'?" in result.stderr
    assert "| torch" not in result.stderr
