"""The documented shapes of TensorFlow Serving's REST form."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from server.rest.schemas import Cell, Model, Number, Row, absent

SIGNATURE = "serving_default"


class StatusCode(Model):
    error_code: Literal["OK"] = "OK"
    error_message: Literal[""] = ""


class VersionStatus(Model):
    version: str
    state: Literal["AVAILABLE"] = "AVAILABLE"
    status: StatusCode = StatusCode()


class ModelStatus(Model):
    """Of the versions that can answer, the highest first. `name` and `ready` are for clients of KServe's V1."""

    name: str
    ready: Literal[True] = True
    model_version_status: list[VersionStatus]


class ModelSpec(Model):
    name: str
    signature_name: Literal[""] = ""
    version: str


class SignatureMetadata(Model):
    """What it takes and answers, as TensorFlow has it, under `serving_default`."""

    model_spec: ModelSpec
    metadata: dict[str, Any]


class TfPredictRequest(Model):
    """Rows as `instances`, or a tensor an input as `inputs`. Options stand in the query."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"instances": [[5.1, 3.5, 1.4, 0.2]]},
                {"signature_name": "serving_default", "inputs": {"X": [[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3]]}},
            ],
            "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
        }
    )

    signature_name: Annotated[str, Field(description="Any: a model has one.")] = absent()
    instances: Annotated[
        list[Row | Number | str | dict[str, Cell]],
        Field(min_length=1, description="Rows; of a table, objects with a value for each column."),
    ] = absent()
    inputs: Annotated[
        list[Row] | dict[str, list[Cell]],
        Field(description="The rows of the one input; or, by name, those of each."),
    ] = absent()


class TfPredictResponse(Model):
    """Of each row the probabilities of the classes, or the values of the targets."""

    predictions: Annotated[list[list[float]], Field(description="Of instances.")] = absent()
    outputs: Annotated[list[list[float]], Field(description="Of inputs.")] = absent()
