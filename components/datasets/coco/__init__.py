"""COCO: instances and keypoints of 2017, DensePose of 2014 (A.2, A.3, A.8)."""

from components.core.dataset import Dataset, Miniature

DATASETS = (
    Dataset(
        name="coco",
        summary="COCO 2017: train2017, val2017, annotations/instances_*.json",
        readers={"detection": "components.datasets.coco.instances:CocoInstances"},
        miniature=Miniature(
            "components.datasets.coco.digits:write",
            "COCO's layout: instances, keypoints, and DensePose of 2014",
        ),
    ),
    Dataset(
        name="keypoints",
        summary="COCO 2017's persons: annotations/person_keypoints_*.json",
        readers={"detection": "components.datasets.coco.keypoints:CocoKeypoints"},
    ),
    Dataset(
        name="densepose",
        summary="COCO 2014's persons: annotations/densepose_*.json, and the body's geometry",
        readers={"detection": "components.datasets.coco.densepose:DensePose"},
    ),
)
