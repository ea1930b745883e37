"""Cityscapes with fine annotations: instances (Table 6) and segmentation (A.5)."""

from components.core.dataset import Dataset, Miniature

DATASETS = (
    Dataset(
        name="cityscapes",
        summary="Cityscapes: leftImg8bit and gtFine, by split and city",
        readers={
            "detection": "components.datasets.cityscapes.instances:CityscapesInstances",
            "segmentation": "components.datasets.cityscapes.labels:CityscapesLabels",
        },
        miniature=Miniature(
            "components.datasets.cityscapes.digits:write",
            "Cityscapes' layout: fine instances and segmentation",
        ),
    ),
)
