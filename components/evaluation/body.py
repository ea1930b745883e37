"""The numbers that DensePose's annotations of a body are made of (Güler et al. 2018)."""

FINE_PARTS = 24
"""Parts of the surface, each with coordinates u and v of its own."""
COARSE_PARTS = 14
"""Parts whose masks are annotated."""
SIDE = 256
"""Of such a mask, stretched over the box, pixels; points are counted in as many steps."""
