"""Files that processes map together: memory that is mapped and is not there is a SIGBUS once it is written to."""

import os


def allocate(descriptor: int, size: int) -> None:
    """See to it that a file has so many bytes, and that they are there. Raises OSError."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS
        os.truncate(descriptor, size)
