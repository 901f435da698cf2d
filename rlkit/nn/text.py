"""The encoder `text`: a row of bytes, its words one after the other through gated recurrent units.

A word is a run of bytes between blanks. Its two hashes h_1, h_2 name rows of two tables, and their sum stands for it
(Serra and Karatzoglou, "Getting deep recommenders fit", 2017): no vocabulary is needed, and two words look alike only
where both hashes are the same, one pair in a million.

    h(word) = sum_i (byte_i + 1) p^i        e(word) = W_1[h mod 1021] + W_2[h mod 1031]
    s_j = GRU(e(word_j), s_{j-1})           features = the last s
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
from rlkit.nn.encoders import Encoder
from rlkit.nn.lookup import lookup
from rlkit.nn.recurrent import GRU
from rlkit.nn.registry import encoder
from rlkit.spaces import Box, Space

TABLES = (1021, 1031)  # rows of each; primes
BASE = 1_000_003  # p
EMBEDDING, FEATURES = 32, 64
BLANK = 32  # bytes up to this one are no part of a word


@encoder("text")
def text(space: Space, stack: int, config: NetworkConfig) -> Encoder:
    """32 learned numbers a word, 64 gated recurrent units."""
    if not isinstance(space, Box) or space.dtype != "uint8" or len(space.shape) != 1:
        given = f"a Box{space.shape} of {space.dtype}" if isinstance(space, Box) else type(space).__name__
        raise ValueError(
            f"encoder text reads rows of bytes, uint8 of shape (L,); got {given}: use mlp (network.encoder=mlp)"
        )
    return Text(space.shape[0], stack, config)


class Text(Encoder):
    """Rows of L bytes. There is room for L / 4 words (at least 4); earlier ones of a longer text are read as one."""

    powers: Tensor
    moduli: Tensor
    offset: Tensor

    def __init__(self, length: int, stack: int, config: NetworkConfig) -> None:
        super().__init__()
        self.length, self.stack = length, stack
        self.words = max(length * stack // 4, 4)
        self.table = nn.Parameter(torch.randn(sum(TABLES), EMBEDDING) / 2**0.5)
        self.gru = GRU(EMBEDDING, replace(config, core_size=FEATURES, core_layers=1))
        self.features = FEATURES
        powers = [1]
        while len(powers) < length * stack:
            powers.append(powers[-1] * BASE % (2**31 - 1))
        self.register_buffer("powers", torch.tensor(powers), persistent=False)
        self.register_buffer("moduli", torch.tensor(TABLES), persistent=False)
        self.register_buffer("offset", torch.tensor([0, TABLES[0]]), persistent=False)

    def hashes(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """[B, L] uint8 -> the words' hashes [B, W], the last word last; how many words there are [B]."""
        letter = rows > BLANK
        before = torch.cat([torch.zeros_like(letter[:, :1]), letter[:, :-1]], 1)
        opens = (letter & ~before).long()  # [B, L] 1 at the first byte of a word
        word = opens.cumsum(1)  # [B, L] the number of its word, from 1
        count = word[:, -1]
        place = torch.arange(rows.shape[1], device=rows.device)
        start = (opens * place).cummax(1).values  # [B, L] where its word begins
        value = (rows.long() + 1) * self.powers[place - start] * letter
        slot = (self.words - 1 - count[:, None] + word).clamp(
            min=0
        )  # the first words of too many share a slot
        hashed = torch.zeros(len(rows), self.words, dtype=torch.long, device=rows.device)
        return hashed.scatter_add(1, slot, value), count

    def forward(self, obs: Tensor) -> Tensor:
        """uint8 [B, L] -> [B, features]; a stack of k rows is read as one text of k L bytes."""
        hashed, count = self.hashes(obs.flatten(1))
        index = hashed.t()[..., None] % self.moduli + self.offset  # [W, B, 2]
        x = lookup(index.flatten(0, 1), self.table).view(self.words, -1, EMBEDDING)
        # what stands before the first word is forgotten, as at the start of an episode
        slots = torch.arange(self.words, device=obs.device)[:, None]
        y: Tensor = self.gru(x, slots <= self.words - count, self.gru.initial_state(len(obs), obs.device))[0]
        return y[-1]
