"""scikit-learn: every classifier that it has, then the common transformers, each in a pipeline."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import skops.io
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators
from xgboost import XGBClassifier

from bench.case import Case, Data, Training

CLASSIFIERS = "scikit-learn classifiers"
PIPELINES = "scikit-learn pipelines"

INNER = {"estimator": LogisticRegression()}
NAMED = {"estimators": [("lr", LogisticRegression()), ("tree", DecisionTreeClassifier(max_depth=3))]}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "CalibratedClassifierCV": {"estimator": GaussianNB()},
    "GradientBoostingClassifier": {"n_estimators": 10},
    "HistGradientBoostingClassifier": {"max_iter": 10},
    "LogisticRegressionCV": {"Cs": 3, "cv": 2, "l1_ratios": (0,), "use_legacy_attributes": False},
    "MLPClassifier": {"max_iter": 50},
    "RandomForestClassifier": {"n_estimators": 10},
    "ExtraTreesClassifier": {"n_estimators": 10},
    "CategoricalNB": {"min_categories": 8},
    "ClassifierChain": INNER,
    "FixedThresholdClassifier": INNER,
    "MultiOutputClassifier": INNER,
    "OneVsOneClassifier": INNER,
    "OneVsRestClassifier": INNER,
    "OutputCodeClassifier": INNER,
    "SelfTrainingClassifier": INNER,
    "StackingClassifier": NAMED,
    "TunedThresholdClassifierCV": INNER,
    "VotingClassifier": NAMED | {"voting": "soft"},
    "RadiusNeighborsClassifier": {"radius": 5.0},
}
"""Of those that cannot be made without; the others train in a blink so."""
DATA: Mapping[str, Data] = {
    "BernoulliNB": "counts",
    "CategoricalNB": "counts",
    "ComplementNB": "counts",
    "MultinomialNB": "counts",
    "FixedThresholdClassifier": "two flowers",
    "TunedThresholdClassifierCV": "two flowers",
}
MORE: Mapping[str, tuple[Data, Any]] = {
    "CalibratedClassifierCV of an SVC": ("flowers", CalibratedClassifierCV(SVC(), ensemble=False)),
    "CalibratedClassifierCV of an XGBClassifier": ("flowers", CalibratedClassifierCV(XGBClassifier(n_estimators=5))),
    "GaussianProcessClassifier, of two classes": ("two flowers", GaussianProcessClassifier()),
    "SGDClassifier(loss='log_loss')": ("flowers", SGDClassifier(loss="log_loss")),
    "DecisionTreeClassifier, values missing": ("gaps", DecisionTreeClassifier()),
    "GridSearchCV of a RandomForestClassifier": (
        "flowers",
        GridSearchCV(RandomForestClassifier(n_estimators=5), {"max_depth": [2, 3]}, cv=2),
    ),
    "HistGradientBoostingClassifier, values missing": ("gaps", HistGradientBoostingClassifier(max_iter=5)),
    "RandomForestClassifier, values missing": ("gaps", RandomForestClassifier(n_estimators=5)),
    "VotingClassifier of an XGBClassifier": (
        "flowers",
        VotingClassifier([("xgb", XGBClassifier(n_estimators=5)), ("lr", LogisticRegression())], voting="soft"),
    ),
}
SEVERAL_TARGETS = frozenset({"ClassifierChain", "MultiOutputClassifier"})
TRANSFORMERS = (
    StandardScaler(),
    MinMaxScaler(),
    MaxAbsScaler(),
    RobustScaler(),
    Normalizer(),
    PowerTransformer(),
    QuantileTransformer(n_quantiles=20),
    PolynomialFeatures(),
    KBinsDiscretizer(n_bins=3, encode="onehot-dense", quantile_method="averaged_inverted_cdf"),
    PCA(2),
    SelectKBest(k=2),
)


def sklearn_cases() -> Iterator[Case]:
    for name, make in all_estimators(type_filter="classifier"):
        model = partial(make, **SETTINGS.get(name, {}))
        yield Case(CLASSIFIERS, name, DATA.get(name, "flowers"), partial(_save, model))
    for name, (data, model) in MORE.items():
        yield Case(CLASSIFIERS, name, data, partial(_save, partial(clone, model)))
    for transformer in TRANSFORMERS:
        pipeline = make_pipeline(transformer, LogisticRegression())
        yield Case(PIPELINES, type(transformer).__name__, "flowers", partial(_save, partial(clone, pipeline)))
    for name, (data, model) in _tables().items():
        yield Case(PIPELINES, name, data, partial(_save, partial(clone, model)))


def _tables() -> Mapping[str, tuple[Data, Any]]:
    """Pipelines over missing values, over columns of numbers and of text, and over sentences."""
    numbers, texts = ["age", "fare"], ["sex", "port"]
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    one_hot = make_column_transformer((scaled, numbers), (OneHotEncoder(handle_unknown="ignore"), texts))
    ordinal = make_column_transformer((scaled, numbers), (OrdinalEncoder(), texts))
    return {
        "SimpleImputer": ("gaps", make_pipeline(SimpleImputer(), LogisticRegression())),
        "SimpleImputer(add_indicator=True)": ("gaps", make_pipeline(SimpleImputer(add_indicator=True), GaussianNB())),
        "KNNImputer": ("gaps", make_pipeline(KNNImputer(), LogisticRegression())),
        "ColumnTransformer: scaled numbers, OneHotEncoder": ("people", make_pipeline(one_hot, LogisticRegression())),
        "ColumnTransformer: scaled numbers, OrdinalEncoder": (
            "people",
            make_pipeline(ordinal, RandomForestClassifier(n_estimators=5)),
        ),
        "CountVectorizer of a column of text": (
            "words",
            make_pipeline(make_column_transformer((CountVectorizer(), "text")), LogisticRegression()),
        ),
        "TfidfVectorizer of a column of text": (
            "words",
            make_pipeline(make_column_transformer((TfidfVectorizer(), "text")), LogisticRegression()),
        ),
    }


def _save(make: Callable[[], Any], training: Training, folder: Path) -> Path:
    model = make()
    names = model.get_params()
    if "random_state" in names:
        model.set_params(random_state=0)
    if type(model).__name__ in SEVERAL_TARGETS:
        model.fit(training.x, training.y[:, None])
    else:
        model.fit(training.x, training.y)
    file = folder / "model.skops"
    skops.io.dump(model, file)
    return file
