import pytest

from components.core.config import parse_config
from components.core.errors import ConfigError
from components.report import Figure, ReportConfig, Table


def test_the_command_of_a_cell_has_every_placeholder_replaced(lvis: Table) -> None:
    assert lvis.fill("moco_in1m", "2x") == (
        "moco run lvis --rows moco_in1m --set lvis.schedule=2x --trials 5"
    )


def test_a_row_is_compared_with_the_supervised_one_unless_it_says_otherwise(
    inaturalist: Table, lvis: Table
) -> None:
    counterparts = {row.key: inaturalist.counterpart(row) for row in inaturalist.rows}
    assert counterparts == {
        "random": "supervised",
        "supervised": None,
        "moco_in1m": "supervised",
        "moco_ig1b": "supervised",
    }
    assert lvis.counterpart(lvis.rows[2]) == "supervised_tuned"
    assert lvis.counterpart(lvis.rows[0]) is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"published": [{"row": "moco", "column": "r50", "values": [1]}]}, "no such cell"),
        ({"published": [{"row": "random", "column": "r50", "values": [1, 2]}]}, "as many values"),
        ({"rows": [{"key": "a", "name": "A"}] * 2, "published": []}, "two rows are called 'a'"),
        ({"rows": [], "published": []}, "it has no rows"),
        (
            {"rows": [{"key": "a", "name": "A", "counterpart": "b"}], "published": []},
            "the counterpart of a, 'b', is not a row",
        ),
        ({"rows": [{"key": "a; rm -rf", "name": "A"}], "published": []}, "rows.0.key"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(
    inaturalist: Table, change: dict[str, object], fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        parse_config(Table, {**inaturalist.model_dump(mode="json"), **change})


def test_two_tables_or_figures_of_one_name_are_refused(
    inaturalist: Table, figure_a1: Figure
) -> None:
    table, figure = inaturalist.model_dump(mode="json"), figure_a1.model_dump(mode="json")
    for parts in ({"tables": [table, table]}, {"figures": [figure, figure]}):
        with pytest.raises(ConfigError, match=r"two (table|figure)s are called"):
            parse_config(ReportConfig, parts)


def test_a_figure_cannot_name_a_file_elsewhere(figure_a1: Figure) -> None:
    with pytest.raises(ConfigError, match="key"):
        parse_config(Figure, {**figure_a1.model_dump(mode="json"), "key": "../../index"})
