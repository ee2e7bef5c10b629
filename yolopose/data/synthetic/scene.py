"""The place around the people: a room, a street or a park, the things in it, and the camera that takes the picture.

Much of the clutter has the colours of skin and cloth, so that neither alone tells a person. Colours are BGR in 0..255.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from yolopose.data.synthetic.looks import SKINS, any_colour, hsv


@dataclass
class Brush:
    """Paints flat shapes into a picture; where a map of visible persons is given, nobody is visible there any more."""

    image: np.ndarray
    owner: np.ndarray | None = None

    def polygon(self, points, colour) -> None:
        fixed = np.asarray(points, np.float32)
        fixed = np.rint(np.clip(fixed, -8000, 8000) * 16).astype(np.int32)  # OpenCV's sixteenths of a pixel
        cv2.fillPoly(self.image, [fixed], np.clip(colour, 0, 255).tolist(), cv2.LINE_AA, 4)
        if self.owner is not None:
            cv2.fillPoly(self.owner, [fixed], 0, cv2.LINE_8, 4)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def disc(self, x: float, y: float, rx: float, ry: float, colour) -> None:
        angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        self.polygon(np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1), colour)


def background(rng: np.random.Generator, height: int, width: int, horizon: float) -> np.ndarray:
    """A room, a street, a park or a cluttered wall, (height, width, 3) uint8; ``horizon`` is the row of the eyes."""
    kind = rng.random()
    floor = horizon + rng.uniform(0.05, 0.3) * height
    if kind < 0.45:
        image = _room(rng, height, width, int(np.clip(floor, 0.15 * height, 1.3 * height)))
    elif kind < 0.88:
        image = _outdoors(rng, height, width, int(np.clip(horizon, 0.08 * height, 1.2 * height)))
    else:
        image = _cluttered_wall(rng, height, width)
    return _brighten(image, rng.uniform(1.5, 7) * _noise(rng, height, width, ((5, 0.7), (24, 0.6), (90, 0.8))))


def finish(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Camera: tint, exposure, contrast, uneven light, blur and sensor noise on a uint8 BGR picture."""
    height, width = image.shape[:2]
    gain, corner = rng.uniform(0.8, 1.25) * (1 + rng.normal(0, 0.05, 3)), rng.uniform(-0.22, 0.22, 2)
    across, down = (np.linspace(-c, c, n, dtype=np.float32) for c, n in zip(corner, (width, height), strict=True))
    light = 1 + down[:, None] + across
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
    _hang_on_the_wall(rng, image, line)
    if line < height:
        image[line:] = _gradient(height - line, width, floor * 0.8, np.clip(floor * 1.15, 0, 255))
        cv2.rectangle(image, (0, line - max(1, height // 60)), (width, line), (wall * 0.6).tolist(), -1)
        if rng.random() < 0.6:  # boards or tiles in perspective
            vanish = rng.uniform(0.2, 0.8) * width
            for x in np.arange(-2, 3, rng.uniform(0.1, 0.3)) * width:
                cv2.line(image, (int(vanish + 0.3 * (x - vanish)), line), (int(x), height), (floor * 0.7).tolist(), 1)
    _furniture(rng, image, line, int(rng.integers(0, 4)))
    return image


def _hang_on_the_wall(rng: np.random.Generator, image: np.ndarray, line: int) -> None:
    brush, (height, width) = Brush(image), image.shape[:2]
    for _ in range(rng.integers(1, 5)):
        x, y = rng.uniform(-0.1, 0.95) * width, rng.uniform(-0.1, 0.6) * line
        w, h = rng.uniform(0.1, 0.35) * width, rng.uniform(0.15, 0.6) * line
        kind, frame = rng.integers(4), any_colour(rng) * 0.8
        if kind == 0:  # window
            brush.box(x - 2, y - 2, x + w + 2, y + h + 2, frame)
            sky = hsv(rng.uniform(190, 230), rng.uniform(0.0, 0.4), rng.uniform(0.8, 1.0))
            for i, j in np.ndindex(2, 2):
                x0, y0 = x + (0.03 + 0.49 * i) * w, y + (0.03 + 0.49 * j) * h
                brush.box(x0, y0, x0 + 0.45 * w, y0 + 0.45 * h, sky * (1 - 0.1 * j))
        elif kind == 1:  # picture, now and then of something skin-coloured
            brush.box(x, y, x + w, y + h, frame)
            brush.box(x + 0.08 * w, y + 0.08 * h, x + 0.92 * w, y + 0.92 * h, any_colour(rng))
            brush.disc(x + 0.5 * w, y + 0.5 * h, 0.2 * w, 0.28 * h, _perhaps_skin(rng, 0.4))
        elif kind == 2:  # shelf with books
            for row in range(3):
                base = y + h * (row + 1) / 3
                brush.box(x, base - 0.03 * h, x + w, base, frame)
                left = x
                while left < x + 0.9 * w:
                    thick = rng.uniform(0.04, 0.12) * w
                    if rng.random() < 0.85:
                        top = base - rng.uniform(0.15, 0.27) * h
                        brush.box(left, top, left + thick, base - 0.03 * h, any_colour(rng))
                    left += thick
        else:  # door or cupboard
            brush.box(x, y, x + w, line + 2, frame)
            brush.box(x + 0.1 * w, y + 0.08 * h, x + 0.9 * w, line - 0.02 * height, frame * 1.2)
            brush.disc(x + 0.85 * w, (y + line) / 2, 0.03 * w, 0.03 * w, frame * 0.4)


def _outdoors(rng: np.random.Generator, height: int, width: int, line: int) -> np.ndarray:
    sky = hsv(rng.uniform(195, 225), rng.uniform(0.05, 0.6), rng.uniform(0.6, 1.0))
    image = _gradient(height, width, sky, np.clip(sky * 0.6 + 100, 0, 255))
    if rng.random() < 0.5:
        clouds = np.clip(_noise(rng, height, width, ((3, 0.8), (9, 0.5))), 0, 1.5)
        image = _brighten(image, clouds * rng.uniform(20, 60))
    grass, sand = ([70, 0.3, 0.25], [125, 0.7, 0.65]), ([20, 0.0, 0.3], [50, 0.35, 0.85])
    ground = hsv(*rng.uniform(*(grass if rng.random() < 0.5 else sand)))
    if rng.random() < 0.55:
        _buildings(rng, image, line)
    if line < height:
        image[line:] = _gradient(height - line, width, ground * 0.85, np.clip(ground * 1.1, 0, 255))
        rough = _noise(rng, height - line, width, ((14, 0.7), (60, 1.0))) * rng.uniform(3, 9)
        image[line:] = _brighten(image[line:], rough)
        if rng.random() < 0.3:  # road or path
            near, far = rng.uniform([0.0, 0.2], [1.0, 0.8]) * width
            path = [(far - 4, line), (far + 4, line), (near + 0.4 * width, height), (near - 0.4 * width, height)]
            cv2.fillPoly(image, [np.array(path, np.int32)], [rng.uniform(80, 150)] * 3, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 6))):
        x, base = rng.uniform(0, 1) * width, line + rng.uniform(-0.02, 0.1) * height
        _tree(rng, Brush(image), x, base, rng.uniform(0.2, 0.7) * height)
    if rng.random() < 0.4:
        _furniture(rng, image, line, int(rng.integers(1, 4)))
    return image


def _buildings(rng: np.random.Generator, image: np.ndarray, line: int) -> None:
    brush, width = Brush(image), image.shape[1]
    x = rng.uniform(-0.2, 0.1) * width
    while x < width:
        w, h = rng.uniform(0.12, 0.4) * width, rng.uniform(0.15, 0.9) * line
        wall = hsv(*rng.uniform([0, 0.0, 0.3], [60, 0.45, 0.85]))
        if rng.random() < 0.8:
            brush.box(x, line - h, x + w, line + 2, wall)
            columns, rows = rng.integers(2, 6, 2)
            pane = hsv(rng.uniform(190, 230), 0.25, rng.uniform(0.2, 0.95))
            for i, j in np.ndindex(columns, rows):
                x0, y0 = x + w * (i + 0.25) / columns, line - h + h * (j + 0.2) / rows
                brush.box(x0, y0, x0 + 0.5 * w / columns, y0 + 0.55 * h / rows, pane)
        x += w * rng.uniform(0.8, 1.3)


def _cluttered_wall(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    image = _gradient(height, width, any_colour(rng), any_colour(rng))
    brush = Brush(image)
    for _ in range(int(rng.integers(8, 26))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        (w, h), colour = rng.uniform(0.03, 0.3, 2) * max(height, width), _perhaps_skin(rng, 0.25)
        if rng.random() < 0.5:
            brush.disc(x, y, w / 2, h / 2, colour)
        else:
            c, s = np.cos(angle := rng.uniform(0, np.pi)), np.sin(angle)
            corners = np.array([(-w, -h), (w, -h), (w, h), (-w, h)]) / 2
            brush.polygon(corners @ np.array([[c, s], [-s, c]]) + [x, y], colour)
    return image


def _furniture(rng: np.random.Generator, image: np.ndarray, line: int, count: int) -> None:
    height, width = image.shape[:2]
    for _ in range(count):
        base = line + rng.uniform(0.0, 0.35) * height
        paint_object(rng, Brush(image), rng.uniform(-0.05, 1.05) * width, base, rng.uniform(0.12, 0.4) * height)


def paint_object(rng: np.random.Generator, brush: Brush, x: float, base: float, size: float) -> None:
    """A thing of height ``size`` that stands at (x, base)."""
    colour, top, kind = any_colour(rng), base - size, int(rng.integers(8))
    if kind == 0:  # box with a darker side and a lighter top
        w, d = rng.uniform(0.5, 1.4) * size, 0.18 * size
        left, right = x - w / 2, x + w / 2
        brush.box(left, top, right, base, colour)
        brush.polygon([(right, top), (right + d, top - d), (right + d, base - d), (right, base)], colour * 0.6)
        brush.polygon([(left, top), (right, top), (right + d, top - d), (left + d, top - d)], colour * 1.25)
    elif kind == 1:  # table
        w = rng.uniform(1.2, 2.4) * size
        for leg in (-0.46, 0.42):
            brush.box(x + leg * w, top, x + (leg + 0.05) * w, base, colour * 0.6)
        brush.box(x - w / 2, top, x + w / 2, base - 0.86 * size, colour)
    elif kind == 2:  # pole with a sign
        w = 0.07 * size
        brush.box(x - w / 2, base - 1.6 * size, x + w / 2, base, np.full(3, 110.0))
        brush.disc(x, base - 1.6 * size, 0.2 * size, 0.2 * size, colour)
    elif kind == 3:  # ball
        brush.disc(x, base - size / 2, size / 2, size / 2, colour * 0.75)
        brush.disc(x - 0.05 * size, base - 0.55 * size, 0.42 * size, 0.42 * size, colour)
        brush.disc(x - 0.15 * size, base - 0.68 * size, 0.15 * size, 0.13 * size, colour * 1.4)
    elif kind == 4:  # plant in a pot
        green = hsv(rng.uniform(70, 140), 0.6, 0.45)
        root, side = np.array([x, base - 0.3 * size]), np.array([0.07 * size, 0])
        for angle in rng.uniform(-1.2, 1.2, 11):
            tip = np.array([x + np.sin(angle) * 0.6 * size, base - 0.35 * size - np.cos(angle) * 0.65 * size])
            brush.polygon([root, (root + tip) / 2 + side, tip, (root + tip) / 2 - side], green * rng.uniform(0.7, 1.3))
        w, rim = 0.16 * size, base - 0.34 * size
        brush.polygon([(x - w, rim), (x + w, rim), (x + 0.7 * w, base), (x - 0.7 * w, base)], colour)
    elif kind == 5:  # sofa
        w = 2.0 * size
        brush.box(x - w / 2, top, x + w / 2, base - 0.1 * size, colour * 0.8)
        brush.box(x - 0.4 * w, base - 0.55 * size, x + 0.4 * w, base - 0.1 * size, colour * 1.1)
        for sign in (-1, 1):
            brush.box(x + sign * 0.44 * w - 0.07 * w, base - 0.7 * size, x + sign * 0.44 * w + 0.07 * w, base, colour)
    elif kind == 6:  # bottle
        w = 0.16 * size
        brush.box(x - w, base - 0.65 * size, x + w, base, colour)
        brush.box(x - 0.4 * w, top, x + 0.4 * w, base - 0.6 * size, colour * 0.8)
        brush.box(x - w, base - 0.45 * size, x + w, base - 0.2 * size, np.clip(colour * 0.4 + 140, 0, 255))
    else:  # stacked cartons of the colours of skin
        tone, bottom = SKINS[rng.integers(len(SKINS))], base
        while bottom > top:
            w, h = rng.uniform(0.25, 0.5) * size, rng.uniform(0.25, 0.45) * size
            brush.box(x - w, bottom - h, x + w, bottom, tone * rng.uniform(0.75, 1.05))
            brush.box(x - 0.12 * w, bottom - h, x + 0.12 * w, bottom, tone * 1.12)
            bottom -= h


def paint_seat(rng: np.random.Generator, brush: Brush, x: float, top: float, base: float, width: float) -> None:
    """What a sitting person sits on, from the seat's height ``top`` down to the floor."""
    colour = any_colour(rng)
    if rng.random() < 0.5:  # chair with a back
        for side in (-0.5, 0.38):
            brush.box(x + side * width, top, x + (side + 0.12) * width, base, colour * 0.6)
        brush.box(x - 0.5 * width, top - width, x + 0.5 * width, top - 0.45 * width, colour * 0.8)
        for side in (-0.48, 0.38):
            brush.box(x + side * width, top - width, x + (side + 0.1) * width, top, colour * 0.7)
        brush.box(x - 0.55 * width, top, x + 0.55 * width, top + 0.16 * width, colour)
    else:  # block or bench
        wide = width * rng.uniform(0.6, 2.5)
        brush.box(x - wide, top, x + wide, base, colour * 0.75)
        brush.box(x - wide, top, x + wide, top + 0.14 * width, colour * 1.1)


def _tree(rng: np.random.Generator, brush: Brush, x: float, base: float, size: float) -> None:
    green, trunk = hsv(*rng.uniform([60, 0.35, 0.2], [140, 0.8, 0.55])), hsv(25, 0.5, rng.uniform(0.2, 0.45))
    fork, foot, top = base - 0.6 * size, 0.04 * size, 0.02 * size
    brush.polygon([(x - foot, base), (x + foot, base), (x + top, fork), (x - top, fork)], trunk)
    for _ in range(int(rng.integers(8, 18))):
        (dx, dy), r = rng.normal(0, 0.15, 2) * size, rng.uniform(0.06, 0.16) * size
        brush.disc(x + dx, base - 0.68 * size + dy, r, r * rng.uniform(0.7, 1.0), green * rng.uniform(0.65, 1.3))
