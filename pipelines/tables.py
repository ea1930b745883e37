"""The tables of a plan: its report steps, and the cells that it fills."""

from components.report import STAGE as REPORT
from components.report import ReportConfig
from pipelines.plan import Output, Plan, Step


def report_steps(plan: Plan) -> list[Step]:
    """Return the steps of a plan that make a report."""
    return [step for step in plan if step.stage is REPORT]


def report_config(plan: Plan) -> ReportConfig:
    """Return the tables of a plan's report, or an empty report."""
    configs = [step.config for step in report_steps(plan) if isinstance(step.config, ReportConfig)]
    return configs[-1] if configs else ReportConfig(scale=plan.scale)


def filled_cells(plan: Plan) -> dict[str, Output]:
    """Return the report cells that a plan fills: cell key to metrics."""
    return {
        port.removeprefix("metrics."): source
        for step in report_steps(plan)
        for port, source in step.sources()
        if isinstance(source, Output)
    }
