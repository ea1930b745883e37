"""Runs on a cluster: submitted, followed, pulled."""
