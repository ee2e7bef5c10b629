"""The place around the people: a room, a street or a park, the things in it, and the camera that takes the picture.

Much of the clutter has the colours of skin and cloth, so that neither alone tells a person. Angles of hues are degrees,
colours BGR in 0..255; everything is drawn in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from yolopose.data.synthetic.looks import SKINS, any_colour, hsv


@dataclass
class Shape:
    """Flat polygons and discs painted in order; the same calls paint the picture and blank the map of owners."""

    parts: list[tuple[np.ndarray, list[float]]] = field(default_factory=list)  # points and colour

    def polygon(self, points, colour) -> None:
        self.parts.append((np.asarray(points, np.float32), np.clip(colour, 0, 255).tolist()))

    def box(self, x0: float, y0: float, x1: float, y1: float, colour) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def disc(self, x: float, y: float, rx: float, ry: float, colour) -> None:
        angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        self.polygon(np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1), colour)

    def paint(self, image: np.ndarray, owner: np.ndarray | None = None) -> None:
        """Draw into ``image``; where ``owner`` (the map of visible persons) is given, nobody is visible there."""
        for points, colour in self.parts:
            fixed = np.rint(np.clip(points, -8000, 8000) * 16).astype(np.int32)  # OpenCV's sixteenths of a pixel
            cv2.fillPoly(image, [fixed], colour, cv2.LINE_AA, 4)
            if owner is not None:
                cv2.fillPoly(owner, [fixed], 0, cv2.LINE_8, 4)


def background(rng: np.random.Generator, height: int, width: int, horizon: float) -> np.ndarray:
    """A room, a street, a park or a cluttered wall, (height, width, 3) uint8 BGR.

    Args:
        horizon: row of the eye level; the floor begins below it.
    """
    kind = rng.random()
    floor_line = int(np.clip(horizon + rng.uniform(0.05, 0.3) * height, 0.15 * height, 1.3 * height))
    if kind < 0.45:
        image = _room(rng, height, width, floor_line)
    elif kind < 0.88:
        image = _outdoors(rng, height, width, int(np.clip(horizon, 0.08 * height, 1.2 * height)))
    else:
        image = _cluttered_wall(rng, height, width)
    amplitude = rng.uniform(1.5, 7)
    return _brighten(image, _noise(rng, height, width, ((5, 0.7), (24, 0.6), (90, 0.8))) * amplitude)


def finish(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Camera: tint, exposure, contrast, uneven light, blur and sensor noise on a uint8 BGR picture."""
    height, width = image.shape[:2]
    gain = rng.uniform(0.8, 1.25) * (1 + rng.normal(0, 0.05, 3))
    corner = rng.uniform(-0.22, 0.22, 2)
    field_x = np.linspace(-corner[0], corner[0], width, dtype=np.float32)
    field_y = np.linspace(-corner[1], corner[1], height, dtype=np.float32)
    light = 1 + field_y[:, None] + field_x[None]
    image = cv2.multiply(image, cv2.merge([light * np.float32(g) for g in gain]), dtype=cv2.CV_8U)
    blur = rng.random()
    if blur < 0.22:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.35, 0.9) * max(height, width) / 320 + 0.15)
    elif blur < 0.28:  # motion
        length = max(3, int(rng.integers(2, 6) * max(height, width) / 320) | 1)
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (0, int(rng.integers(length))), (length - 1, int(rng.integers(length))), 1.0, 1)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    sigma = abs(rng.normal(0, 3.6)) + 0.5
    raw = np.frombuffer(rng.bytes(2 * image.size), np.uint8).astype(np.int16).reshape(2, *image.shape)
    grain = (raw[0] + raw[1] - 255).astype(np.float32)  # triangular, deviation 104.5
    return cv2.add(image, grain * np.float32(sigma / 104.5), dtype=cv2.CV_8U)


def _noise(rng: np.random.Generator, height: int, width: int, octaves: tuple[tuple[int, float], ...]) -> np.ndarray:
    """Smooth value noise, (height, width) float32 about zero: a sum of (cells on the longer side, weight)."""
    total = np.zeros((height, width), np.float32)
    for cells, weight in octaves:
        grid_shape = [max(2, int(round(cells * side / max(height, width)))) for side in (height, width)]
        grid = rng.standard_normal(grid_shape, dtype=np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    return total


def _brighten(image: np.ndarray, grey: np.ndarray) -> np.ndarray:
    return cv2.add(image, cv2.merge([grey] * 3), dtype=cv2.CV_8U)


def _gradient(height: int, width: int, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    t = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    column = (1 - t) * np.asarray(top, np.float32) + t * np.asarray(bottom, np.float32)
    return np.repeat(column[:, None].clip(0, 255).astype(np.uint8), width, axis=1)


def _perhaps_skin(rng: np.random.Generator, chance: float) -> np.ndarray:
    return SKINS[rng.integers(len(SKINS))] if rng.random() < chance else any_colour(rng)


def _room(rng: np.random.Generator, height: int, width: int, line: int) -> np.ndarray:
    wall = hsv(rng.uniform(0, 360), rng.uniform(0.02, 0.4), rng.uniform(0.4, 0.95))
    floor = hsv(rng.uniform(10, 45), rng.uniform(0.1, 0.6), rng.uniform(0.25, 0.75))
    image = _gradient(height, width, wall * rng.uniform(0.75, 1.0), wall * rng.uniform(0.85, 1.1))
    if rng.random() < 0.3:  # wallpaper or tiles
        step, tone = int(rng.integers(max(4, width // 30), max(6, width // 9))), wall * rng.uniform(0.8, 0.93)
        for x in range(int(rng.integers(step)), width, step):
            cv2.line(image, (x, 0), (x, line), tone.tolist(), max(1, step // 8))
        if rng.random() < 0.5:
            for y in range(int(rng.integers(step)), line, step):
                cv2.line(image, (0, y), (width, y), tone.tolist(), max(1, step // 8))
    _on_the_wall(rng, height, width, line).paint(image)
    if line < height:
        image[line:] = _gradient(height - line, width, floor * 0.8, np.clip(floor * 1.15, 0, 255))
        cv2.rectangle(image, (0, line - max(1, height // 60)), (width, line), (wall * 0.6).tolist(), -1)
        if rng.random() < 0.6:  # boards or tiles in perspective
            vanish = rng.uniform(0.2, 0.8) * width
            for x in np.arange(-2, 3, rng.uniform(0.1, 0.3)) * width:
                cv2.line(image, (int(vanish + 0.3 * (x - vanish)), line), (int(x), height), (floor * 0.7).tolist(), 1)
    _furniture(rng, image, line, int(rng.integers(0, 4)))
    return image


def _on_the_wall(rng: np.random.Generator, height: int, width: int, line: int) -> Shape:
    """Windows, pictures, shelves, doors."""
    shape = Shape()
    for _ in range(int(rng.integers(1, 5))):
        x, y = rng.uniform(-0.1, 0.95) * width, rng.uniform(-0.1, 0.6) * line
        w, h = rng.uniform(0.1, 0.35) * width, rng.uniform(0.15, 0.6) * line
        kind = int(rng.integers(4))
        frame = any_colour(rng) * 0.8
        if kind == 0:  # window
            shape.box(x - 2, y - 2, x + w + 2, y + h + 2, frame)
            sky = hsv(rng.uniform(190, 230), rng.uniform(0.0, 0.4), rng.uniform(0.8, 1.0))
            for i, j in np.ndindex(2, 2):
                x0, y0 = x + (0.03 + 0.49 * i) * w, y + (0.03 + 0.49 * j) * h
                shape.box(x0, y0, x0 + 0.45 * w, y0 + 0.45 * h, sky * (1 - 0.1 * j))
        elif kind == 1:  # picture, now and then of something skin-coloured
            shape.box(x, y, x + w, y + h, frame)
            shape.box(x + 0.08 * w, y + 0.08 * h, x + 0.92 * w, y + 0.92 * h, any_colour(rng))
            shape.disc(x + 0.5 * w, y + 0.5 * h, 0.2 * w, 0.28 * h, _perhaps_skin(rng, 0.4))
        elif kind == 2:  # shelf with books
            for row in range(3):
                base = y + h * (row + 1) / 3
                shape.box(x, base - 0.03 * h, x + w, base, frame)
                left = x
                while left < x + 0.9 * w:
                    thick = rng.uniform(0.04, 0.12) * w
                    if rng.random() < 0.85:
                        top = base - rng.uniform(0.15, 0.27) * h
                        shape.box(left, top, left + thick, base - 0.03 * h, any_colour(rng))
                    left += thick
        else:  # door or cupboard
            shape.box(x, y, x + w, line + 2, frame)
            shape.box(x + 0.1 * w, y + 0.08 * h, x + 0.9 * w, line - 0.02 * height, frame * 1.2)
            shape.disc(x + 0.85 * w, (y + line) / 2, 0.03 * w, 0.03 * w, frame * 0.4)
    return shape


def _outdoors(rng: np.random.Generator, height: int, width: int, line: int) -> np.ndarray:
    sky = hsv(rng.uniform(195, 225), rng.uniform(0.05, 0.6), rng.uniform(0.6, 1.0))
    image = _gradient(height, width, sky, np.clip(sky * 0.6 + 100, 0, 255))
    if rng.random() < 0.5:
        cloud = np.clip(_noise(rng, height, width, ((3, 0.8), (9, 0.5))), 0, 1.5) * rng.uniform(20, 60)
        image = _brighten(image, cloud)
    if rng.random() < 0.5:  # grass, else sand or asphalt
        ground = hsv(rng.uniform(70, 125), rng.uniform(0.3, 0.7), rng.uniform(0.25, 0.65))
    else:
        ground = hsv(rng.uniform(20, 50), rng.uniform(0.0, 0.35), rng.uniform(0.3, 0.85))
    if rng.random() < 0.55:
        _buildings(rng, width, line).paint(image)
    if line < height:
        image[line:] = _gradient(height - line, width, ground * 0.85, np.clip(ground * 1.1, 0, 255))
        rough = _noise(rng, height - line, width, ((14, 0.7), (60, 1.0))) * rng.uniform(3, 9)
        image[line:] = _brighten(image[line:], rough)
        if rng.random() < 0.3:  # road or path
            near, far = rng.uniform(0.0, 1.0) * width, rng.uniform(0.2, 0.8) * width
            path = [(far - 4, line), (far + 4, line), (near + 0.4 * width, height), (near - 0.4 * width, height)]
            cv2.fillPoly(image, [np.array(path, np.int32)], [rng.uniform(80, 150)] * 3, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 6))):
        x, base = rng.uniform(0, 1) * width, line + rng.uniform(-0.02, 0.1) * height
        _tree(rng, x, base, rng.uniform(0.2, 0.7) * height).paint(image)
    if rng.random() < 0.4:
        _furniture(rng, image, line, int(rng.integers(1, 4)))
    return image


def _buildings(rng: np.random.Generator, width: int, line: int) -> Shape:
    shape = Shape()
    x = rng.uniform(-0.2, 0.1) * width
    while x < width:
        w, h = rng.uniform(0.12, 0.4) * width, rng.uniform(0.15, 0.9) * line
        wall = hsv(rng.uniform(0, 60), rng.uniform(0.0, 0.45), rng.uniform(0.3, 0.85))
        if rng.random() < 0.8:
            shape.box(x, line - h, x + w, line + 2, wall)
            columns, rows = (int(n) for n in rng.integers(2, 6, 2))
            pane = hsv(rng.uniform(190, 230), 0.25, rng.uniform(0.2, 0.95))
            for i, j in np.ndindex(columns, rows):
                x0, y0 = x + w * (i + 0.25) / columns, line - h + h * (j + 0.2) / rows
                shape.box(x0, y0, x0 + 0.5 * w / columns, y0 + 0.55 * h / rows, pane)
        x += w * rng.uniform(0.8, 1.3)
    return shape


def _cluttered_wall(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    image = _gradient(height, width, any_colour(rng), any_colour(rng))
    shape = Shape()
    for _ in range(int(rng.integers(8, 26))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        w, h = rng.uniform(0.03, 0.3, 2) * max(height, width)
        colour = _perhaps_skin(rng, 0.25)
        if rng.random() < 0.5:
            shape.disc(x, y, w / 2, h / 2, colour)
        else:
            angle = rng.uniform(0, np.pi)
            c, s = np.cos(angle), np.sin(angle)
            corners = np.array([(-w, -h), (w, -h), (w, h), (-w, h)]) / 2
            shape.polygon(corners @ np.array([[c, s], [-s, c]]) + [x, y], colour)
    shape.paint(image)
    return image


def _furniture(rng: np.random.Generator, image: np.ndarray, line: int, count: int) -> None:
    height, width = image.shape[:2]
    for _ in range(count):
        base = line + rng.uniform(0.0, 0.35) * height
        object_shape(rng, rng.uniform(-0.05, 1.05) * width, base, rng.uniform(0.12, 0.4) * height).paint(image)


def object_shape(rng: np.random.Generator, x: float, base: float, size: float) -> Shape:
    """A thing of height ``size`` that stands at (x, base): box, table, pole, ball, plant, sofa, bottle, cartons."""
    shape, colour = Shape(), any_colour(rng)
    top = base - size
    kind = int(rng.integers(8))
    if kind == 0:  # box with a darker side and a lighter top
        w, d = rng.uniform(0.5, 1.4) * size, 0.18 * size
        left, right = x - w / 2, x + w / 2
        shape.box(left, top, right, base, colour)
        shape.polygon([(right, top), (right + d, top - d), (right + d, base - d), (right, base)], colour * 0.6)
        shape.polygon([(left, top), (right, top), (right + d, top - d), (left + d, top - d)], colour * 1.25)
    elif kind == 1:  # table
        w = rng.uniform(1.2, 2.4) * size
        for leg in (-0.46, 0.42):
            shape.box(x + leg * w, top, x + (leg + 0.05) * w, base, colour * 0.6)
        shape.box(x - w / 2, top, x + w / 2, base - 0.86 * size, colour)
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
        root, side = np.array([x, base - 0.3 * size]), np.array([0.07 * size, 0])
        for angle in rng.uniform(-1.2, 1.2, 11):
            tip = np.array([x + np.sin(angle) * 0.6 * size, base - 0.35 * size - np.cos(angle) * 0.65 * size])
            shape.polygon([root, (root + tip) / 2 + side, tip, (root + tip) / 2 - side], green * rng.uniform(0.7, 1.3))
        w, rim = 0.16 * size, base - 0.34 * size
        shape.polygon([(x - w, rim), (x + w, rim), (x + 0.7 * w, base), (x - 0.7 * w, base)], colour)
    elif kind == 5:  # sofa
        w = 2.0 * size
        shape.box(x - w / 2, top, x + w / 2, base - 0.1 * size, colour * 0.8)
        shape.box(x - 0.4 * w, base - 0.55 * size, x + 0.4 * w, base - 0.1 * size, colour * 1.1)
        for sign in (-1, 1):
            shape.box(x + sign * 0.44 * w - 0.07 * w, base - 0.7 * size, x + sign * 0.44 * w + 0.07 * w, base, colour)
    elif kind == 6:  # bottle
        w = 0.16 * size
        shape.box(x - w, base - 0.65 * size, x + w, base, colour)
        shape.box(x - 0.4 * w, top, x + 0.4 * w, base - 0.6 * size, colour * 0.8)
        shape.box(x - w, base - 0.45 * size, x + w, base - 0.2 * size, np.clip(colour * 0.4 + 140, 0, 255))
    else:  # stacked cartons of the colours of skin
        tone, bottom = SKINS[rng.integers(len(SKINS))], base
        while bottom > top:
            w, h = rng.uniform(0.25, 0.5) * size, rng.uniform(0.25, 0.45) * size
            shape.box(x - w, bottom - h, x + w, bottom, tone * rng.uniform(0.75, 1.05))
            shape.box(x - 0.12 * w, bottom - h, x + 0.12 * w, bottom, tone * 1.12)
            bottom -= h
    return shape


def seat(rng: np.random.Generator, x: float, top: float, base: float, width: float) -> Shape:
    """What a sitting person sits on, from the seat's height down to the floor."""
    shape, colour = Shape(), any_colour(rng)
    if rng.random() < 0.5:  # chair with a back
        for side in (-0.5, 0.38):
            shape.box(x + side * width, top, x + (side + 0.12) * width, base, colour * 0.6)
        shape.box(x - 0.5 * width, top - width, x + 0.5 * width, top - 0.45 * width, colour * 0.8)
        for side in (-0.48, 0.38):
            shape.box(x + side * width, top - width, x + (side + 0.1) * width, top, colour * 0.7)
        shape.box(x - 0.55 * width, top, x + 0.55 * width, top + 0.16 * width, colour)
    else:  # block or bench
        wide = width * rng.uniform(0.6, 2.5)
        shape.box(x - wide, top, x + wide, base, colour * 0.75)
        shape.box(x - wide, top, x + wide, top + 0.14 * width, colour * 1.1)
    return shape


def _tree(rng: np.random.Generator, x: float, base: float, size: float) -> Shape:
    green = hsv(rng.uniform(60, 140), rng.uniform(0.35, 0.8), rng.uniform(0.2, 0.55))
    trunk = hsv(25, 0.5, rng.uniform(0.2, 0.45))
    shape, fork = Shape(), base - 0.6 * size
    shape.polygon([(x - 0.04 * size, base), (x + 0.04 * size, base), (x + 0.02 * size, fork), (x - 0.02 * size, fork)],
                  trunk)
    for _ in range(int(rng.integers(8, 18))):
        dx, dy = rng.normal(0, 0.15, 2) * size
        r = rng.uniform(0.06, 0.16) * size
        shape.disc(x + dx, base - 0.68 * size + dy, r, r * rng.uniform(0.7, 1.0), green * rng.uniform(0.65, 1.3))
    return shape
