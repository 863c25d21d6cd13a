"""The objective: train one house price network, report its error after every epoch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.optim import SGD, Adam, Optimizer

import mltune
from model import FEATURES, HousePriceModel, PriceNet, Scale, encode

DATA = Path(__file__).parent / "data" / "house_prices.csv"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EPOCHS = 12
SPLIT_SEED = 1987  # one split for every trial of every study


@dataclass(frozen=True)
class Settings:
    """The hyperparameters, with the values they have where a study does not search them."""

    hidden_size: int = 32
    learning_rate: float = 0.01
    dropout_rate: float = 0.1
    batch_size: int = 32
    optimizer: str = "adam"
    momentum: float = 0.0  # read by sgd only


def train(trial: mltune.Trial) -> dict[str, float]:
    """Train on 60 % of the sales, choose by the next 20 %, measure on the rest."""
    torch.manual_seed(trial.seed)
    settings = Settings(**trial.params)
    training, validation, test = split(pd.read_csv(DATA))
    model = untrained(training, settings)
    for epoch in epochs(model, training, settings):
        trial.report(scores(model, validation, "val"), step=epoch)
    model.network.cpu()
    trial.log_model(model, input_example=validation[FEATURES][:5])
    return scores(model, validation, "val") | scores(model, test, "test")


def split(sales: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return training, validation and test rows, shuffled once and for all."""
    shuffled = sales.sample(frac=1, random_state=SPLIT_SEED)
    first, second = int(0.6 * len(sales)), int(0.8 * len(sales))
    return shuffled[:first], shuffled[first:second], shuffled[second:]


def untrained(training: pd.DataFrame, settings: Settings) -> HousePriceModel:
    """Return a model that knows the scales of the training rows and nothing else yet."""
    network = PriceNet(settings.hidden_size, settings.dropout_rate).to(DEVICE)
    return HousePriceModel(network, Scale.of(encode(training)), Scale.of(log_prices(training)))


def epochs(model: HousePriceModel, training: pd.DataFrame, settings: Settings) -> Iterator[int]:
    """Train the model; yield the number of each epoch when it is done, from 1 on."""
    features = model.features.apply(encode(training)).to(DEVICE)
    prices = model.prices.apply(log_prices(training)).to(DEVICE)
    optimizer = make_optimizer(model.network, settings)
    for epoch in range(1, EPOCHS + 1):
        model.network.train()
        for rows in torch.randperm(len(features)).split(settings.batch_size):
            step(model.network, optimizer, features[rows], prices[rows])
        yield epoch


def make_optimizer(network: PriceNet, settings: Settings) -> Optimizer:
    """Return the optimizer that the settings name."""
    if settings.optimizer == "adam":
        return Adam(network.parameters(), lr=settings.learning_rate)
    return SGD(network.parameters(), lr=settings.learning_rate, momentum=settings.momentum)


def step(network: PriceNet, optimizer: Optimizer, features: Tensor, prices: Tensor) -> None:
    """Take one step of gradient descent on one batch."""
    optimizer.zero_grad()
    mse_loss(network(features), prices).backward()
    optimizer.step()


def log_prices(sales: pd.DataFrame) -> Tensor:
    """Return the logarithms of the prices, shape (rows, 1)."""
    return torch.tensor(sales["price"].to_numpy(), dtype=torch.float32).log().unsqueeze(1)


def scores(model: HousePriceModel, sales: pd.DataFrame, part: str) -> dict[str, float]:
    """Return the metrics of one part of the data: RMSE in dollars, and R²."""
    errors = sales["price"] - model.predict(None, sales)
    mean_square = float(errors.pow(2).mean())
    variance = float(sales["price"].var(ddof=0))
    return {f"{part}_rmse": mean_square**0.5, f"{part}_r2": 1 - mean_square / variance}
