"""Appendix A.6: fine-tuning on iNaturalist 2018."""

from components.classification.inaturalist import STAGE as INATURALIST
from components.classification.inaturalist import fine_tuning, from_scratch
from components.report import Column, Metric, Published, Table
from pipelines.recipes._shared import (
    INITIALISATIONS,
    one_table,
    training,
)

TABLE = Table(
    key="inaturalist",
    title="iNaturalist 2018 fine-tuning",
    section="Appendix A.6",
    source="appendix",
    rows=INITIALISATIONS,
    columns=(Column(key="inaturalist", name="iNaturalist 2018"),),
    metrics=(Metric(key="top1", name="top-1"),),
    published=(
        Published(row="random", column="inaturalist", values=(61.8,)),
        Published(row="supervised", column="inaturalist", values=(66.1,)),
        Published(row="moco_in1m", column="inaturalist", values=(65.6,)),
        Published(row="moco_ig1b", column="inaturalist", values=(65.8,)),
    ),
    command="moco run inaturalist --rows {row} --trials {trials}",
)

CONFIGS = {"random": from_scratch}

measure = training(
    TABLE,
    INATURALIST,
    data="inaturalist",
    config=lambda cell: CONFIGS.get(cell.row, fine_tuning)().derive(seed=cell.trial),
)

RECIPE = one_table("inaturalist", "Appendix A.6: iNaturalist 2018 fine-tuning", measure)
