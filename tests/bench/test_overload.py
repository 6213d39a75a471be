from dataclasses import replace

import pytest

from bench.offered import Answer, Load
from bench.overload import Probes, judge, settles, table

RETRY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n"


def answers(count: int, seconds: float, *, over: float = 10.0, begin: float = 0.0, status: int = 200) -> list[Answer]:
    head = RETRY if status == 503 else b""
    return [Answer(0, begin + k * over / count, seconds, status, head, b"") for k in range(count)]


USUAL = Load(10.0, answers(800, 0.05), 0)
PROBES = Probes(100, 0, 20.0, 30.0)


def judged(over: list[Answer], after: list[Answer], probes: Probes = PROBES) -> dict[str, bool]:
    found = judge(100, USUAL, Load(10.0, over, 0), Load(10.0, after, 0), probes, load=0.1, foreign=0.0, cores=2)
    assert table(found).row_count > 5
    return found.verdicts()


def test_all_is_well() -> None:
    over = answers(1000, 0.08) + answers(9000, 0.002, status=503)
    assert judged(over, answers(800, 0.05)) == dict.fromkeys(
        ("goodput", "accepted", "refusals", "health", "recovery"), True
    )


@pytest.mark.parametrize(
    ("over", "after", "probes", "missed"),
    [
        (answers(900, 0.08), answers(800, 0.05), PROBES, "goodput"),
        (answers(990, 11.0) + answers(10, 0.08), answers(800, 0.05), PROBES, "goodput"),
        (answers(1000, 0.2), answers(800, 0.05), PROBES, "accepted"),
        (answers(1000, 0.05) + answers(100, 0.05, status=503), answers(800, 0.05), PROBES, "refusals"),
        (answers(1000, 0.05), answers(800, 0.05), replace(PROBES, failed=1), "health"),
        (answers(1000, 0.05), answers(500, 0.3, over=6) + answers(300, 0.05, begin=6, over=4), PROBES, "recovery"),
    ],
)
def test_what_is_missed(over: list[Answer], after: list[Answer], probes: Probes, missed: str) -> None:
    assert missed in [name for name, held in judged(over, after, probes).items() if not held]


def test_a_refusal_has_to_say_when_to_come_again() -> None:
    silent = [replace(answer, head=b"") for answer in answers(10, 0.001, status=503)]
    assert not judged(answers(1000, 0.05) + silent, answers(800, 0.05))["refusals"]


def test_it_is_settled_after_the_last_window_that_is_not_normal() -> None:
    assert settles(answers(1000, 0.05), 10.0, 0.1) == 0.0
    assert settles(answers(300, 2.0, over=3) + answers(700, 0.05, begin=3, over=7), 10.0, 0.1) == 3.0
    assert settles(answers(1000, 2.0), 10.0, 0.1) == 9.25
    assert settles(answers(500, 0.05, over=5), 10.0, 0.1) > 8  # nobody is answered any more
    refused = [*answers(1000, 0.05), Answer(0, 2.1, 0.001, 503, RETRY, b"")]
    assert settles(refused, 10.0, 0.1) == 2.25
