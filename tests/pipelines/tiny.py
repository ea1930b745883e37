"""The appendix with too little to learn anything: every stage once, and a report."""

from pipelines.recipes import Options, Setting

DETECTORS = ("coco", "voc", "keypoints", "densepose", "lvis", "cityscapes")
EVERY_STAGE = Options(
    scale="digits",
    # Together they need every stage and every kind of detector; the rest is more of the same.
    rows=("random", "supervised_frozen", "shuffled"),
    columns=("1x", "c4", "dc5", "voc"),
    settings=(
        Setting("digits", "train_scenes", "192"),
        Setting("digits", "val_scenes", "30"),
        Setting("digits", "pictures.train", "20"),
        Setting("digits", "pictures.val", "20"),
        Setting("pretrain", "epochs", "1"),
        Setting("segmentation", "iterations", "2"),
        *(Setting(f"classification.{name}", "epochs", "1") for name in ("linear", "imagenet")),
        Setting("classification.inaturalist", "epochs", "1"),
        *(Setting(f"detection.{name}", "iterations", "2") for name in DETECTORS),
        *(Setting(f"detection.{name}", "evaluations", "1") for name in DETECTORS),
    ),
)
