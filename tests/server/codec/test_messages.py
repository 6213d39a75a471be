import time

from server.codec.messages import listed, named, shown


def test_shown_is_short() -> None:
    for value in (None, True, "x" * 10**6, [0] * 10**6, {"k": 1}, 10**4000, 1.5):
        assert len(shown(value)) < 80
    assert len(named("x" * 10**6)) < 80


def test_few_are_all_listed() -> None:
    assert listed(["cook", "nurse"], "nures") == "'cook', 'nurse'"


def test_of_many_the_nearest() -> None:
    names = [f"name {i}" for i in range(30)] + ["Nurse", "purse"]
    assert listed(names, "nures") == "'Nurse', 'purse', … (32 in all)"
    assert listed(names, "????").startswith("'name 0', 'name 1', ")
    assert listed(names).endswith("'name 9', … (32 in all)")


def test_however_many_there_are() -> None:
    names = [f"{letter}{i:05}" for letter in "ab" for i in range(5000)]
    began = time.perf_counter()
    assert listed(names, "b0010o").startswith("'b0")
    listed([name * 40 for name in names], "b0" * 500)
    assert time.perf_counter() - began < 2
