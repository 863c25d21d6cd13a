"""The objective: train one network on the digits, report its accuracy after every epoch."""

from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Adam, Optimizer

import mltune
from model import DigitNet

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EPOCHS = 20  # ASHA in study.yaml decides after 1, 3 and 9 of them
SPLIT_SEED = 1998  # one split for every trial of every study


class Digits(NamedTuple):
    """Pixels, float32 of shape (rows, 64), and the digits they show, shape (rows,)."""

    pixels: Tensor
    labels: Tensor


def train(trial: mltune.Trial) -> dict[str, float]:
    """Train on 60 % of the pictures, choose by the next 20 %, measure on the rest."""
    torch.manual_seed(trial.seed)
    training, validation, test = split()
    params = trial.params
    network = DigitNet(params["channels"], params["hidden_size"], params["dropout_rate"]).to(DEVICE)
    optimizer = Adam(network.parameters(), lr=params["learning_rate"])
    for epoch in range(1, EPOCHS + 1):
        run_epoch(network, optimizer, training, params["batch_size"])
        trial.report(scores(network, validation, "val"), step=epoch)
    metrics = scores(network, validation, "val") | scores(network, test, "test")
    trial.log_model(network.cpu(), input_example=validation.pixels[:5].cpu().numpy())
    return metrics


def split() -> list[Digits]:
    """Return training, validation and test pictures, shuffled once and for all."""
    pixels, labels = load_digits(return_X_y=True)
    data = Digits(torch.tensor(pixels, dtype=torch.float32), torch.tensor(labels))
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    first, second = int(0.6 * len(labels)), int(0.8 * len(labels))
    parts = shuffled.tensor_split([first, second])
    return [Digits(data.pixels[rows].to(DEVICE), data.labels[rows].to(DEVICE)) for rows in parts]


def run_epoch(network: DigitNet, optimizer: Optimizer, data: Digits, batch_size: int) -> None:
    """Show the network every picture once."""
    network.train()
    for rows in torch.randperm(len(data.labels)).split(batch_size):
        optimizer.zero_grad()
        cross_entropy(network(data.pixels[rows]), data.labels[rows]).backward()
        optimizer.step()


def scores(network: DigitNet, data: Digits, part: str) -> dict[str, float]:
    """Return accuracy and mean cross-entropy on one part of the data."""
    with torch.inference_mode():
        logits = network.eval()(data.pixels)
    accuracy = (logits.argmax(dim=1) == data.labels).float().mean()
    loss = cross_entropy(logits, data.labels)
    return {f"{part}_accuracy": accuracy.item(), f"{part}_loss": loss.item()}
