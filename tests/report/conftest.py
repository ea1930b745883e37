"""Tables of the paper, and metrics artifacts made by the real machinery, to report on."""

import hashlib
import io
import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image
from pydantic import JsonValue
from sklearn.datasets import load_sample_image

from components.core.manifest import (
    Code,
    FileEntry,
    Lineage,
    Manifest,
    hash_folder,
    write_manifest,
)
from components.core.metrics import Metrics, write_metrics
from components.report import (
    STAGE,
    Column,
    Curve,
    Figure,
    Metric,
    Published,
    ReportConfig,
    Row,
    Table,
)
from components.report.measured import Measured, PictureFile

ROWS = (
    Row(key="random", name="random init."),
    Row(key="supervised", name="super. IN-1M"),
    Row(key="moco_in1m", name="MoCo IN-1M"),
    Row(key="moco_ig1b", name="MoCo IG-1B", unobtainable="the IG-1B images are not public"),
)
CODE = Code(version="0.1.0", commit="0" * 40, digest="c0de" * 16)

Make = Callable[..., Path]
Points = list[tuple[float, float]]


def _published(
    column: str, values: Mapping[str, tuple[float, ...]], source: str | None = None
) -> tuple[Published, ...]:
    return tuple(
        Published(row=row, column=column, values=numbers, source=source)
        for row, numbers in values.items()
    )


@pytest.fixture
def inaturalist() -> Table:
    """Return the table of Appendix A.6."""
    return Table(
        key="inaturalist",
        title="iNaturalist 2018, end-to-end fine-tuning",
        section="Appendix A.6",
        source="appendix",
        rows=ROWS,
        columns=(Column(key="r50", name="R50"),),
        metrics=(Metric(key="top1", name="top-1 accuracy (%)"),),
        published=_published(
            "r50",
            {
                "random": (61.8,),
                "supervised": (66.1,),
                "moco_in1m": (65.6,),
                "moco_ig1b": (65.8,),
            },
        ),
        trials=3,
        command="moco run inaturalist --rows {row} --trials {trials}",
    )


@pytest.fixture
def linear() -> Table:
    """Return the rows of Table 1 that concern ResNet-50."""
    return Table(
        key="linear",
        title="Linear classification on frozen features",
        section="Table 1",
        source="main paper, transcribed",
        rows=(
            Row(key="random", name="random init."),
            Row(key="memory_bank", name="memory bank"),
            Row(key="moco_in1m", name="MoCo IN-1M"),
        ),
        columns=(Column(key="r50", name="R50"),),
        metrics=(Metric(key="top1", name="top-1 (%)"), Metric(key="top5", name="top-5 (%)")),
        published=(
            Published(row="memory_bank", column="r50", values=(58.0, None)),
            Published(
                row="moco_in1m",
                column="r50",
                values=(60.8, None),
                spread=(0.2, None),
                source="released code, mean of 5 trials; the paper prints 60.6",
            ),
        ),
        trials=5,
        command="moco run linear --rows {row} --trials {trials}",
    )


@pytest.fixture
def lvis() -> Table:
    """Return the table of Appendix A.4."""
    return Table(
        key="lvis",
        title="LVIS v0.5 instance segmentation",
        section="Appendix A.4",
        source="appendix",
        rows=(
            Row(key="supervised_frozen", name="super. IN-1M, BN frozen"),
            Row(key="supervised_tuned", name="super. IN-1M, BN tuned"),
            Row(key="moco_in1m", name="MoCo IN-1M", counterpart="supervised_tuned"),
            Row(
                key="moco_ig1b",
                name="MoCo IG-1B",
                counterpart="supervised_tuned",
                unobtainable="the IG-1B images are not public",
            ),
        ),
        columns=(Column(key="1x", name="1× schedule"), Column(key="2x", name="2× schedule")),
        metrics=(
            Metric(key="ap", name="AP"),
            Metric(key="ap50", name="AP50"),
            Metric(key="ap75", name="AP75"),
        ),
        published=(
            *_published(
                "1x",
                {
                    "supervised_frozen": (24.1, 37.3, 25.4),
                    "supervised_tuned": (23.5, 36.6, 24.8),
                    "moco_in1m": (23.2, 36.0, 24.7),
                    "moco_ig1b": (24.3, 37.4, 25.9),
                },
            ),
            *_published(
                "2x",
                {
                    "supervised_frozen": (24.4, 37.8, 25.8),
                    "supervised_tuned": (23.2, 36.0, 24.4),
                    "moco_in1m": (24.1, 37.4, 25.5),
                    "moco_ig1b": (24.9, 38.2, 26.4),
                },
            ),
        ),
        trials=5,
        command="moco run lvis --rows {row} --set lvis.schedule={column} --trials {trials}",
    )


@pytest.fixture
def figure_a1() -> Figure:
    """Return Figure A.1."""
    curves = [
        Curve(cell=f"shuffling_bn__{key}", series=series, name=f"{kind}, {name}", **look)
        for key, name, colour in (("with", "with shuffling BN", 0), ("without", "without", 1))
        for series, kind, style in (("pretext", "pretext", "dashed"), ("knn", "kNN", "solid"))
        for look in ({"style": style, "colour": colour},)
    ]
    return Figure(
        key="shuffling_bn",
        title="Pretext and kNN accuracy with and without shuffling BN",
        section="Figure A.1",
        x_name="epoch",
        y_name="accuracy (%)",
        curves=tuple(curves),
        published=("without shuffling BN, pretext accuracy goes over 99.9 % and kNN drops",),
        command="moco run shuffling_bn",
    )


@pytest.fixture
def ablation_metrics() -> dict[str, Metrics]:
    """Return curves of the shape that Figure A.1 has."""

    def rising(end: float, pace: float) -> list[tuple[float, float]]:
        return [(float(x), end * (1 - math.exp(-x / pace))) for x in range(1, 81)]

    return {
        "shuffling_bn__with": Metrics(
            values={"knn": 50.2}, curves={"pretext": rising(72, 14), "knn": rising(50.4, 22)}
        ),
        "shuffling_bn__without": Metrics(
            values={"knn": 36.8}, curves={"pretext": rising(99.95, 7), "knn": rising(37, 17)}
        ),
    }


@pytest.fixture
def lineage() -> Callable[..., Lineage]:
    """Return what makes the lineage of metrics: classification, conversion, pre-training, data."""

    def make(seed: int = 0, encoder_facts: Mapping[str, JsonValue] | None = None) -> Lineage:
        images = Lineage(origin="mount", name="imagenet")
        encoder = Lineage(
            origin="stage",
            name="pretrain.weights",
            digest="aa" * 32,
            config={"epochs": 200, "queue": 65536, "momentum": 0.999, "temperature": 0.07},
            code=CODE,
            image="ghcr.example/moco/torch@sha256:" + "11" * 32,
            file_count=2,
            size=112_000_000,
            files={
                "model.json": FileEntry(size=300, sha256="ab" * 32),
                "model.safetensors": FileEntry(size=111_999_700, sha256="ba" * 32),
            },
            inputs={"images": images},
        )
        backbone = Lineage(
            origin="stage",
            name="convert.backbone",
            digest="bb" * 32,
            config={"source": "moco"},
            code=CODE,
            image="ghcr.example/moco/torch@sha256:" + "11" * 32,
            facts={"max_feature_difference": 3e-07, **(encoder_facts or {})},
            file_count=1,
            size=94_000_000,
            files={"backbone.safetensors": FileEntry(size=94_000_000, sha256="bc" * 32)},
            inputs={"encoder": encoder},
        )
        return Lineage(
            origin="stage",
            name="classification.inaturalist.metrics",
            digest=f"{seed:02x}" * 32,
            config={"base_lr": 0.025, "epochs": 100, "seed": seed},
            code=CODE,
            image="ghcr.example/moco/torch@sha256:" + "11" * 32,
            file_count=1,
            size=1200,
            files={"metrics.json": FileEntry(size=1200, sha256=f"{seed:02x}" * 32)},
            inputs={"backbone": backbone, "images": images},
        )

    return make


@pytest.fixture
def artifact(tmp_path: Path, lineage: Callable[..., Lineage]) -> Make:
    """Return what writes a metrics artifact, manifest and all, as a stage leaves it."""

    def make(
        key: str, metrics: Metrics, seed: int = 0, files: Mapping[str, bytes] | None = None
    ) -> Path:
        folder = tmp_path / "artifacts" / key
        folder.mkdir(parents=True)
        write_metrics(folder, metrics)
        for name, content in (files or {}).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        origin = lineage(seed)
        manifest = Manifest(
            stage="classification.inaturalist",
            port="metrics",
            kind="Metrics",
            config=origin.config or {},
            code=CODE,
            image=origin.image or "",
            files=hash_folder(folder),
            inputs=origin.inputs,
        )
        write_manifest(folder, manifest)
        return folder

    return make


@pytest.fixture
def report_on(tmp_path: Path, artifact: Make) -> Make:
    """Return what runs the stage's real command line; it returns the report's folder."""

    def make(config: ReportConfig, measured: Mapping[str, Metrics], name: str = "report") -> Path:
        folders = {}
        for key, metrics in measured.items():
            folder = tmp_path / "artifacts" / key
            folders[key] = str(folder if folder.exists() else artifact(key, metrics))
        outputs = {
            "report": str(tmp_path / name),
            "html": str(tmp_path / "views" / f"{name}.html"),
        }
        argv = STAGE.argv(config, {"metrics": folders}, outputs)
        done = subprocess.run(
            [sys.executable, *argv], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return tmp_path / name

    return make


@pytest.fixture
def measured(lineage: Callable[..., Lineage]) -> Callable[..., Measured]:
    """Return what makes a measurement with a lineage of its own from values by name."""
    seeds = itertools.count()

    def make(
        curves: Mapping[str, Points] | None = None,
        details: Mapping[str, JsonValue] | None = None,
        classes: Mapping[str, Mapping[str, float | None]] | None = None,
        pictures: tuple[PictureFile, ...] = (),
        encoder: Mapping[str, JsonValue] | None = None,
        **values: float,
    ) -> Measured:
        metrics = Metrics(values=values, curves=dict(curves or {}), details=dict(details or {}))
        return Measured(metrics, lineage(next(seeds), encoder), classes or {}, pictures)

    return make


@pytest.fixture(scope="session")
def photograph() -> Callable[..., bytes]:
    """Return what encodes a scene, as PNG or JPEG of a width (pixels) and about 0.75 times that."""
    scene = Image.fromarray(load_sample_image("flower.jpg"))

    def make(kind: str = "PNG", width: int = 48) -> bytes:
        buffer = io.BytesIO()
        scene.resize((width, width * 3 // 4)).save(buffer, kind, quality=95)
        return buffer.getvalue()

    return make


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., PictureFile]:
    """Return what keeps a picture of 48 by 36 pixels as a metrics artifact has it."""
    paths = (tmp_path / f"{number}" for number in itertools.count())

    def make(content: bytes, name: str = "sheet") -> PictureFile:
        path = next(paths) / f"{name}.png"
        path.parent.mkdir()
        path.write_bytes(content)
        entry = FileEntry(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        return PictureFile(name, path, "png", 48, 36, entry)

    return make
