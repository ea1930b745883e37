"""Benchmarks on a GPU, against peers in one run: `make bench-gpu`."""
