"""`--data NAME=s3://...`: data sets that stay where they are, in plans, pipelines and runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.errors import ExitCode
from components.core.store import open_store
from components.datasets.imagenet import digits as imagenet
from components.datasets.loading import image_reader
from components.datasets.packing import pack
from components.rendering.config import DigitsConfig
from pipelines.__main__ import main
from pipelines.backends.local.sources import find_sources
from pipelines.cli.options import RecipeOptions, mounted
from pipelines.plan import Existing, Mounted

URL = "s3://data/imagenet"
Capture = pytest.CaptureFixture[str]


def test_all_that_read_it_are_told_where_it_is() -> None:
    given = {"imagenet": URL, "voc": "/data/voc"}
    plan = RecipeOptions().plan("appendix", given)
    sources = [source for step in plan for _, source in step.sources()]
    assert sources.count(Existing(URL, "Dataset")) > 5
    assert Mounted("imagenet") not in sources
    assert Mounted("voc") in sources
    assert mounted(plan, given) == {"voc": "/data/voc"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--data", f"imagnet={URL}"],
            "--data imagnet: the plan reads no such data set; it",
        ),
        (["--scale", "digits", "--data", f"imagenet={URL}"], "--data imagenet: the plan mounts no"),
    ],
)
def test_one_that_nothing_reads_is_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "linear", *arguments]) == ExitCode.USAGE
    assert words in capsys.readouterr().err


def test_pods_read_it_with_the_stores_secret_and_without_a_claim(tmp_path: Path) -> None:
    """It is no artifact for the launcher, which would copy all of it into every pod."""
    path = tmp_path / "transfer.yaml"
    command = ["compile", "transfer", "--row", "mine=s3://models/mine.pth", "--trials", "1"]
    command += ["--column", f"birds=imagenet:{URL}", "--cluster", "allow_tags=true"]
    assert main([*command, "-o", str(path)]) == 0
    spec, platform = yaml.safe_load_all(path.read_text("utf-8"))
    tasks: dict[str, Any] = spec["root"]["dag"]["tasks"]
    importers = [name for name in tasks if "importer" in name]
    assert len(importers) == 1  # of the checkpoint
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name in ("exec-classification-features", "exec-classification-inaturalist"):
        arguments = spec["deploymentSpec"]["executors"][name]["container"]["args"]
        told = arguments[arguments.index("--input.data") + 1]
        assert told.startswith("{{$.inputs.parameters['uri_")
        assert executors[name]["secretAsEnv"]
        assert "pvcMount" not in executors[name]


def test_a_run_here_fetches_the_index_and_reads_the_rest_where_it_is(
    bucket_url: str, tmp_path: Path
) -> None:
    imagenet.write(DigitsConfig(train_scenes=60, val_scenes=30, pixels=48), tmp_path / "data")
    pack("imagenet", tmp_path / "data", tmp_path / "packed", shard=50)
    store = open_store(bucket_url)
    store.put_folder(tmp_path / "packed", "sets/imagenet")
    place = f"{bucket_url}/sets/imagenet"
    plan = RecipeOptions(rows="random").plan("linear", {"imagenet": place})
    sources = find_sources(plan, {}, tmp_path / "runs")
    folder = sources.path(Existing(place, "Dataset"))
    assert sorted(path.name for path in (folder / "train").iterdir()) == [
        *(".stored.json", "index.json", "places.bin")
    ]
    assert len(image_reader("imagenet").read_both(folder)[0]) == 60
    assert find_sources(plan, {}, tmp_path / "runs").path(Existing(place, "Dataset")) == folder

    shard = bytearray(store.read("sets/imagenet/train/train-000000.tar"))
    shard[700] ^= 1
    store.write("sets/imagenet/train/train-000000.tar", bytes(shard))
    assert find_sources(plan, {}, tmp_path / "runs").path(Existing(place, "Dataset")) != folder


def test_to_plan_nothing_is_fetched_but_an_index(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("MOCO_RUNS", str(tmp_path / "runs"))
    imagenet.write(DigitsConfig(train_scenes=60, val_scenes=30, pixels=48), tmp_path / "data")
    open_store(bucket_url).put_folder(tmp_path / "data", "plain")
    command = ["plan", "linear", "--rows", "random", "--trials", "1", "--json", "--data"]
    assert main([*command, f"imagenet={bucket_url}/plain"]) == 0
    steps = {step["name"]: step for step in json.loads(capsys.readouterr().out)["steps"]}
    assert steps["linear_random_0"]["why"] == f"{bucket_url}/plain is fetched when it runs"
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert main([*command, f"imagenet={bucket_url}/nothing"]) == ExitCode.BAD_DATA
    assert f"{bucket_url}/nothing: the bucket has nothing there" in capsys.readouterr().err


def test_fit_counts_what_the_index_says(bucket_url: str, tmp_path: Path) -> None:
    imagenet.write(DigitsConfig(train_scenes=60, val_scenes=30, pixels=48), tmp_path / "data")
    pack("imagenet", tmp_path / "data", tmp_path / "packed", shard=50)
    open_store(bucket_url).put_folder(tmp_path / "packed", "sets/imagenet")
    place = {"imagenet": f"{bucket_url}/sets/imagenet"}
    options = RecipeOptions(
        scale="fit", settings=("pretrain.batch_size=16", "pretrain.sub_batch=4")
    )
    config = options.plan("pretrain", place).step("pretrain_moco_in1m").config
    assert config.model_dump()["epochs"] == 1600
