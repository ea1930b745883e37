"""Stages: classification end to end (A.6, A.7), linear (Sec. 4.1), and of stored features."""

STAGES = ("features", "imagenet", "inaturalist", "linear", "probe")
