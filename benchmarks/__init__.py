"""Speed and memory, side by side with docker-py in the same run: `make bench`, or `python -m benchmarks --help`."""
