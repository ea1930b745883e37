"""Readers of detection and segmentation data sets: columns in memory, masks decoded when asked."""
