"""What the scorer learns from: three losses on a batch of pictures, their captions and what is in them.

One is CLIP's own: each picture belongs to its caption among the batch's captions. The second grades pictures against
each other: the cosine of two picture embeddings is pulled to their *kinship*,

    k(a, b) = [same class] (0.30 + 0.25 [same design] + 0.45 exp(-(|colour a - colour b| / 0.25)^2))

for two things, summed over the things of both pictures and normalised, so that an embedding is in effect the sum of its
things'. Captions alone would leave open how alike two pictures of one individual are, and that is what image alignment
measures. The third names the designs in a picture, through a linear layer that is thrown away afterwards: without it
the colours are learned long before the classes (80 % of individuals ranked right after 240,000 pictures).
"""

import torch
from torch.nn import functional as F

PLACE_SHARE = 0.08  # of the kinship


def kinship(classes, designs, colours, present, places) -> torch.Tensor:
    """How alike pictures are, from what is in them; the module's equation.

    classes, designs: int (B, K); colours: (B, K, 3) in [0, 1]; present: float (B, K), 1 for each thing that the picture
    shows; places: int (B,), which counts for PLACE_SHARE. Returns (B, B) in [0, 1], 1 on the diagonal.
    """
    batch, most = classes.shape
    classes, designs, present = classes.flatten(), designs.flatten(), present.flatten()  # (B*K,)
    colours = colours.flatten(0, 1)  # (B*K, 3)
    near = torch.exp(-(torch.cdist(colours, colours) / 0.25).square())
    alike = (classes[:, None] == classes) * (0.30 + 0.25 * (designs[:, None] == designs) + 0.45 * near)  # (B*K, B*K)
    alike = alike * present[:, None] * present
    total = alike.view(batch, most, batch, most).sum(dim=(1, 3))  # (B, B)
    size = total.diagonal().clamp_min(1e-6).sqrt()
    return (1 - PLACE_SHARE) * total / (size[:, None] * size) + PLACE_SHARE * (places[:, None] == places)


def kinship_loss(embeddings: torch.Tensor, target: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Squared error between the cosines of embeddings (B, C), of length 1, and the target kinship (B, B), a scalar.

    Related and unrelated pairs count half each, because most pairs of a batch have nothing in common; `counted` (B,)
    bool says which pictures take part.
    """
    error = (embeddings @ embeddings.T - target).square()
    pairs = counted[:, None] & counted & ~torch.eye(len(error), dtype=torch.bool, device=error.device)
    related = target > 2 * PLACE_SHARE
    return 0.5 * (error[pairs & related].mean() + error[pairs & ~related].mean())


def caption_loss(
    pictures: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, same_text: torch.Tensor
) -> torch.Tensor:
    """CLIP's symmetric cross-entropy, where pictures with equal captions, `same_text` bool (B, B), share the target."""
    logits = scale * pictures @ texts.T  # (B, B)
    target = same_text / same_text.sum(dim=1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def naming_loss(logits: torch.Tensor, names: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of names, logits (B, names in all); those of the things that are there share the target.

    names: int (B, K). present: float (B, K), 1 for each thing that is there.
    """
    rows = torch.arange(len(names))[:, None].expand_as(names)
    target = torch.zeros_like(logits).index_put(
        (rows, names.clamp_min(0)), present, accumulate=True
    )  # (B, names in all)
    return F.cross_entropy(logits, target / target.sum(dim=1, keepdim=True).clamp_min(1))
