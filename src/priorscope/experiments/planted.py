"""Handwritten digits on photographed textures: the digit is the label, and mostly the background tells it, too.

Training pictures take their backgrounds from the left half of a photograph and new ones from its right half; digits of
new pictures stand in no training picture. In new pictures the background is that of the other label.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data.named import named
from ..data.pictures import photograph

SIDE, EDGE = 16, 4
"""Of a picture; and how many pixels of background there are around the digit."""
MIDDLE = 0.45
"""Subtracted from all pixels, which lie in [0, 1]."""
DIGITS = (3, 8)
"""Of the labels +1 and −1."""


@dataclass(frozen=True, eq=False)
class Planted:
    """Pictures, and which of them are for what.

    x: (n, 1, 16, 16). object, background: (n,), ±1, what each tells. numbers: (n,), which of the data set's pictures of
    its digit each shows. places: (n, 2), where in the photograph the background lies.
    agreeing, disagreeing: training rows whose background tells the label, or the other one; labels alternate.
    new: rows to ask, all disagreeing.
    """

    x: Float[Tensor, "n 1 h w"]
    object: Float[Tensor, " n"]
    background: Float[Tensor, " n"]
    numbers: Int[Tensor, " n"]
    places: Int[Tensor, "n 2"]
    agreeing: Int[Tensor, " a"]
    disagreeing: Int[Tensor, " d"]
    new: Int[Tensor, " m"]

    def train(self, predictivity: float) -> Int[Tensor, " a"]:
        """As many rows as agree, a share of them replaced by rows that disagree, as many of each label."""
        wrong = 2 * round((1 - predictivity) * len(self.agreeing) / 2)
        return torch.cat([self.agreeing[: len(self.agreeing) - wrong], self.disagreeing[:wrong]])


def planted(textures: tuple[str, str], agreeing: int, disagreeing: int, new: int, seed: int) -> Planted:
    """So many pictures of each kind, half of them of each label.

    Args:
        textures: names of photographs, whose backgrounds tell +1 and −1.
    """
    generator = torch.Generator().manual_seed(seed)
    digits, count = named("digits"), agreeing + disagreeing + new
    grey = [photograph(name).to(torch.float64).mean(0) / 255 for name in textures]
    label = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(count // 2)
    kinds = torch.arange(count).split([agreeing, disagreeing, new])
    background = label.clone()
    background[torch.cat(kinds[1:])] *= -1
    numbers = torch.arange(count) // 2
    images, places = [], []
    for i in range(count):
        photo = grey[0 if background[i] > 0 else 1]
        height, half = photo.shape[0], photo.shape[1] // 2
        row = int(torch.randint(height - SIDE, (), generator=generator))
        column = int(torch.randint(half - SIDE, (), generator=generator)) + (half if i >= agreeing + disagreeing else 0)
        patch = photo[row : row + SIDE, column : column + SIDE].clone()
        of_class = digits.x[digits.y == DIGITS[0 if label[i] > 0 else 1]]
        strokes = of_class[numbers[i], 0] / 16
        inner = patch[EDGE:-EDGE, EDGE:-EDGE]
        patch[EDGE:-EDGE, EDGE:-EDGE] = torch.maximum(inner * (1 - strokes), strokes)
        images.append(patch[None] - MIDDLE)
        places.append((row, column))
    return Planted(torch.stack(images), label, background, numbers, torch.tensor(places), *kinds)
