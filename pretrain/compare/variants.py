"""What can be compared: each optimizer, and the variants of it that serve as controls, by name.

The middle of a first learning-rate grid is what the optimizer's paper advises. Where the advice is for one batch size it is scaled by the
square root of the batch, as You et al. (ICLR 2020, section 4.3) do, and as they give LAMB's own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pretrain.errors import UserError


@dataclass(frozen=True)
class Advice:
    """A peak learning rate and where it comes from."""

    rate: float
    batch: int | None
    """Sequences per step that it is for; None: whatever they are."""
    source: str

    def at(self, batch: int) -> float:
        """For `batch` sequences per step, to two digits."""
        scaled = self.rate * math.sqrt(batch / self.batch) if self.batch else self.rate
        return float(f"{scaled:.1e}")


ADVICE = {
    "adamw": Advice(1e-4, 256, "Devlin et al., 2019: 1e-4 at batch 256"),
    "came": Advice(0.7e-4, 256, "Luo et al., 2023: 0.5 to 0.9 times AdamW's"),
    "lamb": Advice(5e-3, 32768, "You et al., 2020: 5e-3 at batch 32,768"),
    "adafactor": Advice(1e-2, None, "Shazeer and Stern, 2018: 1e-2, relative to each parameter's RMS"),
    "sm3": Advice(0.1, None, "Anil et al., 2019: 0.1 for BERT-Large"),
}
"""By the optimizer's own name."""

VARIANTS: dict[str, tuple[str, ...]] = {
    **{name: (f"optimizer={name}",) for name in ADVICE},
    "came_bias_correction": ("optimizer=came", "optimizer.bias_correction=true"),
    "came_trust_ratio": ("optimizer=came", "optimizer.trust_ratio=true"),
    "came_bias_correction_trust_ratio": ("optimizer=came", "optimizer.bias_correction=true", "optimizer.trust_ratio=true"),
    "came_cautious": ("optimizer=came", "optimizer.cautious=true"),
    "came_legacy_1d": ("optimizer=came", "optimizer.legacy_1d=true"),
    "adafactor_momentum": ("optimizer=adafactor", "optimizer.beta1=0.9"),
    "adamw_clip": ("optimizer=adamw", "train.grad_clip=1.0"),
    "adamw_no_clip": ("optimizer=adamw", "train.grad_clip=0.0"),
    "adamw_beta2_0.95": ("optimizer=adamw", "optimizer.beta2=0.95"),
    "adamw_beta2_0.999": ("optimizer=adamw", "optimizer.beta2=0.999"),
    "lamb_clip": ("optimizer=lamb", "train.grad_clip=1.0"),
}
"""Name -> the settings that make it, over those of the comparison."""


def settings_of(name: str, own: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Of the variant `name`, which the user's `own` may define. Raises UserError for none, and where no optimizer is chosen."""
    if name in own:
        settings = tuple(own[name])
        if not any(setting.startswith("optimizer=") for setting in settings):
            raise UserError(f"compare.variants.{name} chooses no optimizer; add optimizer=NAME to it: [optimizer=came,...]")
        return settings
    if name not in VARIANTS:
        raise UserError(f"compare.optimizers: there is no '{name}'; choose of {', '.join([*VARIANTS, *own])}")
    return VARIANTS[name]


def listed() -> str:
    """Every variant with its settings, and the advice that the first grids are made from."""
    width = max(map(len, VARIANTS))
    lines = [f"{name:<{width}}  {' '.join(settings)}" for name, settings in VARIANTS.items()]
    advice = [f"{name:<{width}}  {found.source}" for name, found in ADVICE.items()]
    scaled = "the middle of a first learning-rate grid, scaled by the square root of the batch where the advice names one:"
    return "\n".join([*lines, "", scaled, *advice])
