"""Benchmarks beside the engines people would otherwise pick: `python -m benchmarks.training` (attention, engine)."""
