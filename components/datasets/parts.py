"""Whether the parts of a data set fit together: the same classes, and no image in two of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from components.datasets.findings import Findings

_SHOWN = 5


@dataclass(frozen=True)
class Part:
    """A split or a list of a data set.

    Attributes:
        name: Of the file or folder that holds it, for faults.
        classes: Class names by label; None if they are not known.
        files: Its images.
        measured: Whether it is measured on, and not learned from.
        keypoints: Names of an instance's keypoints.
    """

    name: str
    classes: Sequence[str] | None
    files: Sequence[str]
    measured: bool
    keypoints: Sequence[str] = ()


def compare_parts(parts: Sequence[Part], findings: Findings, *, images: bool = True) -> None:
    """Report a part with other classes than the first, and images that are learned by heart.

    Labels are positions in the list of classes, so that all parts need the same list.

    Args:
        parts: Of one data set; the first is learned from.
        findings: Where faults go.
        images: Whether equal file names are equal images.
    """
    known = [part for part in parts if part.classes is not None]
    for part in known[1:]:
        first = known[0]
        assert part.classes is not None
        assert first.classes is not None
        if (*part.classes,) != (*first.classes,):
            _report_classes(part, first, findings)
        elif (*part.keypoints,) != (*first.keypoints,):
            findings.fault(
                part.name,
                f"has other keypoints than {first.name}: {len(part.keypoints)} against "
                f"{len(first.keypoints)}, or in another order",
            )
    if images:
        for measured in (part for part in parts if part.measured):
            for learned in (part for part in parts if not part.measured):
                _report_shared(measured, learned, findings)


def _report_classes(part: Part, first: Part, findings: Findings) -> None:
    told = []
    for here, there in ((part, first), (first, part)):
        lone = sorted({*(here.classes or ())} - {*(there.classes or ())})
        if lone:
            more = ", ..." if len(lone) > _SHOWN else ""
            told.append(f"{len(lone)} in {here.name} only: {', '.join(lone[:_SHOWN])}{more}")
    findings.fault(
        part.name,
        f"has other classes than {first.name} ({'; '.join(told) or 'in another order'}): a model "
        "needs the same in the same order",
    )


def _report_shared(measured: Part, learned: Part, findings: Findings) -> None:
    shared = sorted({*measured.files} & {*learned.files})
    if shared:
        findings.fault(
            measured.name,
            f"{len(shared):,} of its images are in {learned.name}, too, which is trained on: take "
            "them out of one of the two",
            shared[0],
        )
