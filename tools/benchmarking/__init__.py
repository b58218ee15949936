"""What `tools/benchmark.py` measures: the networks, the contenders, and how one is measured."""
