"""A recipe of toys: two rows of one table, each a model and a measurement of it."""

from components.report import STAGE as REPORT
from components.report import Column, Metric, Published, ReportConfig, Row, Table
from components.toy import STAGE as TOY  # type: ignore[import-not-found]
from components.toy import ToyConfig
from pipelines.plan import Mounted, Plan, Source
from pipelines.recipes import Options, Recipe

ROWS = {"random": 1.0, "moco_in1m": 2.0}

TABLE = Table(
    key="toys",
    title="Toys",
    section="Appendix Z",
    source="nowhere",
    rows=(
        *(Row(key=key, name=key) for key in ROWS),
        Row(key="moco_ig1b", name="MoCo, IG-1B", unobtainable="IG-1B is not public"),
    ),
    columns=(Column(key="short", name="short"),),
    metrics=(Metric(key="value", name="value"),),
    published=(Published(row="random", column="short", values=(1.5,)),),
    trials=2,
    command="moco run toys --rows {row} --trials {trials}",
)


def plan(options: Options) -> Plan:
    """Measure every row."""
    built = Plan("toys", options.scale)
    cells: dict[str, Source] = {}
    for row in options.rows or ROWS:
        model: Source
        if row in options.existing:
            model = options.existing[row]
        else:
            config = options.config("toy", f"make_{row}", ToyConfig(value=ROWS[row]))
            inputs = {"data": Mounted("pictures")} if options.scale == "full" else {}
            model = built.add(TOY, f"make_{row}", config, **inputs).output("model")
        for trial in range(options.trials or 1):
            name = f"measure_{row}_{trial}"
            config = options.config("toy", name, ToyConfig(value=10 * ROWS[row], seed=trial))
            cells[TABLE.cell(row, "short", trial)] = built.add(
                TOY, name, config, model=model
            ).output("metrics")
    report = ReportConfig(scale=options.scale, tables=(TABLE,))
    built.add(REPORT, "report", report, metrics=cells)
    return built


RECIPE = Recipe("toys", "Toys, for the tests.", plan)
