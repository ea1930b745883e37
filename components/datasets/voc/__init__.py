"""Pascal VOC: detection of 2007 and 2012 (Table 2), segmentation of 2012 (A.5)."""

from components.core.dataset import Dataset, Miniature

DATASETS = (
    Dataset(
        name="voc",
        summary="Pascal VOC detection: VOC2007 and VOC2012 with Annotations and ImageSets/Main",
        readers={"detection": "components.datasets.voc.detection:Voc"},
        miniature=Miniature(
            "components.datasets.voc.digits:write",
            "VOC 2007 and 2012: detection, segmentation, the augmented list",
        ),
    ),
    Dataset(
        name="voc_segmentation",
        summary="Pascal VOC 2012 segmentation, with the augmented list and labels",
        readers={"segmentation": "components.datasets.voc.segmentation:VocSegmentation"},
    ),
)
