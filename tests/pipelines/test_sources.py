"""What a plan reads but does not make: found, fetched and verified before anything starts."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import DataError, StoreError, UsageError
from components.core.stage import Stage
from components.core.store import open_store
from pipelines.backends.local.sources import find_sources
from pipelines.plan import Existing, Mounted, Plan
from pipelines.runs.folder import Run
from tests.pipelines.conftest import Execute

pytestmark = pytest.mark.usefixtures("world")


def reading(toy: Stage[Any], model: Existing | None = None, data: str | None = None) -> Plan:
    """A plan of one step that reads what is given."""
    plan = Plan("reading", "digits")
    inputs: dict[str, Any] = {"model": model, "data": Mounted(data) if data else None}
    plan.add(toy, "read", toy.config(), **{k: v for k, v in inputs.items() if v})
    return plan


@pytest.fixture
def made(toy: Stage[Any], run_plan: Execute) -> Run:
    """A run whose step `read` made a model and metrics."""
    return run_plan(reading(toy))[0]


def test_a_mounted_folder_is_known_by_what_it_holds_not_by_place_and_time(
    toy: Stage[Any], tmp_path: Path
) -> None:
    plan = reading(toy, data="pictures")
    pictures = tmp_path / "pictures"
    (pictures / "train" / "n01").mkdir(parents=True)
    (pictures / "train" / "n01" / "1.JPEG").write_text("x")

    def digest(folder: Path = pictures) -> str:
        found = find_sources(plan, {"pictures": str(folder)}, tmp_path / "runs")
        return found.digest(Mounted("pictures"))

    before = digest()
    os.utime(pictures / "train" / "n01", (1, 1))
    assert digest() == before
    assert digest(shutil.copytree(pictures, tmp_path / "copy")) == before
    (pictures / "train" / "n01" / "1.JPEG").write_text("longer")
    assert digest() != before


def test_a_url_given_for_a_file_is_refused_by_name(toy: Stage[Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'https://host/x.pth': nothing is fetched from the web"):
        find_sources(reading(toy, Existing("https://host/x.pth", "Model")), {}, tmp_path)
    with pytest.raises(UsageError, match=r"two slashes, s3://bucket/x"):
        find_sources(reading(toy, data="pictures"), {"pictures": "s3:/bucket/x"}, tmp_path)


def test_every_missing_data_set_and_artifact_is_named_at_once(
    toy: Stage[Any], tmp_path: Path
) -> None:
    plan = reading(toy, Existing("/no/such/model", "Model"), "pictures")
    (tmp_path / "empty").mkdir()

    with pytest.raises(UsageError, match="add --data pictures=FOLDER"):
        find_sources(plan, {}, tmp_path)
    with pytest.raises(DataError) as refused:
        find_sources(plan, {"pictures": str(tmp_path / "empty")}, tmp_path)

    assert "the folder is empty" in str(refused.value)
    assert "/no/such/model: there is no such file" in str(refused.value)


def test_an_artifact_of_another_kind_is_refused(toy: Stage[Any], made: Run, tmp_path: Path) -> None:
    metrics = str(made.artifact("read", "metrics"))

    with pytest.raises(DataError, match=r"is a Metrics made by toy; a Model is needed"):
        find_sources(reading(toy, Existing(metrics, "Model")), {}, tmp_path)


def test_a_foreign_file_is_taken_where_the_port_allows_it(
    toy: Stage[Any], run_plan: Execute, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "moco_v2_800ep.pth.tar"
    checkpoint.write_bytes(b"weights")

    run, code = run_plan(reading(toy, Existing(str(checkpoint), "Model")))

    assert code == 0
    assert run.status("read").state == "finished"
    again, _ = run_plan(reading(toy, Existing(str(checkpoint), "Model")))
    assert again.status("read").state == "reused"
    checkpoint.write_bytes(b"others")
    changed, _ = run_plan(reading(toy, Existing(str(checkpoint), "Model")))
    assert changed.status("read").reason == "input model changed"


def test_an_artifact_in_a_bucket_is_fetched_once_and_verified(
    toy: Stage[Any], made: Run, bucket_url: str, runs: Path
) -> None:
    open_store(bucket_url).put_folder(made.artifact("read", "model"), "models/moco")
    open_store(bucket_url).put(made.artifact("read", "model") / "model.json", "files/one.pth")
    for key in ("models/moco", "files/one.pth"):
        plan = reading(toy, Existing(f"{bucket_url}/{key}", "Model"))

        source = Existing(f"{bucket_url}/{key}", "Model")
        path = find_sources(plan, {}, runs).path(source)
        touched = path.stat().st_ctime_ns

        assert path.is_relative_to(runs / ".fetched")
        assert find_sources(plan, {}, runs).path(source).stat().st_ctime_ns == touched
    assert [folder.name for folder in (runs / ".fetched").glob(".*")] == []


def test_a_bucket_with_nothing_there_and_one_that_is_not_there_are_refused(
    toy: Stage[Any], bucket_url: str, runs: Path
) -> None:
    with pytest.raises(DataError, match="the bucket has nothing there"):
        find_sources(reading(toy, Existing(f"{bucket_url}/nothing", "Model")), {}, runs)
    with pytest.raises(StoreError):
        find_sources(reading(toy, Existing("s3://no-such-bucket/model", "Model")), {}, runs)
