"""Runs plans on this machine: each step a subprocess, what exists already reused."""
