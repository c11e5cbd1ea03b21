"""Train only the embedding rows of words in use, and put a word that nobody knows before the class words now and then.

Most of the 49,408 rows are never in a caption. One of these stands for every word that the model does not know: it gets
another random embedding each time it is used, so that the model learns to draw a class well behind any modifier token.
"""

import torch

RARE_WORD = "ktn"  # stands for any word the model does not know


class UsedRows:
    """Lets the text encoder train only the embedding rows of words in use; the other rows stay as they are.

    While installed, the encoder has a small table and token ids go through `compact` first.
    """

    def __init__(self, text_encoder, ids: torch.Tensor, rare_id: int):
        self.text_encoder = text_encoder
        self.full = text_encoder.get_input_embeddings()
        self.rows = torch.cat([ids.flatten(), torch.tensor([rare_id])]).unique()
        self.compact = torch.zeros(self.full.num_embeddings, dtype=torch.long)
        self.compact[self.rows] = torch.arange(len(self.rows))
        self.rare = int(self.compact[rare_id])
        self.small = torch.nn.Embedding(len(self.rows), self.full.embedding_dim).to(self.full.weight.device)
        self.small.weight.data.copy_(self.full.weight.data[self.rows])
        self.install()

    def install(self) -> None:
        """Give the encoder the small table."""
        self.text_encoder.set_input_embeddings(self.small)

    def restore(self) -> None:
        """Give the encoder its full table again, with the trained rows in their places."""
        kept = self.rows != self.rows[self.rare]
        self.full.weight.data[self.rows[kept]] = self.small.weight.data[kept]
        self.text_encoder.set_input_embeddings(self.full)

    def new_rare_word(self, generator: torch.Generator) -> None:
        """Give the rare word another random embedding, of the untrained rows' distribution."""
        signs = torch.randint(0, 2, (self.small.embedding_dim,), generator=generator) - 0.5
        self.small.weight.data[self.rare] = signs.to(self.small.weight)


def insert_before(ids: torch.Tensor, positions: torch.Tensor, word: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the token `word` before each class word; returns the ids, cut to (B, 77), and the moved positions (B, 3)."""
    new_ids, new_positions = ids.clone(), positions.clone()
    for row in range(len(ids)):
        tokens, places = ids[row].tolist(), positions[row]
        for place in sorted((int(p) for p in places if p > 0), reverse=True):
            tokens.insert(place, word)
        new_ids[row] = torch.tensor(tokens[: ids.shape[1]])
        shifts = [sum(0 < int(q) <= int(p) for q in places) for p in places]  # by the words put in before
        new_positions[row] = places + torch.tensor(shifts)
    return new_ids, new_positions
