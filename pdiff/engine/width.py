"""How widely vectors are spread, beside those of the population: from where on it is worth a word, and which."""

from collections.abc import Mapping
from typing import Any

WIDTHS = (0.8, 1.25)  # times the spread of the population; beyond, it is worth a warning


def why_narrow(config: Mapping[str, Any], spread: float) -> str:
    """Return words that follow a spread: which setting pulls what is decoded to the average, where one does.

    Args:
        config: an engine section, complete.
        spread: of decoded vectors, over that of the fitted ones.
    """
    noise = config["autoencoder"].get("latent_noise")
    if spread >= WIDTHS[0] or not noise:
        return ""
    key = f"engine.autoencoder.latent_noise (now {noise})"
    return f"; what is decoded is pulled to the average on purpose: for a wider spread lower {key}"
