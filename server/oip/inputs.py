"""Tensors that came to the rows of an ensemble: the same numbers, and the same checks, as of any other request."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.codec.arrays import to_float32
from server.codec.messages import listed, named, shown
from server.codec.tables import column
from server.codec.tensors import described, forms_of
from server.errors import InvalidInput, TooLarge
from server.manifest import InputSpec, Manifest
from server.oip.tensors import Tensor
from server.rows import Rows, is_table, join_tensors


def rows_of(manifest: Manifest, tensors: Sequence[Tensor]) -> Rows:
    """`(n, *shape)` float32, or a table's `(n,)`, from a tensor for each input, whose first dimension is the batch.

    A tensor's other dimensions are those of a row, in any form that JSON has for it. A table's column that may be
    missing may have no tensor. Raises InvalidInput and TooLarge.
    """
    by_name = _by_name(manifest.inputs, tensors)
    n_rows = _count_rows(tensors, manifest.max_batch_size)
    if not is_table(manifest.inputs):
        [spec] = manifest.inputs
        return _numbers(by_name[spec.name], spec)
    columns = {
        spec.name: _column(by_name[spec.name], spec) if spec.name in by_name else _missing(spec, n_rows)
        for spec in manifest.inputs
    }
    return join_tensors(columns, manifest.inputs)


def _by_name(specs: Sequence[InputSpec], tensors: Sequence[Tensor]) -> Mapping[str, Tensor]:
    names = [spec.name for spec in specs]
    if not tensors:
        raise InvalidInput(f"inputs: expected {listed(names)}; got none")
    by_name = {tensor.name: tensor for tensor in tensors}
    for name in by_name:
        if name not in names:
            raise InvalidInput(f"inputs: expected none but {listed(names, name)}; got {named(name)}")
    if len(by_name) < len(tensors):
        raise InvalidInput("inputs: expected each once; got one twice")
    for spec in specs:
        if spec.name not in by_name and (not spec.missing or len(specs) == 1):
            raise InvalidInput(f"inputs: expected {named(spec.name)} too; got {listed(list(by_name))}")
    return by_name


def _count_rows(tensors: Sequence[Tensor], max_rows: int) -> int:
    n_rows = len(tensors[0].values)
    for tensor in tensors:
        if len(tensor.values) != n_rows:
            raise InvalidInput(
                f"input {named(tensor.name)}: expected {n_rows} rows, as {named(tensors[0].name)} has; "
                f"got {len(tensor.values)}"
            )
    if not n_rows:
        raise InvalidInput(f"input {named(tensors[0].name)}: expected at least one row; got none")
    if n_rows > max_rows:
        raise TooLarge(f"input {named(tensors[0].name)}: expected at most {max_rows} rows; got {n_rows}")
    return n_rows


def _check_shape(tensor: Tensor, spec: InputSpec) -> None:
    forms = forms_of(spec.shape)
    single = spec.shape == [1] and len(tensor.shape) == 1
    if not single and tensor.shape[1:] not in forms.values():
        raise InvalidInput(
            f"input {named(tensor.name)}: shape: expected [n, …], each row {described(forms)}; got {list(tensor.shape)}"
        )


def _numbers(tensor: Tensor, spec: InputSpec) -> NDArray[np.float32]:
    _check_shape(tensor, spec)
    if tensor.datatype in ("BOOL", "BYTES"):
        raise InvalidInput(
            f"input {named(tensor.name)}: datatype: expected {spec.datatype}, or another of numbers; "
            f"got {tensor.datatype}"
        )
    where = f"input {named(tensor.name)}: row "
    return to_float32(tensor.values.reshape(len(tensor.values), -1), spec, lambda row: f"{where}{row}")


def _column(tensor: Tensor, spec: InputSpec) -> NDArray[Any]:
    if spec.datatype == "FP32":
        return _numbers(tensor, spec)
    _check_shape(tensor, spec)
    if tensor.datatype != "BYTES":
        raise InvalidInput(f"input {named(tensor.name)}: datatype: expected BYTES, of text; got {tensor.datatype}")
    texts = [_text(value, tensor.name, row) for row, value in enumerate(tensor.values.ravel().tolist())]
    return column(texts, spec, "row {}".format)


def _text(value: object, name: str, row: int) -> str:
    if isinstance(value, str):
        return value
    assert isinstance(value, bytes)
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise InvalidInput(
            f"row {row}: column {named(name)}: expected UTF-8; got {shown(value.decode('latin-1'))}"
        ) from exc


def _missing(spec: InputSpec, n_rows: int) -> NDArray[Any]:
    return column([None] * n_rows, spec, "row {}".format)
