"""Detection stages: COCO, VOC, keypoints, DensePose, LVIS, Cityscapes; one training for all."""
