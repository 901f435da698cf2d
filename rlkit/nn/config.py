"""The options of a network (torch-free, so that a typing error is found before torch is loaded)."""

from __future__ import annotations

from dataclasses import dataclass

from rlkit.nn import registry
from rlkit.options import option


def encoders() -> list[str]:
    """What network.encoder can be, beside a function of one's own."""
    return ["auto", *registry.names("encoder")]


def cores() -> list[str]:
    """What network.core can be, beside a function of one's own."""
    return registry.names("core")


@dataclass(frozen=True)
class NetworkConfig:
    """Encoder -> core -> heads."""

    encoder: str = option(
        "auto",
        choices=encoders,
        own=True,
        help="What reads an observation; auto: nature_cnn or small_cnn for images, grid "
        "for codes, text for texts, mlp for the rest",
    )
    core: str = option(
        "identity",
        choices=cores,
        own=True,
        help="The recurrent part, which remembers earlier steps of the episode; identity: nothing",
    )
    core_size: int = option(64, min=1, help="The width of its hidden state and of its output")
    core_layers: int = option(1, min=1, max=1000, help="How many layers it has, each reading the one below")
    core_heads: int = option(
        4, min=1, help="How many attention heads core=transformer has; they divide core_size"
    )
    window: int = option(
        32, min=2, help="How many steps each layer of core=transformer reads, the newest included"
    )
    hidden: tuple[int, ...] = option((64, 64), min=1, help="The widths of the layers of the mlp encoder")
    activation: str = option(
        "tanh",
        choices=("tanh", "relu", "silu", "gelu"),
        help="The activation between those layers (convolutions use relu)",
    )
    shared: bool | None = option(
        None, help="Policy and value share encoder and core; null: shared for pixels, apart for numbers"
    )
    privileged: tuple[str, ...] = option(
        (),
        help="The entries of an observation that only the value function reads, in training: what an agent does not "
        "know when it is used; [state] with env.show_state=true",
    )
    normalize: bool = option(False, help="Scale observations by their running mean and standard deviation")
    standardize: bool = option(
        False,
        help="Numbers in standard units of a table's training rows, in place of normalize; missing ones (NaN) count as "
        "the mean, and further inputs say which those are",
    )
    augment: str = option(
        "none",
        choices=("none", "shift"),
        help="How images are changed at random while an agent learns from them (never while it acts); shift: moved by "
        "augment_pixels at most, each way, as in DrQ",
    )
    augment_pixels: int = option(
        4, min=1, max=64, help="How far augment=shift moves an image; its border is repeated"
    )
    encoder_from: str = option(
        "",
        help="A run, RUN, RUN:best, RUN:last or RUN:STEP, of an agent or a task, whose encoder this one begins with; "
        "empty: new weights",
    )
    encoder_lr: float = option(
        1.0,
        min=0,
        max=100,
        help="What the learning rate is multiplied by for the encoder's weights (adam, adamw); 0: they stay",
    )

    def __post_init__(self) -> None:
        if self.core == "transformer" and self.core_size % self.core_heads:
            raise ValueError(
                f"core_size={self.core_size} with core_heads={self.core_heads}: heads share the width equally; "
                "make core_size a multiple of core_heads"
            )
