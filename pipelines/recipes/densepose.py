"""Appendix A.3: dense pose estimation on COCO, also in Table 6."""

from components.detection.densepose import STAGE as DENSEPOSE
from components.detection.densepose import densepose_rcnn
from components.report import Column, Metric, Table
from pipelines.recipes._shared import (
    INITIALISATIONS,
    one_table,
    published,
    training,
)

TABLE = Table(
    key="densepose",
    title="COCO dense pose estimation, DensePose R-CNN R50-FPN",
    section="Appendix A.3, Table 6",
    source="main paper, transcribed",
    rows=INITIALISATIONS,
    columns=(Column(key="s1x", name="s1× schedule, legacy"),),
    metrics=(
        Metric(key="gps_AP", name="AP"),
        Metric(key="gps_AP50", name="AP50"),
        Metric(key="gps_AP75", name="AP75"),
    ),
    published=published(
        "s1x",
        random=(39.4, 78.5, 35.1),
        supervised=(48.3, 85.6, 50.6),
        moco_in1m=(50.1, 86.8, 53.9),
        moco_ig1b=(50.6, 87.0, 54.3),
    ),
    command="moco run densepose --rows {row} --trials {trials}",
    notes=(
        "AP is by geodesic point similarity (GPS), with the model of the paper's time. The newer "
        "head and rate, in detectron2 alone, give higher numbers: "
        "--set detection.densepose.model.surface=deeplab --set detection.densepose.lr=0.01",
    ),
)

measure = training(
    TABLE,
    DENSEPOSE,
    data="coco",
    config=lambda cell: densepose_rcnn().derive(seed=cell.trial),
)

RECIPE = one_table("densepose", "Appendix A.3: COCO dense pose estimation", measure)
