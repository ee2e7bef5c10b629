"""What a person looks like: skin, hair, clothes and face, as textures that the surfaces of the body wear.

Every texture of a tube runs from its beginning to its end along the rows and around it along the columns: the
person's left at column 0, front at a quarter, right at a half, back at three quarters of the width.

**Left and right are told apart by what is seen.** The clothes of the anatomically left arm and leg come from cool,
dark colours, those of the right ones from warm, light colours (sleeves, bands, trouser legs, stockings, shoes); the
front is known by face, neckline and a lighter front, the back by hair all over the head and a darker plain back.
"""

import cv2
import numpy as np

HAIR_STYLES = ("bald", "short", "short", "side", "bob", "long", "long", "ponytail", "bun", "afro", "cap", "beanie")
SKINS = np.array([  # BGR in 0..255, as all colours here; light to dark
    [189, 212, 247], [165, 196, 238], [140, 178, 226], [112, 152, 205], [84, 122, 176], [62, 93, 143], [44, 66, 106],
], float)  # fmt: skip
HAIRS = np.array([
    [24, 22, 26], [30, 42, 62], [38, 60, 96], [60, 100, 150], [100, 165, 215], [45, 70, 160], [150, 150, 155],
], float)  # fmt: skip
RIGHT_COLOURS = (  # (chance up to which, least and greatest hue, saturation and value)
    (0.3, (30, 0.0, 0.88), (60, 0.18, 1.0)),  # white, cream, light grey
    (0.65, (42, 0.45, 0.85), (58, 0.9, 1.0)),  # yellow; the oranges between it and red would look like skin
    (1.0, (-14, 0.65, 0.75), (9, 0.92, 0.95)),
)
# Places on the head as (column, row) shares of its texture; `body.head_point` puts them into space.
NOSE = (0.25, 0.585)
EYES = ((0.182, 0.47), (0.318, 0.47))  # left, right
EARS = ((0.985, 0.53), (0.515, 0.53))
WRINKLES = cv2.GaussianBlur(np.random.default_rng(7).normal(0, 1, (128, 128)).astype(np.float32), (0, 0), 2.2)
WRINKLES = 1 + 0.075 * WRINKLES / WRINKLES.std()


class Looks:
    """Random looks of one person: textures (uint8 BGR), and numbers by which clothes change the shape of a body."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.skin = skin = SKINS[rng.integers(len(SKINS))] * rng.uniform(0.93, 1.05)  # (3,) BGR
        self.hair = HAIRS[rng.integers(len(HAIRS))] * rng.uniform(0.8, 1.15)
        self.hair_style = HAIR_STYLES[rng.integers(len(HAIR_STYLES))]
        self.female = rng.random() < (0.85 if self.hair_style in ("bob", "long", "ponytail", "bun") else 0.2)
        sides = side_colours(rng)  # left, right
        top = any_colour(rng)
        # Covered shares of the arm and of the leg, 0..1; length of skirt or coat along the leg, 1 = knee.
        self.sleeve = float(rng.choice([0.0, 0.24, 0.42, 1.0], p=[0.1, 0.2, 0.3, 0.4])) * rng.uniform(0.9, 1.0)
        self.trouser = float(rng.choice([0.3, 0.5, 1.0], p=[0.15, 0.2, 0.65])) * rng.uniform(0.92, 1.0)
        self.skirt_end = 0.0
        if self.female and rng.random() < 0.4:
            self.skirt_end = rng.uniform(0.55, 1.35)
        elif self.sleeve > 0.8 and rng.random() < 0.2:  # a coat
            self.skirt_end = rng.uniform(0.35, 0.9)
        if self.skirt_end:
            self.trouser = 1.0 if rng.random() < 0.5 else 0.3
        lower_sides = sides if rng.random() < 0.4 else side_colours(rng)
        bottom = any_colour(rng)
        self.torso = _torso(rng, top, sides, lower_sides, skin, self.sleeve)
        self.arms = [_limb(rng, skin, colour, self.sleeve, leg=False) for colour in sides]
        self.legs = [_limb(rng, skin, colour, self.trouser, leg=True) for colour in lower_sides]
        gloves = rng.random() < 0.15
        self.hands = [plain(colour if gloves else skin * 0.97) for colour in sides]
        self.shoes = [plain(colour * rng.uniform(0.55, 0.9) if rng.random() < 0.7 else colour * 0.2 + 20)
                      for colour in lower_sides]
        self.skirt = _skirt(rng, bottom if rng.random() < 0.6 else top, *lower_sides) if self.skirt_end else None
        self.head = _face(rng, skin, self.hair, self.hair_style, self.female)
        self.hat = any_colour(rng)
        self.loose = rng.uniform(0.002, 0.011)  # how far cloth stands off the body, statures
        self.backpack = any_colour(rng) * 0.8 if rng.random() < 0.12 else None


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """BGR 0..255 of a hue in degrees, saturation and value in 0..1."""
    k = (np.array([1.0, 3.0, 5.0]) + hue % 360 / 60.0) % 6.0  # blue, green, red
    return 255 * value * (1 - saturation * np.clip(np.minimum(k, 4 - k), 0, 1))


def any_colour(rng: np.random.Generator) -> np.ndarray:
    """A colour of cloth without meaning: half of them muted."""
    saturation = rng.uniform(0.0, 0.3) if rng.random() < 0.5 else rng.uniform(0.3, 0.9)
    return hsv(rng.uniform(0, 360), saturation, rng.uniform(0.2, 0.95))


def side_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours of the left (cool, dark) and of the right side (warm, light)."""
    left, kind = hsv(*rng.uniform([170, 0.35, 0.2], [275, 0.95, 0.52])), rng.random()
    return left, hsv(*rng.uniform(*next(ranges for chance, *ranges in RIGHT_COLOURS if kind < chance)))


def plain(colour: np.ndarray, height: int = 4, width: int = 4) -> np.ndarray:
    """Texture (height, width, 3) uint8 of one colour."""
    return np.broadcast_to(np.clip(colour, 0, 255).astype(np.uint8), (height, width, 3)).copy()


def _cloth(rng: np.random.Generator, colour: np.ndarray, height: int, width: int, bare: float = 0.5) -> np.ndarray:
    """A piece of cloth with stripes, checks, dots or, with chance ``bare``, nothing on it."""
    cloth = plain(colour, height, width)
    if rng.random() < bare:
        return cloth
    second = np.clip(colour * rng.uniform(0.45, 0.75) if colour.mean() > 110 else colour + 75, 0, 255)
    kind, step = int(rng.integers(4)), int(rng.integers(6, 12))
    if kind < 3:  # along, around or both
        y, x = np.ogrid[:height, :width]
        cloth[(kind != 1) & (y % step <= step // 3) | (kind != 0) & (x % step <= step // 4)] = np.rint(second)
    else:
        for y in range(step // 2, height, step):
            for x in range((y // step % 2) * step // 2, width, step):
                cv2.circle(cloth, (x, y), max(1, step // 5), second.tolist(), -1)
    return cloth


def _wrinkle(rng: np.random.Generator, texture: np.ndarray) -> np.ndarray:
    h, w = texture.shape[:2]
    y, x = rng.integers(0, 128 - h + 1), rng.integers(0, 128 - w + 1)
    return np.clip(texture * WRINKLES[y : y + h, x : x + w, None], 0, 255).astype(np.uint8)


def _scale(region: np.ndarray, factor: float) -> None:
    region[...] = np.minimum(region * factor, 255).astype(np.uint8)


def _torso(rng, top, sides, lower_sides, skin, sleeve) -> np.ndarray:
    """Rows from the neck (0) over the shoulders, chest and waist (58 %) to the crotch."""
    h, w, (left, right) = 64, 100, sides
    texture, middle = _cloth(rng, top, h, w), w // 4  # of the front
    _scale(texture[:, w // 2 :], 0.62)  # the back is darker and plain enough to be known as one
    _scale(texture[:, : w // 2], 1.12)
    if rng.random() < 0.6:  # panels along the flanks, front and back
        wide = rng.integers(5, 17)
        texture[:, :wide] = texture[:, w - wide :] = left
        texture[:, w // 2 - wide : w // 2 + wide] = right
    if rng.random() < 0.3:  # shoulder yokes
        texture[6:18, : w // 4 - 6] = texture[6:18, 3 * w // 4 + 6 :] = left
        texture[6:18, w // 4 + 6 : 3 * w // 4 - 6] = right
    collar = rng.integers(4)
    light, tone = np.clip(top * 0.5 + 125, 0, 255).tolist(), skin.tolist()
    if collar == 0:  # V-neck
        cv2.fillConvexPoly(texture, np.array([[middle - 11, 0], [middle + 11, 0], [middle, 22]]), tone)
    elif collar == 1:  # open shirt with lapels
        cv2.fillConvexPoly(texture, np.array([[middle - 12, 0], [middle + 12, 0], [middle, 34]]), light)
        cv2.fillConvexPoly(texture, np.array([[middle - 6, 0], [middle + 6, 0], [middle, 14]]), tone)
        cv2.line(texture, (middle, 30), (middle, 44), (top * 0.4).tolist(), 1)
    elif collar == 2:  # round neck, a print on the chest
        cv2.ellipse(texture, (middle, 6), (12, 9), 0, 0, 360, tone, -1)
        cv2.ellipse(texture, (middle, 28), rng.integers([5, 4], [11, 9]).tolist(), 0, 0, 360, light, -1)
    else:  # zip or row of buttons
        cv2.line(texture, (middle, 4), (middle, 46), light, 2)
        cv2.ellipse(texture, (middle, 4), (9, 6), 0, 0, 360, tone, -1)
    texture[:6] = skin  # neck base
    if sleeve == 0.0:  # tank top: bare shoulders
        for x in (0, w // 2, w):
            cv2.ellipse(texture, (x, 10), (11, 9), 0, 0, 360, tone, -1)
    hem = int(rng.integers(43, 52))
    texture[hem:], texture[hem:, w // 4 : 3 * w // 4] = lower_sides
    dark = np.minimum(*lower_sides)
    if rng.random() < 0.5:  # belt
        texture[hem : hem + 3] = np.rint(dark * 0.4)
    if rng.random() < 0.12:  # strap of a bag from the right shoulder to the left hip
        cv2.line(texture, (int(w * 0.42), 8), (int(w * 0.06), 46), (dark * 0.35).tolist(), 3)
    return _wrinkle(rng, texture)


def _limb(rng, skin, colour, covered: float, leg: bool) -> np.ndarray:
    """An arm or a leg: cloth down to a hem, then skin, with bands that show the side of a bare limb."""
    h, w = (72, 36) if leg else (64, 24)
    texture, end = plain(skin, h, w), int(round(covered * h))
    texture[:end] = _cloth(rng, colour, h, w, bare=0.8 if leg else 0.75)[:end]
    if end < h or not leg:
        _scale(texture[max(end - 3, 0) : end], 0.7)  # hem
    if leg and end < 60:  # stocking, up to the knee or over the ankle only
        texture[int(rng.choice([40, 46, 56])) :] = colour * (0.85 if colour.mean() > 60 else 1.15)
    if not leg and end < 20:  # around the upper arm
        texture[16:25] = colour
    if not leg and end < 58 and rng.random() < 0.85:  # around the wrist
        texture[int(rng.integers(48, 54)) : 61] = colour
    return _wrinkle(rng, texture)


def _skirt(rng, colour, left, right) -> np.ndarray:
    w = 96
    texture = _cloth(rng, colour, 48, w)
    _scale(texture[:, w // 2 :], 0.75)
    if rng.random() < 0.6:
        texture[:, : w // 10] = texture[:, w - w // 10 :] = left
        texture[:, w // 2 - w // 10 : w // 2 + w // 10] = right
    _scale(texture[-4:], 0.65)
    folds = 1 + 0.12 * np.sin(np.arange(w) / w * 2 * np.pi * rng.integers(7, 14))
    return _wrinkle(rng, np.clip(texture * folds[:, None], 0, 255).astype(np.uint8))


def _face(rng: np.random.Generator, skin: np.ndarray, hair: np.ndarray, style: str, female: bool) -> np.ndarray:
    """Face and scalp (96, 192, 3) uint8; rows from the crown to the chin, the middle of the face at a quarter."""
    h, w = 96, 192
    texture = plain(skin, h, w).astype(np.float32)  # with warmer cheeks, darker under the chin
    around, rows = np.arange(w) / w, np.arange(h)[:, None] / h
    cheeks = np.exp(-(((np.abs(around - 0.25) - 0.09) / 0.04) ** 2)) * np.exp(-(((rows - 0.64) / 0.07) ** 2))
    texture *= 1 - cheeks[..., None] * [0.16, 0.13, 0.0]
    texture *= (1 - 0.25 * np.clip((rows - 0.82) / 0.18, 0, 1))[..., None]
    texture = np.clip(texture, 0, 255).astype(np.uint8)

    def at(column: float, row: float) -> tuple[int, int]:
        return round(column * w), round(row * h)

    def tone(factor) -> list[float]:
        return np.clip(skin * factor, 0, 255).tolist()

    def ellipse(centre, axes, colour, start=0, end=360, thickness=-1) -> None:
        cv2.ellipse(texture, centre, axes, 0, start, end, colour, thickness)

    brow = (np.minimum(hair, skin) * 0.7).tolist()
    iris = hsv(rng.uniform(0, 240), 0.6, 0.25).tolist()
    for column, row in EYES:
        centre = at(column, row)
        ellipse(centre, (9, 6), tone(0.66))  # socket
        ellipse(centre, (7, 4), (235.0, 238.0, 240.0))
        cv2.circle(texture, centre, 4, iris, -1)
        cv2.circle(texture, centre, 2, (10.0, 10.0, 10.0), -1)
        ellipse(at(column, row - 0.015), (8, 4), (20.0, 20.0, 25.0), 200, 340, 2 if female else 1)  # lashes
        ellipse(at(column, row - 0.055), (10, 4), brow, 195, 345, 2 if female else 3)
    for side in (-1, 1):  # nose: shaded flanks and nostrils, light ridge
        cv2.line(texture, at(0.25 + side * 0.017, 0.48), at(0.25 + side * 0.026, 0.60), tone(0.78), 2)
        ellipse(at(0.25 + side * 0.017, 0.615), (3, 2), tone(0.42))
    cv2.line(texture, at(0.25, 0.47), at(0.25, 0.58), tone(1.1), 3)
    mouth, opened = at(0.25, 0.735), rng.random() < 0.3
    ellipse(mouth, (11, 5 if opened else 3), tone([0.55, 0.5, 0.92] if female else [0.6, 0.6, 0.8]))
    ellipse(mouth, (8, 2 if opened else 1), (235.0, 235.0, 240.0) if opened and rng.random() < 0.6 else tone(0.3))
    if not female and rng.random() < 0.35:  # beard
        mask = cv2.rectangle(np.zeros((h, w), np.uint8), at(0.10, 0.66), at(0.40, 1.0), 255, -1)
        cv2.ellipse(mask, mouth, (12, 5), 0, 0, 360, 0, -1)
        texture[mask > 0] = hair * 0.9
    if style != "bald":
        texture[: int(0.2 * h)] = hair
        texture[: int(0.85 * h), np.abs((around + 0.25) % 1 - 0.5) > 0.3] = hair
    if rng.random() < 0.15:  # glasses
        for column, row in EYES:
            ellipse(at(column, row + 0.01), (12, 9), (25.0, 25.0, 30.0), thickness=2)
        cv2.line(texture, at(0.225, 0.47), at(0.275, 0.47), (25.0, 25.0, 30.0), 2)
    return texture
