"""Stages: supervised classification, end to end (Appendices A.6, A.7) and linear (Sec. 4.1)."""

STAGES = ("imagenet", "inaturalist", "linear")
