"""Benchmarks: `python -m benchmarks.NAME [--quick]` prints one JSON object and writes benchmarks/results/NAME.json."""
