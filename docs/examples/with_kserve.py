"""Ask the shipped ensemble by KServe's clients, over REST and gRPC, with tensors as JSON, or typed lists, and as bytes.

pip install kserve
python docs/examples/with_kserve.py [127.0.0.1:8000 127.0.0.1:8001]
"""

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput, to_http_parameters

ROWS = np.array(json.loads(Path(__file__).with_name("three-rows.json").read_text())["instances"], np.uint8)


WEIGHTED = {"strategy": "weighted", "weights": "cnn:0.6,cnn_seed:0.1,compact:0.3"}


def request(binary):
    image = InferInput("image", list(ROWS.shape), "UINT8")
    image.set_data_from_numpy(ROWS, binary_data=binary)
    outputs = [RequestedOutput("label"), RequestedOutput("probabilities")]
    parameters = {**WEIGHTED, "binary_data_output": binary}
    return InferRequest("fashion", [image], request_id="42", request_outputs=outputs, parameters=parameters)


def show(over, answer):
    labels, shares = (answer.get_output_by_name(name).as_numpy() for name in ("label", "probabilities"))
    texts = [label.decode() if isinstance(label, bytes) else label for label in labels]
    best = zip(texts, shares.max(axis=1), strict=True)
    members = to_http_parameters(answer.parameters)["members"]
    print(f"{over}, {answer.id}: {', '.join(f'{label} {share:.4f}' for label, share in best)}; by {members}")


async def over_rest(url):
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        print(f"REST: live {await client.is_server_live(url)}, ready {await client.is_server_ready(url)}")
        print(f"REST: fashion ready {await client.is_model_ready(url, 'fashion')}")
        for binary in (False, True):
            answer = await client.infer(url, request(binary), model_name="fashion")
            show(f"REST, {'binary' if binary else 'JSON'}", answer)


async def over_grpc(address):
    async with InferenceGRPCClient(address) as client:
        print(f"gRPC: live {await client.is_server_live()}, ready {await client.is_server_ready()}")
        print(f"gRPC: fashion ready {await client.is_model_ready('fashion')}")
        for binary in (False, True):
            show(f"gRPC, {'binary' if binary else 'lists'}", await client.infer(request(binary)))


async def main(rest="127.0.0.1:8000", grpc="127.0.0.1:8001"):
    await over_rest(f"http://{rest}")
    await over_grpc(grpc)


asyncio.run(main(*sys.argv[1:]))
