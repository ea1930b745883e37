"""Detection stages: COCO, VOC, keypoints, DensePose, LVIS, Cityscapes; one training for all."""

STAGES = ("cityscapes", "coco", "densepose", "evaluate", "keypoints", "lvis", "voc")
