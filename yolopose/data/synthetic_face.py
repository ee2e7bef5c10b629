"""Faces of the synthetic people: what makes nose, eyes and ears visible, and where they are."""

from __future__ import annotations

import cv2
import numpy as np

from yolopose.data.synthetic_colours import hsv, plain

# Places on the head as (column, row) shares of its texture; `synthetic_head.head_point` puts them into space.
NOSE = (0.25, 0.585)
EYES = ((0.182, 0.47), (0.318, 0.47))  # left, right
EARS = ((0.985, 0.53), (0.515, 0.53))


def face_texture(rng: np.random.Generator, skin: np.ndarray, hair: np.ndarray, style: str, female: bool) -> np.ndarray:
    """Texture (96, 192, 3) uint8 of face and scalp; rows from the crown to the chin, the face at a quarter."""
    h, w = 96, 192
    texture = plain(skin, h, w).astype(np.float32)
    # warmer cheeks, darker under the brow and the chin
    columns = np.abs(np.arange(w) / w - 0.25)
    rows = np.arange(h) / h
    cheeks = np.exp(-(((columns - 0.09) / 0.04) ** 2))[None] * np.exp(-(((rows - 0.64) / 0.07) ** 2))[:, None]
    texture *= 1 - cheeks[..., None] * [0.16, 0.13, 0.0]
    texture *= (1 - 0.25 * np.clip((rows - 0.82) / 0.18, 0, 1))[:, None, None]
    texture = np.clip(texture, 0, 255).astype(np.uint8)

    def at(place: tuple[float, float], dx: float = 0.0, dy: float = 0.0) -> tuple[int, int]:
        return int(round((place[0] + dx) * w)), int(round((place[1] + dy) * h))

    def tone(factor) -> tuple[float, ...]:
        return tuple(float(v) for v in np.clip(skin * factor, 0, 255))

    brow = tuple(float(v) for v in np.minimum(hair, skin) * 0.7)
    iris = tuple(float(v) for v in (hsv(rng.uniform(0, 240), 0.6, 0.25)))
    for place in EYES:
        cv2.ellipse(texture, at(place), (9, 6), 0, 0, 360, tone(0.66), -1)  # socket
        cv2.ellipse(texture, at(place), (7, 4), 0, 0, 360, (235.0, 238.0, 240.0), -1)
        cv2.circle(texture, at(place), 4, iris, -1)
        cv2.circle(texture, at(place), 2, (10.0, 10.0, 10.0), -1)
        cv2.ellipse(texture, at(place, dy=-0.015), (8, 4), 0, 200, 340, (20.0, 20.0, 25.0), 2 if female else 1)
        cv2.ellipse(texture, at(place, dy=-0.055), (10, 4), 0, 195, 345, brow, 2 if female else 3)
    for side in (-1, 1):  # nose: shaded flanks and nostrils, light ridge
        cv2.line(texture, at((0.25 + side * 0.017, 0.48)), at((0.25 + side * 0.026, 0.60)), tone(0.78), 2)
        cv2.ellipse(texture, at((0.25 + side * 0.017, 0.615)), (3, 2), 0, 0, 360, tone(0.42), -1)
    cv2.line(texture, at((0.25, 0.47)), at((0.25, 0.58)), tone(1.1), 3)
    lips = np.clip(skin * [0.55, 0.5, 0.92], 0, 255) if female else skin * [0.6, 0.6, 0.8]
    open_mouth = rng.random() < 0.3
    cv2.ellipse(texture, at((0.25, 0.735)), (11, 5 if open_mouth else 3), 0, 0, 360, tuple(map(float, lips)), -1)
    inner = (235.0, 235.0, 240.0) if open_mouth and rng.random() < 0.6 else tone(0.3)
    cv2.ellipse(texture, at((0.25, 0.735)), (8, 2 if open_mouth else 1), 0, 0, 360, inner, -1)
    if not female and rng.random() < 0.35:  # beard
        mask = np.zeros((h, w), np.uint8)
        cv2.rectangle(mask, at((0.10, 0.66)), at((0.40, 1.0)), 255, -1)
        cv2.ellipse(mask, at((0.25, 0.735)), (12, 5), 0, 0, 360, 0, -1)
        texture[mask > 0] = hair * 0.9
    if style != "bald":
        texture[: int(0.2 * h)] = hair
        back = np.abs((np.arange(w) / w + 0.25) % 1 - 0.5) > 0.3
        texture[: int(0.85 * h), back] = hair
    if rng.random() < 0.15:  # glasses
        frame = (25.0, 25.0, 30.0)
        for place in EYES:
            cv2.ellipse(texture, at(place, dy=0.01), (12, 9), 0, 0, 360, frame, 2)
        cv2.line(texture, at((0.225, 0.47)), at((0.275, 0.47)), frame, 2)
    return texture
