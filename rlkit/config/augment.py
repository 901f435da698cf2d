"""How the pictures of a batch are changed at random (rlkit.perception.augment)."""

from __future__ import annotations

from dataclasses import dataclass

from rlkit.options import option


@dataclass(frozen=True)
class AugmentConfig:
    """How pictures are changed at random while a model learns from them, each row in its own way."""

    shift: int = option(
        0, min=0, help="Pixels that a picture is moved by at most, each way; its border is repeated"
    )
    crop: float = option(
        1.0, above=0, max=1, help="The smallest share of a picture's sides that is cut out and enlarged"
    )
    flip: bool = option(False, help="Mirror half of the pictures, left to right")
    mirrored: tuple[int, ...] = option(
        (), min=0, help="Components of the label whose sign changes in a mirrored picture, such as steering"
    )
    cutout: int = option(0, min=0, help="The side of a square that is black, in pixels, at a random place")
    gain: float = option(0.0, min=0, below=1, help="Brightness is multiplied by 1 - gain to 1 + gain")

    colours: bool = option(False, help="Exchange the three colour channels at random, in one of six ways")

    @property
    def moves(self) -> bool:
        """Whether pixels change their places."""
        return bool(self.shift or self.crop < 1 or self.flip)

    @property
    def active(self) -> bool:
        """Whether any picture is changed."""
        return bool(self.moves or self.cutout or self.gain or self.colours)
