"""Things that stand behind or before the synthetic people."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from yolopose.data.synthetic_colours import SKINS, any_colour, hsv


@dataclass
class Shape:
    """Flat polygons and discs painted in order; the same calls paint the picture and blank the map of persons."""

    parts: list[tuple[np.ndarray, tuple[float, float, float]]] = field(default_factory=list)

    def polygon(self, points, colour) -> None:
        self.parts.append((np.asarray(points, np.float32), tuple(float(v) for v in np.clip(colour, 0, 255))))

    def box(self, x0: float, y0: float, x1: float, y1: float, colour) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def disc(self, x: float, y: float, rx: float, ry: float, colour) -> None:
        angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        self.polygon(np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1), colour)

    def paint(self, image: np.ndarray, owner: np.ndarray | None = None) -> None:
        """Draw into ``image``; where ``owner`` (the map of visible persons) is given, nobody is visible there."""
        for points, colour in self.parts:
            fixed = np.rint(np.clip(points, -8000, 8000) * 16).astype(np.int32)
            cv2.fillPoly(image, [fixed], colour, cv2.LINE_AA, 4)
            if owner is not None:
                cv2.fillPoly(owner, [fixed], 0, cv2.LINE_8, 4)


def object_shape(rng: np.random.Generator, x: float, base: float, size: float) -> Shape:
    """A thing of height ``size`` that stands at (x, base): box, table, pole, ball, plant, sofa, bottle, dummy."""
    shape, colour = Shape(), any_colour(rng)
    kind = int(rng.integers(8))
    if kind == 0:  # box with a lighter top and a darker side
        w, d = rng.uniform(0.5, 1.4) * size, 0.18 * size
        shape.box(x - w / 2, base - size, x + w / 2, base, colour)
        shape.polygon(
            [(x + w / 2, base - size), (x + w / 2 + d, base - size - d), (x + w / 2 + d, base - d), (x + w / 2, base)],
            colour * 0.6,
        )
        shape.polygon(
            [
                (x - w / 2, base - size),
                (x + w / 2, base - size),
                (x + w / 2 + d, base - size - d),
                (x - w / 2 + d, base - size - d),
            ],
            colour * 1.25,
        )
    elif kind == 1:  # table
        w = rng.uniform(1.2, 2.4) * size
        for leg in (-0.46, 0.42):
            shape.box(x + leg * w, base - size, x + (leg + 0.05) * w, base, colour * 0.6)
        shape.box(x - w / 2, base - size, x + w / 2, base - 0.86 * size, colour)
    elif kind == 2:  # pole with a sign
        w = 0.07 * size
        shape.box(x - w / 2, base - 1.6 * size, x + w / 2, base, np.full(3, 110.0))
        shape.disc(x, base - 1.6 * size, 0.2 * size, 0.2 * size, colour)
    elif kind == 3:  # ball
        shape.disc(x, base - size / 2, size / 2, size / 2, colour * 0.75)
        shape.disc(x - 0.05 * size, base - 0.55 * size, 0.42 * size, 0.42 * size, colour)
        shape.disc(x - 0.15 * size, base - 0.68 * size, 0.15 * size, 0.13 * size, colour * 1.4)
    elif kind == 4:  # plant in a pot
        green = hsv(rng.uniform(70, 140), 0.6, 0.45)
        for angle in rng.uniform(-1.2, 1.2, 11):
            tip = np.array([x + np.sin(angle) * 0.6 * size, base - 0.35 * size - np.cos(angle) * 0.65 * size])
            side = np.array([0.07 * size, 0])
            root = np.array([x, base - 0.3 * size])
            shape.polygon([root, (root + tip) / 2 + side, tip, (root + tip) / 2 - side], green * rng.uniform(0.7, 1.3))
        w = 0.16 * size
        shape.polygon(
            [(x - w, base - 0.34 * size), (x + w, base - 0.34 * size), (x + 0.7 * w, base), (x - 0.7 * w, base)], colour
        )
    elif kind == 5:  # sofa
        w = 2.0 * size
        shape.box(x - w / 2, base - size, x + w / 2, base - 0.1 * size, colour * 0.8)
        shape.box(x - 0.4 * w, base - 0.55 * size, x + 0.4 * w, base - 0.1 * size, colour * 1.1)
        for sign in (-1, 1):
            shape.box(x + sign * 0.44 * w - 0.07 * w, base - 0.7 * size, x + sign * 0.44 * w + 0.07 * w, base, colour)
    elif kind == 6:  # bottle
        w = 0.16 * size
        shape.box(x - w, base - 0.65 * size, x + w, base, colour)
        shape.box(x - 0.4 * w, base - size, x + 0.4 * w, base - 0.6 * size, colour * 0.8)
        shape.box(x - w, base - 0.45 * size, x + w, base - 0.2 * size, np.clip(colour * 0.4 + 140, 0, 255))
    else:  # stacked cartons, some of the colour of skin
        tone, top = SKINS[rng.integers(len(SKINS))], base
        while top > base - size:
            w, h = rng.uniform(0.25, 0.5) * size, rng.uniform(0.25, 0.45) * size
            shape.box(x - w, top - h, x + w, top, tone * rng.uniform(0.75, 1.05))
            shape.box(x - 0.12 * w, top - h, x + 0.12 * w, top, tone * 1.12)
            top -= h
    return shape


def seat(rng: np.random.Generator, x: float, top: float, base: float, width: float) -> Shape:
    """What a sitting person sits on, from the seat's height down to the floor."""
    shape, colour = Shape(), any_colour(rng)
    if rng.random() < 0.5:  # chair with a back
        for side in (-0.5, 0.38):
            shape.box(x + side * width, top, x + (side + 0.12) * width, base, colour * 0.6)
        shape.box(x - 0.5 * width, top - 1.0 * width, x + 0.5 * width, top - 0.45 * width, colour * 0.8)
        for side in (-0.48, 0.38):
            shape.box(x + side * width, top - width, x + (side + 0.1) * width, top, colour * 0.7)
        shape.box(x - 0.55 * width, top, x + 0.55 * width, top + 0.16 * width, colour)
    else:  # block or bench
        wide = width * rng.uniform(0.6, 2.5)
        shape.box(x - wide, top, x + wide, base, colour * 0.75)
        shape.box(x - wide, top, x + wide, top + 0.14 * width, colour * 1.1)
    return shape


def tree(rng: np.random.Generator, x: float, base: float, size: float) -> Shape:
    """A tree of height ``size`` that stands at (x, base)."""
    green = hsv(rng.uniform(60, 140), rng.uniform(0.35, 0.8), rng.uniform(0.2, 0.55))
    trunk = hsv(25, 0.5, rng.uniform(0.2, 0.45))
    shape = Shape()
    shape.polygon(
        [
            (x - 0.04 * size, base),
            (x + 0.04 * size, base),
            (x + 0.02 * size, base - 0.6 * size),
            (x - 0.02 * size, base - 0.6 * size),
        ],
        trunk,
    )
    for _ in range(int(rng.integers(8, 18))):
        dx, dy = rng.normal(0, 0.15, 2) * size
        r = rng.uniform(0.06, 0.16) * size
        shape.disc(x + dx, base - 0.68 * size + dy, r, r * rng.uniform(0.7, 1.0), green * rng.uniform(0.65, 1.3))
    return shape
