"""A small convolutional network for 8 x 8 pictures of digits."""

from torch import Tensor, nn


class DigitNet(nn.Module):
    """Pixels from 0 to 16, shape (rows, 64), to the logits of the ten digits, shape (rows, 10)."""

    def __init__(self, channels: int, hidden_size: int, dropout_rate: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, channels, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(channels * 16, hidden_size),
            nn.ReLU(),
            nn.Dropout(dropout_rate),
            nn.Linear(hidden_size, 10),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Run the network."""
        logits: Tensor = self.layers(pixels / 16)
        return logits
