"""Figure 3: three contrastive mechanisms under linear classification (Sec. 4.1)."""

from components.classification.linear import STAGE as LINEAR
from components.classification.linear import LinearConfig
from components.pretrain import PretrainConfig
from components.report import Column, Metric, Published, Row, Table
from pipelines.recipes._shared import MOCO_IN1M, one_table, training

END_TO_END = Row(key="end_to_end", name="end-to-end, K = 1024")
MEMORY_BANK = Row(key="memory_bank", name="memory bank, K = 65536")

TABLE = Table(
    key="mechanisms",
    title="Contrastive mechanisms under linear classification",
    section="Figure 3",
    source="main paper, transcribed",
    rows=(END_TO_END, MEMORY_BANK, MOCO_IN1M.derive(name="MoCo, K = 65536")),
    columns=(Column(key="imagenet", name="ImageNet"),),
    metrics=(Metric(key="top1", name="top-1"),),
    published=(
        Published(row="end_to_end", column="imagenet", values=(57.3,)),
        Published(row="memory_bank", column="imagenet", values=(58.0,)),
        Published(row="moco_in1m", column="imagenet", values=(60.6,)),
    ),
    command="moco run mechanisms --rows {row} --trials {trials}",
    notes=(
        "End-to-end has the other keys of its batch as negatives: 1024 images a step at a "
        "linearly scaled rate.",
    ),
)

CONFIGS = {
    "end_to_end": PretrainConfig(mechanism="end_to_end", batch_size=1024),
    "memory_bank": PretrainConfig(mechanism="memory_bank"),
}


measure = training(
    TABLE,
    LINEAR,
    data="imagenet",
    config=lambda cell: LinearConfig(seed=cell.trial),
    pretrainings=CONFIGS,
    own_rows=False,
)


RECIPE = one_table("mechanisms", "Figure 3: end-to-end and memory bank beside MoCo", measure)
