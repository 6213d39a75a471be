"""XGBoost and LightGBM: their objectives, boosters and what else changes the file they save."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.case import Case, Data, Training

XGBOOST = "XGBoost"
LIGHTGBM = "LightGBM"

XGBOOST_SETTINGS: Mapping[str, tuple[Data, Mapping[str, Any]]] = {
    "multi:softprob": ("flowers", {"objective": "multi:softprob"}),
    "multi:softmax": ("flowers", {"objective": "multi:softmax"}),
    "binary:logistic": ("two flowers", {"objective": "binary:logistic"}),
    "binary:logitraw": ("two flowers", {"objective": "binary:logitraw"}),
    "binary:hinge": ("two flowers", {"objective": "binary:hinge"}),
    "gbtree, values missing": ("gaps", {}),
    "dart": ("flowers", {"booster": "dart", "rate_drop": 0.5}),
    "dart, of two classes": ("two flowers", {"booster": "dart", "rate_drop": 0.5}),
    "gblinear": ("flowers", {"booster": "gblinear"}),
    "gblinear, of two classes": ("two flowers", {"booster": "gblinear"}),
    "base_score=0.2, of two classes": ("two flowers", {"base_score": 0.2}),
    "base_score=0.2": ("flowers", {"base_score": 0.2}),
    "grow_policy=lossguide": ("flowers", {"grow_policy": "lossguide", "max_leaves": 5}),
    "num_parallel_tree=3": ("flowers", {"num_parallel_tree": 3, "subsample": 0.5}),
    "max_depth=1": ("flowers", {"max_depth": 1}),
    "multi_strategy=multi_output_tree": ("flowers", {"multi_strategy": "multi_output_tree"}),
    "early_stopping_rounds": ("digits", {"early_stopping_rounds": 1, "n_estimators": 40, "learning_rate": 1.0}),
    "digits": ("digits", {}),
    "tree_method=exact": ("flowers", {"tree_method": "exact"}),
}
LIGHTGBM_SETTINGS: Mapping[str, tuple[Data, Mapping[str, Any]]] = {
    "multiclass": ("flowers", {"objective": "multiclass"}),
    "multiclassova": ("flowers", {"objective": "multiclassova"}),
    "binary": ("two flowers", {"objective": "binary"}),
    "binary, is_unbalance": ("two flowers", {"objective": "binary", "is_unbalance": True}),
    "cross_entropy": ("two flowers", {"objective": "cross_entropy"}),
    "gbdt, values missing": ("gaps", {}),
    "gbdt, zero_as_missing": ("counts", {"zero_as_missing": True}),
    "dart": ("flowers", {"boosting_type": "dart", "drop_rate": 0.5}),
    "rf": ("flowers", {"boosting_type": "rf", "subsample": 0.5, "subsample_freq": 1}),
    "rf, of two classes": ("two flowers", {"boosting_type": "rf", "subsample": 0.5, "subsample_freq": 1}),
    "goss": ("digits", {"data_sample_strategy": "goss"}),
    "extra_trees": ("flowers", {"extra_trees": True}),
    "linear_tree": ("flowers", {"linear_tree": True}),
    "categorical_feature": ("counts", {"categorical_feature": [0, 2]}),
    "early_stopping": ("digits", {"early_stopping_round": 1, "n_estimators": 40, "learning_rate": 0.5}),
    "sigmoid=2": ("two flowers", {"objective": "binary", "sigmoid": 2.0}),
}


def boosting_cases() -> Iterator[Case]:
    for name, (data, settings) in XGBOOST_SETTINGS.items():
        yield Case(XGBOOST, name, data, partial(_save_xgboost, settings))
    for name, (data, settings) in LIGHTGBM_SETTINGS.items():
        yield Case(LIGHTGBM, name, data, partial(_save_lightgbm, settings))


def _save_xgboost(settings: Mapping[str, Any], training: Training, folder: Path) -> Path:
    import xgboost

    model = xgboost.XGBClassifier(**{"n_estimators": 8, "max_depth": 3, "random_state": 0} | dict(settings))
    x = _flat(training)
    held = {"eval_set": [(x[::2], training.y[::2])], "verbose": False} if "early_stopping_rounds" in settings else {}
    file = folder / "model.json"
    model.fit(x, training.y, **held).save_model(file)
    return file


def _save_lightgbm(settings: Mapping[str, Any], training: Training, folder: Path) -> Path:
    import lightgbm

    model = lightgbm.LGBMClassifier(
        **{"n_estimators": 8, "num_leaves": 7, "random_state": 0, "verbose": -1} | dict(settings)
    )
    x = _flat(training)
    held = {"eval_set": [(x[::2], training.y[::2])]} if "early_stopping_round" in settings else {}
    file = folder / "model.txt"
    model.fit(x, training.y, **held).booster_.save_model(file)
    return file


def _flat(training: Training) -> Any:
    return training.x.reshape(len(training.x), -1)
