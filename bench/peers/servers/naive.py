"""What one writes by hand: FastAPI, pydantic, and the sessions in turn."""

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

from bench.peers.servers.members import Members

app = FastAPI()
members = Members()


class Request(BaseModel):
    instances: list[list[float]]


@app.post("/predict")
async def predict(request: Request) -> dict[str, list[list[float]]]:
    """On the event loop: handing so little work to another thread costs more than it gives."""
    return {"probabilities": members(np.array(request.instances, dtype=np.float32)).tolist()}
