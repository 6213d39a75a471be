"""Committee beside its peers and the limits: `make bench`, or `python -m bench.peers --help`."""
