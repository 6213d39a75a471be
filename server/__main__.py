"""`committee-server`, or `python -m server`: serve a repository of ensembles."""

import sys

from server.settings import read_settings
from server.workers import serve


def main() -> None:
    sys.exit(serve(read_settings(sys.argv[1:])))


if __name__ == "__main__":
    main()
