import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.datasets import Split
from export.members.feed import augmented, make_feed
from export.recipe import Augment, Training


def _pictures(n: int, height: int = 5, width: int = 7) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Every pixel of all of them another number, above zero."""
    return (1 + np.arange(n * height * width, dtype=np.float32)).reshape(n, height, width, 1)


@given(seed=st.integers(0, 1 << 32), shift=st.integers(0, 6), flip=st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_picture_is_mirrored_or_not_and_moved_with_zeros_coming_in(seed: int, shift: int, flip: bool) -> None:
    pictures = _pictures(4)
    moved = augmented(pictures, Augment(flip=flip, shift=shift), np.random.default_rng(seed))
    assert moved.shape == pictures.shape
    for before, after in zip(pictures[..., 0], moved[..., 0], strict=True):
        assert any(
            np.array_equal(after, _moved(source, down, right))
            for source in ([before, before[:, ::-1]] if flip else [before])
            for down in range(-shift, shift + 1)
            for right in range(-shift, shift + 1)
        )


def _moved(picture: np.ndarray, down: int, right: int) -> np.ndarray:
    height, width = picture.shape
    result = np.zeros_like(picture)
    for row in range(height):
        for column in range(width):
            if 0 <= row + down < height and 0 <= column + right < width:
                result[row, column] = picture[row + down, column + right]
    return result


def test_pictures_are_mirrored_about_half_the_time_and_moved_everywhere() -> None:
    pictures = np.tile(_pictures(1), (400, 1, 1, 1))
    generator = np.random.default_rng(0)
    flipped = augmented(pictures, Augment(flip=True), generator)
    assert 150 < (flipped[:, 0, 0, 0] != 1).sum() < 250
    moved = augmented(pictures, Augment(shift=1), generator)
    assert len(np.unique(moved.reshape(400, -1), axis=0)) == 9


def test_what_comes_in_is_left_as_it_was() -> None:
    pictures = _pictures(3)
    augmented(pictures, Augment(flip=True, shift=2), np.random.default_rng(1))
    np.testing.assert_array_equal(pictures, _pictures(3))


def _epoch(feed: object) -> list[tuple[np.ndarray, np.ndarray]]:
    (batches,) = feed.arguments  # type: ignore[attr-defined]
    return [batches[index] for index in range(len(batches))]


def test_an_epoch_is_every_row_once_in_another_order_each_time() -> None:
    split = Split(_pictures(10), np.arange(10, dtype=np.int64))
    feed = make_feed(Training(), split, 10, batch_size=4, seed=3)
    assert (feed.n_batches, feed.soft) == (3, False)
    first = _epoch(feed)
    assert [len(x) for x, _ in first] == [4, 4, 2]
    labels = np.concatenate([y for _, y in first])
    assert sorted(labels) == list(range(10))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in first]), split.x[labels])
    feed.arguments[0].on_epoch_end()
    assert not np.array_equal(labels, np.concatenate([y for _, y in _epoch(feed)]))


def test_the_same_seed_feeds_the_same() -> None:
    split = Split(_pictures(10), np.arange(10, dtype=np.int64))
    training = Training(augment=Augment(flip=True, shift=2))
    one, same, other = (_epoch(make_feed(training, split, 10, batch_size=10, seed=seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one[0][0], same[0][0])
    assert not np.array_equal(one[0][0], other[0][0])


def test_smoothed_labels_and_teachers_answers_are_distributions() -> None:
    split = Split(_pictures(6), np.array([0, 1, 2, 0, 1, 2]))
    smooth = make_feed(Training(label_smoothing=0.1), split, 3, batch_size=6, seed=0)
    assert smooth.soft
    ((_, y),) = _epoch(smooth)
    np.testing.assert_array_equal(y.sum(axis=1), 1)
    pairs = [(split.x * scale, np.full((6, 3), scale, dtype=np.float32)) for scale in (2, 3)]
    taught = make_feed(Training(augment=Augment(shift=1)), split, 3, batch_size=6, seed=0, targets=pairs)
    for scale in (2, 3, 2):
        ((x, y),) = _epoch(taught)
        assert (y == scale).all()
        assert sorted(x.ravel()) == pytest.approx(sorted(split.x.ravel() * scale))
        taught.arguments[0].on_epoch_end()
