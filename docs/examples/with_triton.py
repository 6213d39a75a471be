"""Ask the shipped ensemble by Triton's clients, over REST, with tensors as JSON and as bytes, and over gRPC.

pip install 'tritonclient[http,grpc]'
python docs/examples/with_triton.py [127.0.0.1:8000 127.0.0.1:8001]
"""

import json
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as rpc
import tritonclient.http as http

ROWS = np.array(json.loads(Path(__file__).with_name("three-rows.json").read_text())["instances"], np.uint8)
WEIGHTED = {"strategy": "weighted", "weights": "cnn:0.6,cnn_seed:0.1,compact:0.3"}


def image(of, **form):
    return of.InferInput("image", list(ROWS.shape), "UINT8").set_data_from_numpy(ROWS, **form)


def show(over, answer, members):
    labels = [label.decode() if isinstance(label, bytes) else label for label in answer.as_numpy("label")]
    best = zip(labels, answer.as_numpy("probabilities").max(axis=1), strict=True)
    print(f"{over}: {', '.join(f'{label} {share:.4f}' for label, share in best)}; by {members}")


def over_rest(address):
    with http.InferenceServerClient(address) as client:
        print(f"REST: live {client.is_server_live()}, ready {client.is_server_ready()}")
        [tensor] = client.get_model_metadata("fashion")["inputs"]
        print(f"REST: fashion ready {client.is_model_ready('fashion')}, of {tensor['name']} {tensor['shape']}")
        for binary in (False, True):
            wanted = [http.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")]
            inputs = [image(http, binary_data=binary)]
            answer = client.infer("fashion", inputs, outputs=wanted, request_id="42", parameters=WEIGHTED)
            said = answer.get_response()
            show(f"REST, {'binary' if binary else 'JSON'}, {said['id']}", answer, said["parameters"]["members"])


def over_grpc(address):
    with rpc.InferenceServerClient(address) as client:
        print(f"gRPC: live {client.is_server_live()}, ready {client.is_server_ready()}")
        [tensor] = client.get_model_metadata("fashion").inputs
        print(f"gRPC: fashion ready {client.is_model_ready('fashion')}, of {tensor.name} {list(tensor.shape)}")
        wanted = [rpc.InferRequestedOutput(name) for name in ("label", "probabilities")]
        answer = client.infer("fashion", [image(rpc)], outputs=wanted, request_id="42", parameters=WEIGHTED)
        said = answer.get_response()
        show(f"gRPC, binary, {said.id}", answer, said.parameters["members"].string_param)


def main(rest="127.0.0.1:8000", grpc="127.0.0.1:8001"):
    over_rest(rest)
    over_grpc(grpc)


main(*sys.argv[1:])
