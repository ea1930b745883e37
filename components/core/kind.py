"""What an artifact is, for ports that take it and manifests that describe it."""

from typing import Literal

ArtifactKind = Literal["Dataset", "Model", "Metrics", "Report", "HTML"]
"""What an artifact is. All are folders with a manifest, but HTML, which is one file: a view."""
