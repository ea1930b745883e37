"""Which encoder transfers best: rows and columns of one's own, a table for each column."""

import shlex
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from components.classification.features import STAGE as FEATURES
from components.classification.features import FeaturesConfig
from components.classification.imagenet import STAGE as IMAGENET
from components.classification.inaturalist import STAGE as FINE_TUNING
from components.classification.inaturalist import INaturalistConfig, fine_tuning
from components.classification.probe import STAGE as PROBE
from components.classification.probe import ProbeConfig
from components.core.dataset import Kind, datasets, find_dataset
from components.core.errors import UsageError
from components.core.stage import Stage
from components.core.store import is_remote
from components.detection import cityscapes as cityscapes_stage
from components.detection import coco as coco_stage
from components.detection import keypoints as keypoints_stage
from components.detection import voc as voc_stage
from components.pretrain import STAGE as PRETRAIN
from components.report import Column, Figure, Metric, Table, Trend, TrendPoint
from components.segmentation import STAGE as SEGMENTATION
from components.segmentation import voc as fcn
from components.training.config import SupervisedConfig
from components.vision.config import ALL
from pipelines.plan import Existing, Mounted, Plan, Source, Step
from pipelines.recipes import DataColumn, Options, Recipe, cityscapes, keypoints, voc
from pipelines.recipes._shared import (
    BOXES_AND_MASKS,
    MOCO_IN1M,
    RANDOM,
    SUPERVISED,
    PlannedTrial,
    backbone,
    cells,
    chosen,
    data_set,
    report,
)

HELD_OUT = 20.0
"""Percent of each class that are held out where the data has no validation split."""
TRIALS = 5
OTHER_KINDS: tuple[Kind, ...] = ("classification", "segmentation")
"""What one's own data sets can be for; detectors have a recipe for the layouts below alone."""
MINIATURE: Mapping[str, DataColumn] = {
    "digits": DataColumn("imagenet"),
    "things": DataColumn("coco"),
    "scenes": DataColumn("masks"),
}
"""Columns of the miniature where none is named: one of each kind."""


@dataclass(frozen=True)
class Task:
    """What is learned on a layout from all of an encoder.

    Attributes:
        stage: Trains and measures.
        config: The paper's for the nearest of its data sets, with the images of that.
        metrics: What is reported; the first one decides.
        words: For people.
    """

    stage: Stage[Any]
    config: SupervisedConfig
    metrics: tuple[Metric, ...]
    words: str


DETECTION: Mapping[str, Task] = {
    "coco": Task(
        coco_stage.STAGE,
        coco_stage.mask_rcnn_fpn().derive(length_of=118_287),
        BOXES_AND_MASKS,
        "Mask R-CNN R50-FPN's recipe at 1× (Appendix A.8)",
    ),
    "keypoints": Task(
        keypoints_stage.STAGE,
        keypoints_stage.keypoint_rcnn().derive(length_of=64_115),
        keypoints.TABLE.metrics,
        "the keypoint version of Mask R-CNN R50-FPN at 2× (Appendix A.2)",
    ),
    "voc": Task(
        voc_stage.STAGE,
        voc_stage.faster_rcnn_c4().derive(length_of=16_551),
        voc.TABLE.metrics,
        "Faster R-CNN R50-C4's recipe (Appendix A.1)",
    ),
    "cityscapes": Task(
        cityscapes_stage.STAGE,
        cityscapes_stage.mask_rcnn().derive(length_of=2_975),
        cityscapes.TABLE.metrics,
        "Mask R-CNN R50-FPN's recipe for Cityscapes (Table 6)",
    ),
}
SEGMENTED = Task(
    SEGMENTATION,
    fcn().derive(length_of=10_582),
    (Metric(key="mIoU", name="mIoU"),),
    "the FCN's recipe for VOC (Appendix A.5)",
)
TOP1 = (Metric(key="top1", name="top-1"),)
PROTOCOLS = {"linear": "linear", "knn": "kNN", "finetuned": "fine-tuned"}
NOTES = (
    "Linear and kNN: frozen features of one view of each image. Linear is logistic regression by "
    "L-BFGS, with the L2 penalty that does best on a fifth of the training images; kNN is a vote "
    "of 20 neighbours weighed by exp(cosine / 0.07). Neither is the protocol of Sec. 4.1.",
    "Fine-tuned: end to end by the recipe of Appendix A.6, the same for all rows.",
)
LENGTHS = (
    "Lengths of training are the paper's, times the root of the ratio of training images; the "
    "same for all rows."
)


def layouts() -> list[str]:
    """Name the layouts that a column can have."""
    return [known.name for known in datasets() if kind_of(known.name) is not None]


def kind_of(layout: str) -> Kind | None:
    """Say what is learned on a layout; None if no column has it."""
    if layout in DETECTION:
        return "detection"
    readers = find_dataset(layout).readers
    return next((kind for kind in OTHER_KINDS if kind in readers), None)


def build(options: Options) -> Plan:
    """Plan every cell of every column, and one report over them.

    Raises:
        UsageError: if there is no column, or one has a name or a layout that cannot be.
    """
    plan = Plan("transfer", options.scale)
    columns = options.own_columns or (MINIATURE if options.scale == "digits" else {})
    if not columns:
        raise UsageError(
            "transfer compares encoders on data of your own: --column NAME=LAYOUT:FOLDER, like "
            "--column birds=imagenet:/data/birds; --scale digits tries it on digits"
        )
    tables: list[Table] = []
    metrics: dict[str, Source] = {}
    for name, column in columns.items():
        table, measured = _Planned(plan, options, name, column).measure()
        tables.append(table)
        metrics |= measured
    _check_names(plan, options)
    figures = [figure for table in tables for figure in _figures(table, options, metrics)]
    report(plan, options, tables, metrics, figures)
    return plan


def _figures(table: Table, options: Options, metrics: Container[str]) -> Iterator[Figure]:
    """Draw each protocol over the shares of the labels, where there are several."""
    if len(options.labels) == 1:
        return
    for protocol, name in PROTOCOLS.items():
        shares = {f"{protocol}{_suffix(percent)}": percent for percent in options.labels}
        columns = [column for column in table.columns if column.key in shares]
        if len(columns) > 1:
            key = columns[0].key
            rows = [row for row in table.rows if table.cell(row.key, key, 0) in metrics]
            yield Figure(
                key=f"{table.key}_{protocol}",
                title=f"{table.title}, {name}",
                section=table.section,
                x_name="% of the labels",
                y_name=table.metrics[0].name,
                x_scale="log",
                command=table.command.replace(" --rows {row} --columns {column}", "").replace(
                    "{trials}", str(table.trials)
                ),
                trends=tuple(
                    Trend(
                        name=row.name,
                        metric=table.metrics[0].key,
                        colour=colour,
                        points=tuple(
                            TrendPoint(
                                x=shares[column.key], cells=tuple(table.cells(row.key, column.key))
                            )
                            for column in columns
                        ),
                    )
                    for colour, row in enumerate(rows)
                ),
            )


@dataclass(frozen=True)
class _Planned:
    """A column on its way into a plan."""

    plan: Plan
    options: Options
    name: str
    column: DataColumn

    def measure(self) -> tuple[Table, dict[str, Source]]:
        """Add the column's trials; return its table and the metrics by cell key."""
        kind = kind_of(self.column.layout)
        if kind is None:
            raise UsageError(
                f"--column {self.name}={self.column.layout}: no column has this layout; there are "
                f"{', '.join(layouts())}"
            )
        return self._classification() if kind == "classification" else self._task()

    def _classification(self) -> tuple[Table, dict[str, Source]]:
        """Add frozen and fine-tuned trials: features once for all that is learned from them."""
        shares = {
            f"{protocol}{_suffix(percent)}": (protocol, percent)
            for protocol in PROTOCOLS
            for percent in self.options.labels
        }
        columns = tuple(
            Column(key=key, name=f"{PROTOCOLS[protocol]}{_of_labels(percent)}")
            for key, (protocol, percent) in shares.items()
        )
        table = self._table(columns, TOP1, NOTES)
        config = fine_tuning().derive(
            dataset=self.column.layout,
            length_of=INaturalistConfig.paper_images,
            held_out=HELD_OUT,
        )
        metrics: dict[str, Source] = {}
        for cell in cells(table, self.options):
            protocol, percent = shares[cell.column]
            if protocol == "finetuned":
                metrics[cell.key] = self._train(cell, FINE_TUNING, config, percent)
            else:
                metrics[cell.key] = self._probe(cell, percent).output(protocol)
        return table, metrics

    def _task(self) -> tuple[Table, dict[str, Source]]:
        """Add a detector's or an FCN's training for each trial."""
        task = DETECTION.get(self.column.layout, SEGMENTED)
        shares = {f"finetuned{_suffix(percent)}": percent for percent in self.options.labels}
        columns = tuple(
            Column(key=key, name=f"fine-tuned{_of_labels(percent)}")
            for key, percent in shares.items()
        )
        table = self._table(columns, task.metrics, (f"Trained by {task.words}.",))
        config = task.config.derive(dataset=self.column.layout)
        return table, {
            cell.key: self._train(cell, task.stage, config, shares[cell.column])
            for cell in cells(table, self.options)
        }

    def _table(
        self, columns: tuple[Column, ...], metrics: tuple[Metric, ...], notes: tuple[str, ...]
    ) -> Table:
        column, full = self.column, self.options.scale == "full"
        named = self.options.rows
        place = f":{column.place}" if column.place else ""
        option = shlex.quote(f"{self.name}={column.layout}{place}")
        shares = ",".join(f"{percent:g}" for percent in self.options.labels)
        table = Table(
            key=self.name,
            title=f"Transfer to {self.name}",
            section=f"data of your own, {column.layout}",
            source="none; the table is your own",
            # The miniature makes them all; at full scale each costs as much as the paper's.
            rows=tuple(
                row.derive(on_request=full or (named is not None and row.key not in named))
                for row in (RANDOM, SUPERVISED, MOCO_IN1M)
            ),
            columns=columns,
            metrics=metrics,
            trials=TRIALS,
            compared="pairs",
            command=f"moco run transfer --column {option}"
            f"{'' if self.options.labels == (ALL,) else f' --labels {shares}'}"
            " --rows {row} --columns {column} --trials {trials}",
            notes=(*notes, *((LENGTHS, *self._facts()) if full else ())),
        )
        return chosen(table, self.options)

    def _facts(self) -> Iterator[str]:
        """Say what is known of the data."""
        column = self.column
        if column.training is not None:
            drawn = f", {HELD_OUT:g} % of each class, drawn from the only split"
            yield (
                f"{column.training:,} training images of {column.classes} classes, "
                f"{column.validation:,} validation images{drawn if column.drawn else ''}."
            )

    def _train(
        self, cell: PlannedTrial, stage: Stage[Any], config: SupervisedConfig, percent: float
    ) -> Source:
        """Add a training of all of an encoder."""
        training = self.column.training
        counted = None if training is None else max(1, round(training * percent / 100))
        config = config.derive(seed=cell.trial, labels=percent, counted=counted)
        step = f"{self.name}_{cell.column}_{cell.row}_{cell.trial}"
        small = config.miniature().longer((percent / ALL) ** 0.5) if percent < ALL else {}
        return self.plan.add(
            stage,
            step,
            self.options.config(stage.name, step, config, **{"length_of": None, **small}),
            data=self._data(),
            backbone=backbone(self.plan, self.options, cell.row, cell.trial),
        ).output("metrics")

    def _probe(self, cell: PlannedTrial, percent: float) -> Step:
        """Add what classifies a row's features, and what extracts them if no cell has yet."""
        column = self.column
        total = None if column.training is None else column.training + (column.validation or 0)
        config = FeaturesConfig(dataset=column.layout, held_out=HELD_OUT, counted=total)
        name = f"{self.name}_features_{cell.row}_{cell.trial}"
        features = self.plan.add(
            FEATURES,
            name,
            self.options.config(FEATURES.name, name, config),
            data=self._data(),
            backbone=backbone(self.plan, self.options, cell.row, cell.trial),
        )
        name = f"{self.name}_probe{_suffix(percent)}_{cell.row}_{cell.trial}"
        probe = ProbeConfig(labels=percent, seed=cell.trial)
        return self.plan.add(
            PROBE,
            name,
            self.options.config(PROBE.name, name, probe),
            features=features.output("features"),
        )

    def _data(self) -> Source:
        """Return where the images are: mounted or in a bucket, digits in miniature."""
        if self.options.scale == "digits":
            folder = find_dataset(self.column.layout).folder
            miniatures = [d.name for d in datasets() if d.folder == folder and d.miniature]
            if not miniatures:
                raise UsageError(
                    f"--column {self.name}={self.column.layout}: this layout has no miniature; "
                    "--scale full reads the data itself"
                )
            return data_set(self.plan, self.options, miniatures[0])
        if self.column.place is not None and is_remote(self.column.place):
            return Existing(self.column.place, "Dataset")
        return Mounted(self.name)


def _check_names(plan: Plan, options: Options) -> None:
    """Refuse a column of the name of a data set that a row of the paper is trained on."""
    for step in plan:
        source = step.inputs.get("data")
        name = source.name if isinstance(source, Mounted) else None
        if step.stage in (PRETRAIN, IMAGENET) and name in options.own_columns:
            raise UsageError(
                f"--column {name}: {step.name} is trained on a data set of that name; "
                "call the column otherwise"
            )


def _suffix(percent: float) -> str:
    return "" if percent == ALL else f"_{percent:g}".replace(".", "_")


def _of_labels(percent: float) -> str:
    return "" if percent == ALL else f", {percent:g} % of the labels"


RECIPE = Recipe(
    "transfer",
    "Rows and columns of your own: which encoder transfers best to your data",
    build,
    takes_columns=True,
    listed=Options(scale="digits"),
)
