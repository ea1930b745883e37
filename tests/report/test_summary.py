import json
import math
import re
import statistics
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from components.core.manifest import Lineage
from components.core.metrics import Metrics
from components.report import (
    Column,
    Figure,
    Metric,
    Published,
    ReportConfig,
    Row,
    Table,
    Trend,
    TrendPoint,
)
from components.report.measured import Measured
from components.report.render import render_html, render_markdown
from components.report.results import CellResult, CurveResult, Report, TableResult
from components.report.summary import ONE_TRIAL, summarise
from components.report.text import summary_table_text

Make = Callable[..., Measured]
ACCURACIES = st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=8)
PLAIN = Table(
    key="t",
    title="T",
    section="Table 1",
    source="appendix",
    rows=(Row(key="a", name="A"),),
    columns=(Column(key="c", name="C"),),
    metrics=(Metric(key="top1", name="top-1"),),
    published=(Published(row="a", column="c", values=(60.6,), spread=(0.2,)),),
    trials=5,
    command="moco run t",
)


def _cell(table: TableResult, row: str, column: int = 0) -> CellResult:
    return next(one for one in table.rows if one.key == row).cells[column]


@given(ACCURACIES)
def test_mean_and_deviation_are_those_of_the_statistics_module(samples: list[float]) -> None:
    origin = Lineage(origin="file", name="metrics")
    measured = {
        PLAIN.cell("a", "c", number): Measured(Metrics(values={"top1": sample}), origin)
        for number, sample in enumerate(samples)
    }

    value = _cell(summarise(ReportConfig(tables=(PLAIN,)), measured).tables[0], "a").values[0]

    assert value.measured == pytest.approx(statistics.mean(samples))
    assert value.trials == len(samples)
    if len(samples) == 1:
        assert value.deviation is None
    else:
        assert value.deviation == pytest.approx(statistics.stdev(samples), abs=1e-9)
    assert value.difference == pytest.approx(statistics.mean(samples) - 60.6, abs=1e-6)
    assert value.published_spread == 0.2


def test_an_empty_cell_has_the_command_that_fills_it(inaturalist: Table) -> None:
    cell = _cell(summarise(ReportConfig(tables=(inaturalist,)), {}).tables[0], "moco_in1m")

    assert cell.state == "empty"
    assert cell.command == "moco run inaturalist --rows moco_in1m --trials 3"
    assert cell.values[0].measured is None
    assert cell.values[0].published == 65.6


def test_a_partial_cell_says_how_far_it_is_and_how_to_go_on(
    inaturalist: Table, measured: Make
) -> None:
    found = {inaturalist.cell("random", "r50", 1): measured(top1=61.0)}
    table = summarise(ReportConfig(tables=(inaturalist,)), found).tables[0]
    cell = _cell(table, "random")

    assert (cell.state, len(cell.trials), cell.wanted) == ("partial", 1, 3)
    assert cell.command is not None
    assert (table.done, table.wanted) == (1, 9)


def test_trials_beyond_the_wanted_number_count_too(inaturalist: Table, measured: Make) -> None:
    found = {f"inaturalist__random__r50__{n}": measured(top1=60.0 + n) for n in range(12)}
    table = summarise(ReportConfig(tables=(inaturalist,)), found).tables[0]
    cell = _cell(table, "random")

    assert [trial.number for trial in cell.trials] == list(range(12))
    assert cell.values[0].measured == 65.5
    assert (cell.state, cell.command, table.done) == ("measured", None, 3)


def test_a_row_that_cannot_be_had_says_why_beside_its_published_value(inaturalist: Table) -> None:
    table = summarise(ReportConfig(tables=(inaturalist,)), {}).tables[0]
    cell = _cell(table, "moco_ig1b")

    assert table.rows[-1].unobtainable == "the IG-1B images are not public"
    assert (cell.state, cell.command) == ("unobtainable", None)
    assert cell.values[0].published == 65.8


def test_a_row_that_someone_measured_after_all_is_a_row_like_the_others(
    lvis: Table, measured: Make
) -> None:
    found = {lvis.cell("moco_ig1b", "1x", 0): measured(ap=24.2, ap50=37.0, ap75=25.8)}
    table = summarise(ReportConfig(tables=(lvis,)), found).tables[0]

    assert table.rows[-1].unobtainable is None
    assert _cell(table, "moco_ig1b", 0).state == "partial"
    assert _cell(table, "moco_ig1b", 1).state == "empty"
    assert _cell(table, "moco_ig1b", 1).command == lvis.fill("moco_ig1b", "2x")


def test_gaps_refer_to_the_supervised_row_of_the_same_column(lvis: Table, measured: Make) -> None:
    found = {
        lvis.cell("supervised_tuned", "2x", 0): measured(ap=23.0, ap50=36.0, ap75=24.0),
        lvis.cell("moco_in1m", "2x", 0): measured(ap=24.1, ap50=35.5, ap75=24.0),
    }
    table = summarise(ReportConfig(tables=(lvis,)), found).tables[0]

    values = _cell(table, "moco_in1m", 1).values
    assert [value.published_gap for value in values] == [0.9, 1.4, 1.1]
    assert [value.measured_gap for value in values] == [1.1, -0.5, 0.0]
    assert _cell(table, "moco_in1m", 0).values[0].measured_gap is None
    assert _cell(table, "supervised_tuned", 1).values[0].published_gap is None


def test_a_figure_that_an_artifact_lacks_is_noted_and_never_made_up(
    linear: Table, measured: Make
) -> None:
    found = {
        linear.cell("moco_in1m", "r50", 0): measured(top1=60.0, acc5=80.0),
        linear.cell("moco_in1m", "r50", 1): measured(top1=math.nan, top5=81.0),
    }
    cell = _cell(summarise(ReportConfig(tables=(linear,)), found).tables[0], "moco_in1m")

    assert [(value.measured, value.trials) for value in cell.values] == [(60.0, 1), (81.0, 1)]
    assert cell.notes == (
        "trial 0 has no value 'top5'; it has acc5, top1",
        "trial 1 measured nan for top1: not counted",
    )


def test_measurements_that_nothing_asks_for_are_kept(inaturalist: Table, measured: Make) -> None:
    found = {
        "voc__random__c4__0": measured(ap=33.8),
        "inaturalist__random__r50__x": measured(top1=1.0),
        "inaturalist__randoms__r50__0": measured(top1=2.0),
    }
    report = summarise(ReportConfig(tables=(inaturalist,)), found)

    assert [one.key for one in report.others] == sorted(found)
    assert report.tables[0].done == 0


def test_the_miniature_has_no_differences_but_the_order_of_the_rows(
    inaturalist: Table, measured: Make
) -> None:
    found = {
        f"inaturalist__{row}__r50__0": measured(top1=value)
        for row, value in {"random": 80.0, "supervised": 95.0, "moco_in1m": 95.04}.items()
    }
    table = summarise(ReportConfig(scale="digits", tables=(inaturalist,)), found).tables[0]

    assert all(cell.values[0].difference is None for row in table.rows for cell in row.cells)
    assert _cell(table, "random").values[0].measured_gap == -15.0
    (order,) = table.orders
    assert order.published == "random init. < MoCo IN-1M < super. IN-1M"
    assert order.measured == "random init. < super. IN-1M = MoCo IN-1M"
    assert order.agrees is False


def test_rows_without_a_published_number_stand_in_the_measured_order_only(
    linear: Table, measured: Make
) -> None:
    found = {
        f"linear__{row}__r50__0": measured(top1=value, top5=99.0)
        for row, value in {"random": 40.0, "memory_bank": 50.0, "moco_in1m": 60.0}.items()
    }
    (order,) = summarise(ReportConfig(scale="digits", tables=(linear,)), found).tables[0].orders

    assert order.measured == "random init. < memory bank < MoCo IN-1M"
    assert order.published == "memory bank < MoCo IN-1M"
    assert order.agrees is True


def test_a_number_leads_through_its_artifact_down_to_the_data(
    inaturalist: Table, measured: Make
) -> None:
    found = {f"inaturalist__random__r50__{n}": measured(top1=61.0) for n in range(2)}
    report = summarise(ReportConfig(tables=(inaturalist,)), found)

    trial = _cell(report.tables[0], "random").trials[1]
    names = []
    key = trial.artifact
    while True:
        artifact = report.artifacts[key]
        names.append(artifact.name)
        if not artifact.inputs:
            break
        key = next(iter(artifact.inputs.values()))
    assert names == [
        "classification.inaturalist.metrics",
        "convert.backbone",
        "pretrain.weights",
        "imagenet",
    ]
    assert report.artifacts[trial.artifact].config == {"base_lr": 0.025, "epochs": 100, "seed": 1}
    assert len(report.artifacts) == 5, "what two trials share is kept once"


def test_curves_that_are_missing_say_why_and_the_figure_how_to_measure_them(
    figure_a1: Figure, measured: Make
) -> None:
    points = [(1.0, 10.0), (2.0, math.nan), (3.0, 30.0), (4.0, 20.0)]
    found = {"shuffling_bn__with": measured({"knn": points})}
    figure = summarise(ReportConfig(figures=(figure_a1,)), found).figures[0]

    assert [curve.missing for curve in figure.curves] == [
        "shuffling_bn__with has no curve 'pretext'; it has knn",
        None,
        "not measured",
        "not measured",
    ]
    assert figure.drawn[0].points == ((1.0, 10.0), (3.0, 30.0), (4.0, 20.0))
    assert (figure.drawn[0].end, figure.drawn[0].best) == ((4.0, 20.0), (3.0, 30.0))
    assert figure.command == "moco run shuffling_bn"


def test_a_trend_is_the_means_of_its_cells_beside_what_is_published(
    inaturalist: Table, measured: Make
) -> None:
    def point(x: float, row: str, printed: float | None) -> TrendPoint:
        cells = tuple(inaturalist.cells(row, "r50"))
        return TrendPoint(x=x, cells=cells, published=printed)

    settings = ((256, "random", 61.8), (512, "supervised", None), (1024, "moco_in1m", 65.6))
    points = tuple(point(*setting) for setting in settings)
    figure = Figure(
        key="figure",
        title="Over K",
        section="Figure 3",
        x_name="K",
        x_scale="log",
        y_name="top-1",
        trends=(Trend(name="MoCo", metric="top1", points=points),),
        command="moco run queue",
    )
    found = {
        inaturalist.cell("random", "r50", 0): measured(top1=60.0),
        inaturalist.cell("random", "r50", 1): measured(top1=62.0),
        inaturalist.cell("moco_in1m", "r50", 0): measured(top1=66.0),
    }

    def curves(scale: str, found: Mapping[str, Measured]) -> list[CurveResult]:
        report = summarise(ReportConfig(scale=scale, figures=(figure,)), found)
        return list(report.figures[0].curves)

    measured_trend, published_trend = curves("full", found)
    assert measured_trend.points == ((256.0, 61.0), (1024.0, 66.0))
    assert published_trend.points == ((256.0, 61.8), (1024.0, 65.6))
    assert (published_trend.name, published_trend.style) == ("MoCo, published", "dashed")
    (alone,) = curves("digits", found)
    assert alone.points == measured_trend.points
    (nothing,) = curves("digits", {})
    assert nothing.missing == "not measured"


def test_the_order_of_the_inputs_makes_no_difference(
    inaturalist: Table, figure_a1: Figure, measured: Make
) -> None:
    found = {f"inaturalist__random__r50__{n}": measured(top1=61.0 + n) for n in range(3)}
    found["shuffling_bn__with"] = measured({"knn": [(1.0, 10.0)]})
    config = ReportConfig(tables=(inaturalist,), figures=(figure_a1,))

    backwards = dict(reversed(found.items()))
    assert (
        summarise(config, found).model_dump_json() == summarise(config, backwards).model_dump_json()
    )


def test_report_json_is_strict_json_that_reads_back(inaturalist: Table, measured: Make) -> None:
    found = {
        "inaturalist__random__r50__0": measured(top1=math.inf),
        "voc__random__c4__0": measured(ap=math.nan, ap50=60.0),
    }
    report = summarise(ReportConfig(tables=(inaturalist,)), found)

    text = report.model_dump_json(indent=1)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(text, parse_constant=refuse)
    assert Report.model_validate_json(text) == report
    assert report.others[0].values == {"ap50": 60.0}


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=6).filter(
        lambda pairs: len({round(a - b, 3) for a, b in pairs}) > 1
    )
)
def test_a_difference_has_the_interval_of_paired_trials(pairs: list[tuple[float, float]]) -> None:
    """Scipy's test of pairs says the same."""
    table = Table(
        key="t",
        title="t",
        section="s",
        source="s",
        rows=(Row(key="supervised", name="super."), Row(key="mine", name="mine")),
        columns=(Column(key="c", name="c"),),
        metrics=(Metric(key="top1", name="top-1"),),
        trials=len(pairs),
        command="moco",
    )
    lineage = Lineage(origin="file", name="x")
    found = {
        table.cell(row, "c", trial): Measured(Metrics(values={"top1": value}), lineage)
        for trial, (mine, supervised) in enumerate(pairs)
        for row, value in (("mine", mine), ("supervised", supervised))
    }

    (comparison,) = summarise(ReportConfig(tables=(table,)), found).tables[0].comparisons

    mine, supervised = zip(*pairs, strict=True)
    low, high = stats.ttest_rel(mine, supervised).confidence_interval(0.95)
    assert comparison.difference - comparison.interval == pytest.approx(low, abs=1e-5)
    assert comparison.difference + comparison.interval == pytest.approx(high, abs=1e-5)


@pytest.mark.parametrize(
    ("mine", "supervised", "words"),
    [
        (
            (66.0, 66.2, 66.1),
            (65.0, 65.1, 65.2),
            "MoCo IN-1M is better than super. IN-1M by 1.0 ± 0.2 "
            "(top-1 accuracy (%), 95 %, 3 trials); published −0.5",
        ),
        (
            (65.0, 65.1, 65.2),
            (66.0, 66.2, 66.1),
            "MoCo IN-1M is worse than super. IN-1M by 1.0 ± 0.2 "
            "(top-1 accuracy (%), 95 %, 3 trials), as published (−0.5)",
        ),
        (
            (65.0, 66.0),
            (65.5, 65.3),
            "MoCo IN-1M and super. IN-1M cannot be told apart: +0.1 ± 7.6 "
            "(top-1 accuracy (%), 95 %, 2 trials); published −0.5",
        ),
    ],
)
def test_the_verdict_on_a_row_is_a_sentence(
    inaturalist: Table,
    measured: Make,
    mine: tuple[float, ...],
    supervised: tuple[float, ...],
    words: str,
) -> None:
    found = {
        inaturalist.cell(row, "r50", trial): measured(top1=value)
        for row, values in (("moco_in1m", mine), ("supervised", supervised))
        for trial, value in enumerate(values)
    }
    found[inaturalist.cell("random", "r50", 7)] = measured(top1=61.0)  # no trial in common

    report = summarise(ReportConfig(tables=(inaturalist,)), found)

    assert [comparison.words for comparison in report.tables[0].comparisons] == [words]
    assert f"{words}\n" in summary_table_text(report, width=200)
    one = {inaturalist.cell(row, "r50", 0): measured(top1=1.0) for row in ("random", "supervised")}
    assert not summarise(ReportConfig(tables=(inaturalist,)), one).tables[0].comparisons


@pytest.fixture
def own() -> Table:
    """Return a table of one's own: two encoders, and a row that nobody asked for."""
    return Table(
        key="birds",
        title="Transfer to birds",
        section="data of your own",
        source="none",
        rows=(
            Row(key="random", name="random init.", on_request=True),
            Row(key="mine", name="mine"),
            Row(key="theirs", name="theirs"),
        ),
        columns=(Column(key="linear", name="linear"),),
        metrics=(Metric(key="top1", name="top-1"),),
        trials=2,
        compared="pairs",
        command="moco run transfer --rows {row}",
    )


@pytest.mark.parametrize(
    ("mine", "theirs", "words"),
    [
        (
            (70.0, 71.0),
            (75.0, 76.2),
            "theirs is better than mine by 5.1 ± 1.3 (top-1, 95 %, 2 trials)",
        ),
        ((70.0, 71.0), (68.0, 72.5), "mine and theirs cannot be told apart: +0.2 ± 22.2 "),
        (
            (70.0, 70.0),
            (68.0, 68.0),
            "mine is better than theirs by 2.0 (top-1, the same in 2 trials, which draw nothing)",
        ),
    ],
)
def test_of_ones_own_rows_each_pair_is_compared_the_better_one_first(
    own: Table, measured: Make, mine: tuple[float, ...], theirs: tuple[float, ...], words: str
) -> None:
    found = {
        own.cell(row, "linear", trial): measured(top1=value)
        for row, values in (("mine", mine), ("theirs", theirs))
        for trial, value in enumerate(values)
    }
    table = summarise(ReportConfig(tables=(own,)), found).tables[0]
    (comparison,) = table.comparisons
    assert comparison.words.startswith(words)
    assert [row.key for row in table.rows] == ["mine", "theirs"]
    assert ONE_TRIAL not in table.notes


def test_one_trial_of_ones_own_rows_tells_nothing_and_says_so(own: Table, measured: Make) -> None:
    found = {own.cell(row, "linear", 0): measured(top1=9.0) for row in ("mine", "random")}
    report = summarise(ReportConfig(tables=(own,)), found)
    assert report.tables[0].comparisons == ()
    assert report.tables[0].notes == (ONE_TRIAL,)
    assert [row.key for row in report.tables[0].rows] == ["random", "mine", "theirs"]


def test_a_table_without_published_numbers_has_no_columns_for_them(
    own: Table, inaturalist: Table, measured: Make
) -> None:
    found = {own.cell("mine", "linear", trial): measured(top1=50.0) for trial in (0, 1)}
    report = summarise(ReportConfig(tables=(own,)), found)
    for text in (
        summary_table_text(report),
        render_html(report, {}),
        render_markdown(report),
    ):
        assert "50.0 ± 0.0" in " ".join(re.sub(r"<[^>]+>", " ", text).split())
        assert not re.search(r"^.*(measured.*difference|published\W+measured).*$", text, re.M)
    both = summarise(ReportConfig(tables=(own, inaturalist)), found)
    assert "difference" in summary_table_text(both)
