import numpy as np

from export.software import versions


def test_only_what_is_installed_has_a_version() -> None:
    assert versions(["numpy", "no-such-library"]) == {"numpy": np.__version__}
