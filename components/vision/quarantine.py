"""Images that cannot be read: kept apart, listed, counted, and too many of them refused."""

from collections.abc import Iterable

from components.core.errors import DataError
from components.core.log import get_logger
from components.vision.batch import CorruptImage

log = get_logger(__name__)


class Quarantine:
    """The unreadable images that this process has met.

    Up to `max_fraction` of the set is tolerated, and always one image, so that a small
    set is not refused for a single file; a `max_fraction` of 0 tolerates none.
    """

    def __init__(self, images: int, max_fraction: float) -> None:
        self.images = images
        self.allowed = max(1, int(max_fraction * images)) if max_fraction else 0
        self._found: dict[int, CorruptImage] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, corrupt: Iterable[CorruptImage]) -> None:
        """List images, each once.

        Raises:
            DataError: when there are more than tolerated, naming the first ones.
        """
        for image in corrupt:
            if image.index not in self._found:
                self._found[image.index] = image
                log.warning("image quarantined", file=image.file, reason=image.reason)
        if len(self) > self.allowed:
            shown = "\n".join(f"  {image.file}: {image.reason}" for image in self.listed()[:10])
            raise DataError(
                f"{len(self)} of {self.images} images cannot be read, {self.allowed} are tolerated "
                f"(max_corrupt_fraction):\n{shown}\n  `moco data check` lists all of them"
            )

    def listed(self) -> list[CorruptImage]:
        """Return the images in the order of the set."""
        return [self._found[index] for index in sorted(self._found)]
