import io
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from PIL import Image

from components.report.figures import PALETTE, draw
from components.report.results import CurveResult, FigureResult

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def figure() -> FigureResult:
    curves = [
        CurveResult(
            name=name, style=style, colour=colour, points=((1.0, 10.0), (2.0, end), (3.0, end))
        )
        for name, style, colour, end in (
            ("pretext $with$ <BN>", "dashed", 0, 70.0),
            ("_kNN with", "solid", 0, 50.0),
            ("pretext without", "dashed", 1, 99.9),
            ("kNN without", "solid", 1, 30.0),
        )
    ]
    return FigureResult(
        key="shuffling_bn",
        title="Shuffling <BN>",
        section="Figure A.1",
        x_name="epoch",
        y_name="accuracy (%)",
        curves=(*curves, CurveResult(name="absent", style="solid", colour=2, missing="no")),
    )


def test_pretext_is_dashed_and_knn_solid_in_the_colour_of_the_setting(
    figure: FigureResult,
) -> None:
    root = ElementTree.fromstring(draw(figure).svg)
    styles = [path.get("style") or "" for path in root.iter(f"{SVG}path")]
    lines = [style for style in styles if "stroke-width: 1.8" in style and "none" in style]

    assert len(lines) == 8, "four curves, and the legend's four samples"
    for colour in PALETTE[:2]:
        own = [style for style in lines if colour in style]
        assert sorted("dasharray" in style for style in own) == [False, False, True, True]


def test_the_picture_has_the_names_as_text_and_a_description(figure: FigureResult) -> None:
    root = ElementTree.fromstring(draw(figure).wide)

    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert {"pretext $with$ <BN>", "_kNN with", "epoch", "accuracy (%)"} <= texts
    assert "absent" not in texts
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert title.text == "Shuffling <BN>"
    assert description is not None
    assert "_kNN with (solid) ends at 50.0 at epoch 3" in (description.text or "")
    assert root.get("role") == "img"
    labels = (root.get("aria-labelledby") or "").split()
    assert labels == [title.get("id"), description.get("id")]


def test_the_inline_picture_takes_its_colours_from_the_page(figure: FigureResult) -> None:
    picture = draw(figure)

    assert "var(--curve-0)" in picture.wide
    assert not any(colour in picture.wide + picture.narrow for colour in PALETTE)
    assert "var(" not in picture.svg


def test_the_same_curves_give_the_same_bytes_whatever_the_users_settings(
    figure: FigureResult,
) -> None:
    first = draw(figure)
    with mpl.rc_context({"lines.linewidth": 9, "axes.facecolor": "red"}):
        assert draw(figure) == first


def test_the_png_is_an_image_of_a_readable_size(figure: FigureResult) -> None:
    with Image.open(io.BytesIO(draw(figure).png)) as image:
        assert image.format == "PNG"
        assert image.width > 1000
