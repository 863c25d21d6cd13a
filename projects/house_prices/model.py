"""The house price model: raw columns of a sale in, dollars out."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from mlflow.pyfunc import PythonModel
from torch import Tensor, nn

NUMBERS = ["lotsize", "bedrooms", "bathrooms", "stories", "garage"]
ANSWERS = ["driveway", "recreation", "fullbase", "gasheat", "aircon", "prefer"]
FEATURES = NUMBERS + ANSWERS


def encode(sales: pd.DataFrame) -> Tensor:
    """Return floats of shape (rows, features): the lot size as its logarithm, yes/no as 1/0."""
    answers = sales[ANSWERS]
    if not answers.isin(["yes", "no"]).all(axis=None):
        raise ValueError(f"The columns {', '.join(ANSWERS)} must hold 'yes' or 'no'.")
    numbers = sales[NUMBERS].assign(lotsize=np.log(sales["lotsize"]))
    values = np.hstack([numbers, answers == "yes"]).astype(np.float32)
    return torch.from_numpy(values)


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of each column, learnt from the training rows alone."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Self:
        """Learn the scale of `values`, shape (rows, columns)."""
        return cls(values.mean(dim=0), values.std(dim=0))

    def apply(self, values: Tensor) -> Tensor:
        """Bring `values` to mean 0 and standard deviation 1."""
        return (values - self.mean) / self.std

    def undo(self, values: Tensor) -> Tensor:
        """Bring scaled `values` back to where they came from."""
        return values * self.std + self.mean


class PriceNet(nn.Module):
    """Scaled features, shape (rows, features), to the scaled logarithm of the price, (rows, 1)."""

    def __init__(self, hidden_size: int, dropout_rate: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(len(FEATURES), hidden_size),
            nn.ReLU(),
            nn.Dropout(dropout_rate),
            nn.Linear(hidden_size, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Run the network."""
        prices: Tensor = self.layers(features)
        return prices


class HousePriceModel(PythonModel):
    """Predicts sale prices from rows of the CSV as they are; the scales travel inside."""

    def __init__(self, network: PriceNet, features: Scale, prices: Scale) -> None:
        self.network = network
        self.features = features
        self.prices = prices

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> np.ndarray:
        """Return the prices in dollars, shape (rows,)."""
        device = next(self.network.parameters()).device
        inputs = self.features.apply(encode(model_input)).to(device)
        with torch.inference_mode():
            scaled = self.network.eval()(inputs).cpu()
        return self.prices.undo(scaled).exp().squeeze(1).numpy()
