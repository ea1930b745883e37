"""Renders real handwritten digits into scenes and pictures: the miniature world."""
