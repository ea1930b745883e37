"""Appendix A.6: fine-tuning on iNaturalist 2018."""

from components.classification.inaturalist import STAGE as INATURALIST
from components.classification.inaturalist import fine_tuning, from_scratch
from components.report import Column, Metric, Published, Table
from pipelines.plan import Plan, Source
from pipelines.recipes import Options
from pipelines.recipes._shared import (
    INITIALISATIONS,
    chosen,
    one_table,
    train_cells,
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


def measure(plan: Plan, options: Options) -> tuple[Table, dict[str, Source]]:
    """Add a fine-tuning for every chosen cell; return the table and the metrics."""
    table = chosen(TABLE, options)
    recipes = {"random": from_scratch}
    return table, train_cells(
        plan,
        options,
        table,
        INATURALIST,
        data="inaturalist",
        config=lambda cell: recipes.get(cell.row, fine_tuning)().derive(seed=cell.trial),
    )


RECIPE = one_table("inaturalist", "Appendix A.6: iNaturalist 2018 fine-tuning", measure)
