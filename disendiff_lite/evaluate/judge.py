"""The judge: a small network that says what is in a 64 px picture of the emoji world, so that claims can be counted.

For every cell of an 8x8 grid it says which design covers it, in which colour, wearing what, and how large that object
is; for the whole picture, which place and style it shows. A class is the sum of its designs: they look alike in
themselves, which a class does not, and so they are learned far sooner. The names of all these lie beside its weights,
in labels.json. It is trained on renderings alone, by emoji_world.check.judge, and never saw a generated picture.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from disendiff_lite.support.errors import UserError
from disendiff_lite.support.files import read_json
from disendiff_lite.support.paths import JUDGE

SIDE, CELLS = 64, 8  # of a picture, pixels; of the grid
SIZE_UNIT = 32.0  # pixels
LABELS = "labels.json"
# Beside an object of ordinary size (26 to 34 px), what counts as small or big: half way to the sizes of the words.
SMALL_BELOW, BIG_ABOVE = 24.5, 37.0  # pixels


@dataclass(frozen=True)
class Labels:
    """What the judge's numbers stand for, in their order.

    designs: the class of each design. classes, colours, accessories ("" for none), places, styles ("" for a photo).
    """

    designs: tuple[str, ...]
    classes: tuple[str, ...]
    colours: tuple[str, ...]
    accessories: tuple[str, ...]
    places: tuple[str, ...]
    styles: tuple[str, ...]

    @property
    def cell_split(self) -> tuple[int, int, int, int]:
        """Numbers of a cell: of its design ("no object" is the last), its colour, what it wears, log2 size."""
        return len(self.designs) + 1, len(self.colours), len(self.accessories), 1

    @property
    def picture_split(self) -> tuple[int, int]:
        """Numbers of a picture: of its place and its style."""
        return len(self.places), len(self.styles)


@dataclass(frozen=True)
class Findings:
    """What the judge sees in B pictures, for C classes in the order of `classes`."""

    classes: tuple[str, ...]
    cells: np.ndarray  # (B, 8, 8): index of the class that a cell most likely shows, C for none
    designs: np.ndarray  # (B, C): index of the likeliest design of that class
    colours: np.ndarray  # (B, C): index of the word nearest to that object's colour
    accessories: np.ndarray  # (B, C): index of what it wears
    sizes: np.ndarray  # (B, C): longest side, pixels
    places: np.ndarray  # (B,): index of the place
    styles: np.ndarray  # (B,): index of the style

    def shows(self, class_: str, least: float = 1.0) -> np.ndarray:
        """Whether a class covers at least `least` cells of 8x8 px, bool (B,)."""
        return (self.cells == self.classes.index(class_)).sum(axis=(1, 2)) >= least


class Judge(nn.Module):
    """Convolutions down to 4x4 cells, where it knows what is there, and up again to 8x8, where it says where."""

    def __init__(self, labels: Labels):
        super().__init__()
        self.labels = labels
        self.stem = nn.Sequential(*_convolution(3, 24, 3, 2), nn.ReLU())  # 32x32
        self.fine = _halve(24, 48, 1)  # 16x16
        self.middle = _halve(48, 96, 2)  # 8x8
        self.coarse = _halve(96, 192, 2)  # 4x4
        self.up = nn.Sequential(*_convolution(192 + 96, 160, 1), nn.ReLU(), _Residual(160))
        self.cells = nn.Conv2d(160, sum(labels.cell_split), 1)
        self.picture = nn.Linear(192 + 96 + 48, sum(labels.picture_split))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures (B, 3, 64, 64) in [-1, 1] -> logits (B, sum(cell_split), 8, 8) and (B, sum(picture_split))."""
        fine = self.fine(self.stem(x))  # (B, 48, 16, 16)
        middle = self.middle(fine)  # (B, 96, 8, 8)
        coarse = self.coarse(middle)  # (B, 192, 4, 4)
        whole = torch.cat([level.mean(dim=(2, 3)) for level in (coarse, middle, fine)], dim=1)
        up = self.up(torch.cat([F.interpolate(coarse, scale_factor=2), middle], dim=1))  # (B, 160, 8, 8)
        return self.cells(up), self.picture(whole)


def load_judge(path: Path = JUDGE) -> Judge:
    """The trained judge, in float32, in eval mode. Raises UserError if there is no such file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no judge {path}: train it with python -m disendiff_lite.emoji_world.check.judge.")
    names = read_json(path.with_name(LABELS), "is damaged: restore it from the repository.")
    judge = Judge(Labels(**{kind: tuple(words) for kind, words in names.items()}))
    judge.load_state_dict(load_file(path))
    return judge.eval()


@torch.no_grad()
def judge_pictures(judge: Judge, pictures: np.ndarray) -> Findings:
    """What the judge sees in pictures, uint8 (B, 64, 64, 3)."""
    labels = judge.labels
    nothing, classes = len(labels.designs), labels.classes
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1  # (B, 3, 64, 64)
    cells, picture = (torch.cat(parts) for parts in zip(*map(judge, x.split(64))))
    design, colour, worn, size = cells.flatten(2).split(labels.cell_split, dim=1)  # (B, ..., 64)
    belongs = torch.tensor([[float(owner == name) for owner in labels.designs] for name in classes])  # (C, designs)
    likely = design.softmax(dim=1)  # (B, designs + 1, 64)
    share = belongs @ likely[:, :nothing]  # (B, C, 64)
    best = torch.cat([share, likely[:, nothing:]], dim=1).argmax(dim=1)  # (B, 64)

    def vote(values: torch.Tensor) -> torch.Tensor:
        # Each cell says what it sees, (B, V, 64), as far as it belongs to the class: (B, C, V).
        return (share @ values.transpose(1, 2)) / share.sum(dim=2, keepdim=True).clamp_min(1e-6)

    of_class = belongs * likely[:, None, :nothing].sum(dim=3)  # (B, C, designs)
    place, style = picture.split(labels.picture_split, dim=1)
    return Findings(
        classes,
        best.unflatten(1, (CELLS, CELLS)).numpy(),
        of_class.argmax(dim=2).numpy(),
        vote(colour.log_softmax(dim=1)).argmax(dim=2).numpy(),
        vote(worn.log_softmax(dim=1)).argmax(dim=2).numpy(),
        SIZE_UNIT * vote(size)[..., 0].exp2().numpy(),
        place.argmax(dim=1).numpy(),
        style.argmax(dim=1).numpy(),
    )


def _convolution(inputs: int, outputs: int, side: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False), nn.BatchNorm2d(outputs)]


def _halve(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(inputs, outputs, 3, 2), nn.ReLU(), *(_Residual(outputs) for _ in range(depth)))


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(*_convolution(channels, channels, 3), nn.ReLU(), *_convolution(channels, channels, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.body(x))
