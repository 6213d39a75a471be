"""An ensemble for a regression, by hand: two regressors of scikit-learn's 442 diabetes patients, ten numbers each.

`python train.py` writes models/diabetes/1, which `committee-server` serves as it is; test.npz, the 100 rows that no
model has seen; and row.json, a request about the first of them.
"""

import json
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge

x, y = load_diabetes(return_X_y=True)
x = x.astype(np.float32)
folder = Path("models/diabetes/1")
folder.mkdir(parents=True)
for name, model in {"forest": RandomForestRegressor(200, random_state=0), "ridge": Ridge(alpha=0.01)}.items():
    graph = to_onnx(model.fit(x[100:], y[100:]), x[:1])
    (folder / f"{name}.onnx").write_bytes(graph.SerializeToString())
(folder / "ensemble.toml").write_text("""\
task = "regression"
targets = ["progression"]
default_strategy = "weighted"

[[members]]
file = "forest.onnx"
weights = { weighted = 1.0 }

[[members]]
file = "ridge.onnx"
weights = { weighted = 2.0 }
""")
Path("row.json").write_text(json.dumps({"instances": x[:1].astype(float).round(4).tolist()}))
np.savez("test.npz", x=x[:100], y=y[:100])
