"""The options of a network (torch-free, so that a typing error is found before torch is loaded)."""

from __future__ import annotations

from dataclasses import dataclass

from rlkit.options import option


@dataclass(frozen=True)
class NetworkConfig:
    """Encoder -> core -> heads."""

    name: str = "auto"
    encoder: str = option(
        "auto",
        choices=("auto", "mlp", "nature_cnn", "impala", "small_cnn"),
        help="what reads an observation; auto: nature_cnn or small_cnn for images, mlp for the rest",
    )
    core: str = option("identity", choices=("identity",), help="what remembers; identity: nothing")
    hidden: tuple[int, ...] = option((64, 64), min=1, help="widths of the layers of the mlp encoder")
    activation: str = option(
        "tanh", choices=("tanh", "relu", "silu", "gelu"), help="between those layers (convolutions use relu)"
    )
    shared: bool | None = option(
        None, help="policy and value read the same trunk; null: shared for pixels, apart for numbers"
    )
    normalise: bool = option(False, help="scale observations by their running mean and deviation")
