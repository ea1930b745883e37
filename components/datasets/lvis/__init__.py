"""LVIS v0.5, which annotates COCO's images of 2017 with 1,230 classes (A.4)."""

from components.core.dataset import Dataset, Miniature

DATASETS = (
    Dataset(
        name="lvis",
        summary="LVIS v0.5: lvis_v0.5_{train,val}.json beside COCO's images of 2017",
        readers={"detection": "components.datasets.lvis.reading:Lvis"},
        miniature=Miniature(
            "components.datasets.lvis.digits:write",
            "LVIS v0.5's layout: thirty rare, common and frequent classes",
        ),
    ),
)
