"""The documented shapes of the Open Inference Protocol: pydantic models, from which the OpenAPI schema is made."""

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import ConfigDict, Field
from typing_extensions import TypeAliasType

from server.codec.bodies import MAX_ID_LENGTH
from server.codec.options import LONGEST_MS, MOST_MEMBERS
from server.manifest import OnFailure
from server.oip.tensors import MAX_DIMENSIONS, Datatype
from server.rest.schemas import STRATEGY_ENUM, Model, Share, Text, absent

ModelName = Annotated[
    str, Path(description="An ensemble, or one of its members: `fashion.cnn`.", examples=["fashion", "fashion.cnn"])
]
ModelVersion = Annotated[str, Path(description="A number from 1.", examples=["3"])]

Value = bool | int | float | str | None
Data = TypeAliasType("Data", "list[Value] | list[Data]")
Shape = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=MAX_DIMENSIONS)]


class ServerMetadata(Model):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(Model):
    model_config = ConfigDict(from_attributes=True)

    name: str
    datatype: Datatype
    shape: Annotated[list[int], Field(description="-1: varies. The first dimension is the batch.")]


class ModelMetadata(Model):
    model_config = ConfigDict(from_attributes=True)

    name: str
    versions: Annotated[list[str], Field(description="That are served.")]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    properties: Annotated[
        dict[str, str],
        Field(description="Lists as JSON: what columns of outputs stand for; members and strategies to ask for."),
    ]


class TensorConfiguration(Model):
    model_config = ConfigDict(from_attributes=True)

    name: str
    data_type: Annotated[str, Field(examples=["TYPE_FP32", "TYPE_STRING"])]
    dims: Annotated[list[int], Field(description="Of a row; -1: varies.")]


class InputConfiguration(TensorConfiguration):
    optional: bool


class StringValue(Model):
    model_config = ConfigDict(from_attributes=True)

    string_value: str


class ModelConfiguration(Model):
    """In Triton's words."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    platform: str
    backend: str
    max_batch_size: Annotated[int, Field(ge=1)]
    input: list[InputConfiguration]
    output: list[TensorConfiguration]
    parameters: Annotated[dict[str, StringValue], Field(description="What the metadata have as `properties`.")]
    dynamic_batching: Annotated[dict[str, int], Field(description="There is, and it sets itself up.")]


class ModelReady(Model):
    name: str
    ready: Literal[True] = True


class Duration(Model):
    model_config = ConfigDict(from_attributes=True)

    count: Annotated[int, Field(ge=0)]
    ns: Annotated[int, Field(ge=0, description="Nanoseconds, of all together.")]


class InferStatistics(Model):
    model_config = ConfigDict(from_attributes=True)

    success: Annotated[Duration, Field(description="Requests; a member's have no time of their own.")]
    fail: Duration
    queue: Duration
    compute_input: Annotated[Duration, Field(description="Decoding.")]
    compute_infer: Annotated[Duration, Field(description="The members, once a batch; a member's: its calls alone.")]
    compute_output: Annotated[Duration, Field(description="Fusing and encoding.")]


class BatchStatistics(Model):
    model_config = ConfigDict(from_attributes=True)

    batch_size: Annotated[int, Field(ge=1, description="Rows: of batches of so many, or of more than the one before.")]
    compute_infer: Duration


class ModelStatistics(Model):
    model_config = ConfigDict(from_attributes=True)

    name: str
    version: str
    last_inference: Annotated[int, Field(ge=0, description="In milliseconds since 1970; 0: never.")]
    inference_count: Annotated[int, Field(ge=0, description="Rows.")]
    execution_count: Annotated[int, Field(ge=0, description="Batches.")]
    inference_stats: InferStatistics
    batch_stats: Annotated[list[BatchStatistics], Field(description="Empty of a member.")]


class Statistics(Model):
    """Over all workers, since the server began."""

    model_config = ConfigDict(from_attributes=True)

    model_stats: list[ModelStatistics]


class InferParameters(Model):
    """How the answer is to be made: the options of /predict, as scalars. The query may say them instead."""

    model_config = ConfigDict(extra="allow")

    strategy: Annotated[Text, Field(json_schema_extra=STRATEGY_ENUM)] = absent()
    weights: Annotated[Text, Field(examples=["cnn:0.7,compact:0.3"])] = absent()
    members: Annotated[Text, Field(examples=["cnn,compact", "-cnn"])] = absent()
    cascade_threshold: Share = absent()
    deadline_ms: Annotated[float, Field(gt=0, le=LONGEST_MS)] = absent()
    quorum: Annotated[int, Field(ge=1, le=MOST_MEMBERS)] = absent()
    on_failure: OnFailure = absent()
    abstain_below: Share = absent()
    timeout: Annotated[int, Field(ge=0, description="A deadline in microseconds; 0: none.")] = absent()
    binary_data_output: Annotated[bool, Field(description="Whether outputs come as bytes behind the JSON.")] = absent()


class InputParameters(Model):
    binary_data_size: Annotated[
        int,
        Field(ge=0, description="How many bytes behind the JSON are this tensor's, in place of `data`."),
    ] = absent()


class InferInput(Model):
    name: str
    shape: Shape
    datatype: Datatype
    parameters: InputParameters = absent()
    data: Annotated[Data, Field(description="Row by row, flat or nested as the shape.")] = absent()


class OutputParameters(Model):
    binary_data: Annotated[bool, Field(description="Whether it comes as bytes behind the JSON.")] = absent()
    classification: Annotated[
        int, Field(ge=0, description="Only so many of the best classes, as text: `0.91:9:Ankle boot`.")
    ] = absent()


class RequestedOutput(Model):
    name: str
    parameters: OutputParameters = absent()


class InferRequest(Model):
    """A tensor an input; which outputs are wanted, else all; and how the answer is to be made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]},
                {
                    "id": "42",
                    "parameters": {"strategy": "weighted", "weights": "m1:0.7,m2:0.3", "members": "m1,m2"},
                    "inputs": [{"name": "X", "shape": [1, 4], "datatype": "INT32", "data": [[5, 3, 1, 0]]}],
                    "outputs": [{"name": "probabilities"}, {"name": "label"}],
                },
            ]
        }
    )

    id: Annotated[str, Field(max_length=MAX_ID_LENGTH, description="Comes back.")] = absent()
    parameters: InferParameters = absent()
    inputs: Annotated[list[InferInput], Field(min_length=1)]
    outputs: Annotated[list[RequestedOutput], Field(description="None, or an empty array: all.")] = absent()
    model_name: Annotated[str, Field(description="Has no meaning: the path says it.")] = absent()
    model_version: Annotated[str, Field(description="Has no meaning: the path says it.")] = absent()


class InferOutput(Model):
    name: str
    shape: Shape
    datatype: Datatype
    parameters: Annotated[dict[str, Any], Field(description="`binary_data_size`, if it comes as bytes.")] = absent()
    data: Annotated[list[Value], Field(description="Flat, row by row; null where a member was not asked.")] = absent()


class InferResponse(Model):
    """The outputs, in the order in which they were asked for."""

    model_name: str
    model_version: str
    id: Annotated[str, Field(description="The request's, if it had one.")] = absent()
    parameters: Annotated[
        dict[str, bool | str],
        Field(description="Of an ensemble: `strategy`, `members` and their weights, `degraded`, and who is `missing`."),
    ] = absent()
    outputs: list[InferOutput]
