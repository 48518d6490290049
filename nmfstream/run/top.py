"""`nmfstream top`: the features that weigh most in each component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nmfstream.errors import DataError
from nmfstream.model import Model
from nmfstream.types import Array


class Feature(NamedTuple):
    """A feature of a component.

    Attributes
    ----------
    column : int
        Column of H.
    name : str
    weight : float
        Entry of H.
    share : float
        Of the component's sum.
    """

    column: int
    name: str
    weight: float
    share: float


@dataclass(frozen=True)
class Component:
    """A component's strongest features, strongest first.

    Attributes
    ----------
    index : int
        Row of H.
    total : float
        Sum of the row.
    features : tuple of Feature
    """

    index: int
    total: float
    features: tuple[Feature, ...]


def top(model: Model, n: int = 10, names: tuple[str, ...] | None = None) -> list[Component]:
    """The `n` strongest features of each component; entries that are zero are left out.

    Parameters
    ----------
    model : Model
    n : int
    names : tuple of str, optional
        In the place of the model's own feature names; without any, features are called by their number.

    Raises
    ------
    DataError
        If there are not as many names as features.
    """
    names = names if names is not None else model.feature_names
    if names is not None and len(names) != model.n_features:
        raise DataError(
            f"{len(names)} names for {model.n_features} features",
            where="feature names",
            hint="give one name a line, in the order of the columns",
        )
    return [_component(i, row, n, names) for i, row in enumerate(np.asarray(model.components, np.float64))]


def _component(index: int, row: Array, n: int, names: tuple[str, ...] | None) -> Component:
    total = float(row.sum())
    order = [int(j) for j in np.argsort(-row, kind="stable")[:n] if row[j] > 0]
    features = (Feature(j, names[j] if names else f"feature {j}", float(row[j]), float(row[j]) / total) for j in order)
    return Component(index, total, tuple(features))
