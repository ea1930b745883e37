"""Runs the steps of a plan one after the other, in a shell that nobody waits for."""
