"""The container images of the stages, one folder each, and what builds them."""
