"""Random annotations and predictions in COCO's and LVIS's layouts, full of corner cases."""

from typing import Any

import numpy as np
import numpy.typing as npt
from hotcoco import mask as rle

from components.evaluation.results import encode_mask

Record = dict[str, Any]
Mask = npt.NDArray[np.uint8]
JOINTS = 17


def stripped(results: list[Record], kind: str) -> list[Record]:
    """Return results as a server takes them for one kind, which decides whose area counts."""
    others = {
        "bbox": ("segmentation", "keypoints"),
        "segm": ("bbox", "keypoints"),
        "keypoints": ("bbox", "segmentation"),
    }
    return [
        {name: value for name, value in one.items() if name not in others[kind]} for one in results
    ]


class World:
    """Images of many sizes; some empty, crowded or missed, with moved, doubled and stray finds.

    Scores repeat, within an image and across, so that the order of equals matters; areas lie
    on both sides and on the borders of the ranges; category and image ids have gaps.
    """

    def __init__(self, seed: int, images: int = 12, federated: bool = False) -> None:
        self.random = np.random.default_rng(seed)
        self.federated = federated
        ids = sorted(self.random.choice(50, 4, replace=False).tolist())
        self.categories = ids
        self.results: list[Record] = []
        self.annotations: Record = {
            "info": {},
            "images": [],
            "annotations": [],
            "categories": [
                {"id": one, "name": f"class {one}", "frequency": "rcf"[index % 3]}
                for index, one in enumerate(ids)
            ],
        }
        for identity in self.random.permutation(images):
            self._image(int(identity) * 7 + 3)
        self.random.shuffle(self.results)

    def _image(self, identity: int) -> None:
        height, width = self.random.integers(20, 260, 2).tolist()
        image: Record = {"id": identity, "height": height, "width": width}
        present = set()
        for _ in range(self.random.choice([0, 1, 3, 8, 15])):
            category = int(self.random.choice(self.categories))
            present.add(category)
            self._object(image, category)
        for _ in range(self.random.choice([0, 0, 5, 330 if self.federated else 120])):
            self._found(image, int(self.random.choice(self.categories)), self._mask(image))
        if self.federated:
            image["neg_category_ids"] = [
                one for one in self.categories if one not in present and self._chance(0.5)
            ]
            image["not_exhaustive_category_ids"] = [one for one in present if self._chance(0.3)]
        self.annotations["images"].append(image)

    def _object(self, image: Record, category: int) -> None:
        mask = self._mask(image)
        crowd = not self.federated and self._chance(0.2)
        box = rle.to_bbox(rle.encode(mask)).tolist()
        area = float(mask.sum()) if self._chance(0.8) else self.random.choice([1024.0, 9216.0, 9.0])
        joints = self._joints(box)
        self.annotations["annotations"].append(
            {
                "id": len(self.annotations["annotations"]) + 1,
                "image_id": image["id"],
                "category_id": category,
                "bbox": box,
                "area": float(area),
                "iscrowd": int(crowd),
                "segmentation": self._segmentation(mask, box, crowd),
                "keypoints": joints.ravel().tolist(),
                "num_keypoints": int((joints[:, 2] > 0).sum()),
            }
        )
        for _ in range(self.random.choice([0, 1, 2, 3])):
            by = self.random.integers(-4, 5, 2) if self._chance(0.7) else np.zeros(2, int)
            same = category if self._chance(0.9) else int(self.random.choice(self.categories))
            moved = joints[:, :2] + self.random.normal(size=(JOINTS, 2)) * self.random.choice(
                [0, 5]
            )
            self._found(image, same, np.roll(mask, by.tolist(), (0, 1)), moved)

    def _found(
        self, image: Record, category: int, mask: Mask, joints: npt.NDArray[Any] | None = None
    ) -> None:
        x, y, width, height = rle.to_bbox(rle.encode(mask)).tolist()
        if joints is None:
            joints = self.random.random((JOINTS, 2)) * [image["width"], image["height"]]
        self.results.append(
            {
                "image_id": image["id"],
                "category_id": category,
                "bbox": [x, y, width * float(self.random.uniform(0.8, 1.2)), height],
                "segmentation": encode_mask(mask),
                "keypoints": np.column_stack((joints, np.ones(JOINTS))).ravel().tolist(),
                "score": round(self.random.random(), int(self.random.choice([1, 2, 9]))),
            }
        )

    def _mask(self, image: Record) -> Mask:
        height, width = image["height"], image["width"]
        mask = np.zeros((height, width), np.uint8)
        for _ in range(self.random.integers(1, 3)):
            y, x = self.random.integers(0, [height, width])
            sides = self.random.integers(1, [height // 2, width // 2])
            mask[y : y + sides[0], x : x + sides[1]] = 1
        return mask

    def _segmentation(self, mask: Mask, box: list[float], crowd: bool) -> Any:
        """Return a polygon of two parts, or run lengths, compressed or not."""
        way = self.random.integers(0, 3)
        x, y, width, height = box
        if way == 0 and not crowd:
            return [
                [x, y, x + width, y, x + width, y + height * self.random.random()],
                [x + 0.3, y + 0.7, x + width, y + 2.0, x + width * 0.3, y + height],
            ]
        if way == 1:
            return encode_mask(mask)
        flat = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
        return {"size": list(mask.shape), "counts": ([0] if flat[0] else []) + runs}

    def _joints(self, box: list[float]) -> npt.NDArray[np.float64]:
        joints = self.random.random((JOINTS, 3)) * [box[2], box[3], 0] + [box[0], box[1], 0]
        joints[:, 2] = self.random.integers(0, 3, JOINTS) * self._chance(0.8)
        joints[joints[:, 2] == 0] = 0
        return joints

    def _chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)
