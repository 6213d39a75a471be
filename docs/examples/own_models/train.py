"""Three models that know nothing of Committee, on scikit-learn's 569 breast tumours: 30 numbers each, two classes.

`python train.py` writes forest.skops, net.keras and boosted.json; valid.npz, the half of the rows that none of them has
seen; and row.json, a request about the one of these that the forest is least sure of.
"""

import json
from pathlib import Path

import keras
import numpy as np
import skops.io
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from xgboost import XGBClassifier

data = load_breast_cancer()
x_train, x_valid, y_train, y_valid = train_test_split(
    data.data.astype("float32"), data.target, test_size=0.5, stratify=data.target, random_state=0
)

forest = RandomForestClassifier(n_estimators=100, random_state=0).fit(x_train, y_train)
skops.io.dump(forest, "forest.skops")

boosted = XGBClassifier(n_estimators=50, max_depth=3).fit(x_train, y_train)
boosted.save_model("boosted.json")

keras.utils.set_random_seed(0)
scale = keras.layers.Normalization()
scale.adapt(x_train)
net = keras.Sequential(
    [
        keras.Input([30]),
        scale,
        keras.layers.Dense(16, activation="relu"),
        keras.layers.Dense(2, activation="softmax"),
    ]
)
net.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
net.fit(x_train, y_train, epochs=15, batch_size=16, verbose=0)
net.save("net.keras")

np.savez("valid.npz", x=x_valid, y=y_valid, classes=data.target_names)
hardest = forest.predict_proba(x_valid).max(axis=1).argmin()
Path("row.json").write_text(json.dumps({"instances": [x_valid[hardest].tolist()]}))
