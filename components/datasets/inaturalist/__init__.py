"""iNaturalist 2018: a list of images in JSON (A.6)."""

from components.core.dataset import Dataset, Miniature

DATASETS = (
    Dataset(
        name="inaturalist",
        summary="iNaturalist 2018: train2018.json, val2018.json and the images that they name",
        readers={"classification": "components.datasets.inaturalist.reading:Inaturalist"},
        miniature=Miniature(
            "components.datasets.inaturalist.digits:write",
            "iNaturalist 2018's layout: ten long-tailed categories",
        ),
    ),
)
