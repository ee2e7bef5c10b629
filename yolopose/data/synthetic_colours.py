"""Colours of the synthetic people and their surroundings, BGR in 0..255."""

from __future__ import annotations

import numpy as np

SKINS = np.array(  # BGR, light to dark
    [[189, 212, 247], [165, 196, 238], [140, 178, 226], [112, 152, 205], [84, 122, 176], [62, 93, 143], [44, 66, 106]],
    float,
)
HAIRS = np.array(
    [[24, 22, 26], [30, 42, 62], [38, 60, 96], [60, 100, 150], [100, 165, 215], [45, 70, 160], [150, 150, 155]], float
)


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """BGR 0..255 of a hue in degrees, saturation and value in 0..1."""
    k = (np.array([1.0, 3.0, 5.0]) + hue / 60.0) % 6.0  # blue, green, red
    return 255 * value * (1 - saturation * np.clip(np.minimum(k, 4 - k), 0, 1))


def side_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours of the left (cool, dark) and of the right side (warm, light)."""
    left = hsv(rng.uniform(170, 275), rng.uniform(0.35, 0.95), rng.uniform(0.2, 0.52))
    kind = rng.random()
    if kind < 0.3:  # white, cream, light grey
        right = hsv(rng.uniform(30, 60), rng.uniform(0.0, 0.18), rng.uniform(0.88, 1.0))
    elif kind < 0.65:  # yellow; the oranges between it and red would look like skin
        right = hsv(rng.uniform(42, 58), rng.uniform(0.45, 0.9), rng.uniform(0.85, 1.0))
    else:
        right = hsv(rng.uniform(-14, 9) % 360, rng.uniform(0.65, 0.92), rng.uniform(0.75, 0.95))
    return left, right


def any_colour(rng: np.random.Generator) -> np.ndarray:
    """A colour of cloth without meaning: half of them muted."""
    saturation = rng.uniform(0.0, 0.3) if rng.random() < 0.5 else rng.uniform(0.3, 0.9)
    return hsv(rng.uniform(0, 360), saturation, rng.uniform(0.2, 0.95))


def plain(colour: np.ndarray, height: int = 4, width: int = 4) -> np.ndarray:
    """Texture (height, width, 3) uint8 of one colour."""
    return np.broadcast_to(np.clip(colour, 0, 255).astype(np.uint8), (height, width, 3)).copy()
