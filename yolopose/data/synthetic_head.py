"""Heads of the synthetic people: skull, nose, neck, ears, hair and hats."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from yolopose.data.synthetic_colours import plain
from yolopose.data.synthetic_face import EARS, NOSE
from yolopose.data.synthetic_raster import Patch
from yolopose.data.synthetic_skeleton import Skeleton
from yolopose.data.synthetic_surfaces import ellipsoid, tube, unit
from yolopose.data.synthetic_wardrobe import Looks

_SKULL = np.array([0.055, 0.079, 0.064])  # half width, half height, half depth in statures


def head_point(column, row, skeleton: Skeleton, grow: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Points on the skull and outward normals at places of the head texture (shares of its width and height)."""
    column, row = np.asarray(column, float), np.asarray(row, float)
    theta, phi = 2 * np.pi * column, np.pi * row
    ring = np.sin(phi)
    jaw = 1 - 0.28 * np.clip((row - 0.62) / 0.38, 0, 1)  # the face narrows towards the chin
    front = np.sin(theta) * ring
    nose = np.exp(-(((column - NOSE[0]) / 0.024) ** 2) - ((row - NOSE[1] + 0.01) / 0.07) ** 2)
    unit = np.stack([ring * jaw * np.cos(theta), -np.cos(phi) * np.ones_like(theta), -front * (1 + 0.22 * nose)], -1)
    unit[..., 2] -= 0.12 * np.clip((row - 0.6) / 0.4, 0, 1)  # and the chin stays in front
    radii = _SKULL * skeleton.size.head * grow
    frame = skeleton.head_frame
    normal = np.stack([ring * np.cos(theta), -np.cos(phi) * np.ones_like(theta), -front], -1) / radii
    return skeleton.head + (unit * radii) @ frame.T, normal @ frame.T


def head_patches(skeleton: Skeleton, looks: Looks, detail: float) -> list[Patch]:
    """Face, neck, ears, hair and hat; ``detail`` is the height of the person in pixels."""
    frame, size = skeleton.head_frame, skeleton.size.head
    rows, columns = np.meshgrid(np.linspace(0.001, 0.999, 17), np.linspace(0, 1, 25), indexing="ij")
    points, normals = head_point(columns, rows, skeleton)
    du, dv = np.gradient(points, axis=1), np.gradient(points, axis=0)
    bump = np.cross(du, dv)  # true normals of the face, so that the nose is shaded
    bump *= np.sign((bump * normals).sum(-1, keepdims=True) + 1e-12)
    inner = (rows > 0.3) & (rows < 0.9) & (np.abs(columns - 0.25) < 0.12)
    normals = np.where(inner[..., None], unit(bump), unit(normals))
    patches = [Patch(points, normals, looks.head)]
    neck_top = skeleton.head + 0.035 * size * frame[:, 1] + 0.012 * frame[:, 2]
    neck_bottom = skeleton.chest + 0.01 * skeleton.chest_frame[:, 1] + 0.008 * skeleton.chest_frame[:, 2]
    along = np.linspace(0, 1, 4)[:, None]
    patches.append(
        tube(
            neck_bottom + along * (neck_top - neck_bottom),
            skeleton.chest_frame[:, 0],
            -skeleton.chest_frame[:, 2],
            np.array([0.042, 0.034, 0.033, 0.033]) * skeleton.size.girth**0.5,
            np.array([0.04, 0.034, 0.033, 0.033]) * skeleton.size.girth**0.5,
            plain(looks.skin * 0.85),
            10,
        )
    )
    hidden_ears = looks.hair_style in ("bob", "long", "afro", "beanie")
    if not hidden_ears and detail > 24:
        for place in EARS:
            point, _ = head_point(*place, skeleton)
            ear = ellipsoid(point, frame, np.array([0.012, 0.022, 0.014]) * size, plain(looks.skin * 0.92), 6, 8)
            patches.append(ear)
    return patches + _hair(skeleton, looks, frame, size)


@lru_cache(maxsize=64)
def _opening(fringe: float, half_width: float, nape: float, taper: float) -> np.ndarray:
    """Alpha of a hair shell over the skull: a hole for the face below the fringe, nothing below the nape."""
    rows, columns = np.meshgrid((np.arange(48) + 0.5) / 48, (np.arange(96) + 0.5) / 96, indexing="ij")
    from_front = np.abs((columns + 0.25) % 1 - 0.5)
    limit = half_width + taper * np.clip(rows - fringe, 0, 1)
    face = (rows > fringe + 0.25 * from_front) & (from_front < limit)
    return np.where(face | (rows > nape), 0, 255).astype(np.uint8)


def _shell(skeleton, colour, grow, fringe, half_width, nape, taper=0.0) -> Patch:
    rows, columns = np.meshgrid(np.linspace(0.001, 0.999, 13), np.linspace(0, 1, 21), indexing="ij")
    points, normals = head_point(columns, rows, skeleton, grow)
    alpha = _opening(fringe, half_width, nape, taper)
    texture = np.empty((*alpha.shape, 4), np.uint8)
    strands = 1 + 0.10 * np.sin(np.arange(alpha.shape[1]) * 1.7)[None, :, None]
    texture[..., :3] = np.clip(colour * strands, 0, 255).astype(np.uint8)
    texture[..., 3] = alpha
    return Patch(points, normals, texture, True, 0.25)


def _hair(skeleton: Skeleton, looks: Looks, frame: np.ndarray, size: float) -> list[Patch]:
    style, hair = looks.hair_style, np.clip(looks.hair, 0, 255)
    down, back = frame[:, 1], frame[:, 2]
    if style == "bald":
        return []
    if style in ("cap", "beanie"):
        patches = [_shell(skeleton, looks.hat, 1.1, 0.33, 0.5, 0.42 if style == "cap" else 0.5)]
        patches.append(_shell(skeleton, hair, 1.05, 0.33, 0.27, 0.72))
        if style == "cap":
            centre = skeleton.head - 0.032 * size * down - 0.085 * size * back
            patches.append(
                ellipsoid(centre, frame, np.array([0.05, 0.007, 0.045]) * size, plain(looks.hat * 0.85), 7, 12)
            )
        return patches
    if style == "afro":
        return [_shell(skeleton, hair, 1.32, 0.36, 0.2, 0.7)]
    if style in ("short", "side"):
        return [_shell(skeleton, hair, 1.07, 0.27 if style == "short" else 0.33, 0.3, 0.72, -0.1)]
    patches = [_shell(skeleton, hair, 1.1, 0.3, 0.2, 0.86, -0.05)]
    if style in ("bob", "long"):  # a curtain down the neck or the back, open in front
        length = 0.1 if style == "bob" else 0.22
        t = np.linspace(0, 1, 6)[:, None]
        start = skeleton.head - 0.02 * size * down + 0.012 * back
        chest_down, chest_back = skeleton.chest_frame[:, 1], skeleton.chest_frame[:, 2]
        end = skeleton.head + 0.06 * size * down + length * (0.5 * chest_down + 0.5 * down) + 0.045 * chest_back
        texture = np.empty((8, 64, 4), np.uint8)
        strands = 1 + 0.12 * np.sin(np.arange(64) * 1.3)[:, None]
        texture[..., :3] = np.clip(hair * strands, 0, 255).astype(np.uint8)
        from_front = np.abs(((np.arange(64) + 0.5) / 64 + 0.25) % 1 - 0.5)
        texture[..., 3] = np.where(from_front < 0.21, 0, 255)
        wide = np.array([0.058, 0.064, 0.067, 0.069, 0.066, 0.05]) * size
        deep = np.array([0.066, 0.066, 0.06, 0.05, 0.045, 0.03]) * size
        patches.append(tube(start + t * (end - start), frame[:, 0], -back, wide, deep, texture, 16, True, 0.2))
    elif style == "bun":
        centre = skeleton.head - 0.06 * size * down + 0.06 * size * back
        patches.append(ellipsoid(centre, frame, np.full(3, 0.032 * size), plain(hair), 7, 10, 0.2))
    else:  # ponytail
        t = np.linspace(0, 1, 6)[:, None]
        start = skeleton.head - 0.03 * size * down + 0.065 * size * back
        path = start + t * (0.17 * skeleton.chest_frame[:, 1]) + 0.05 * np.sin(np.pi * t) * back
        radius = np.array([0.012, 0.024, 0.026, 0.023, 0.016, 0.003]) * size
        patches.append(tube(path, frame[:, 0], -back, radius, radius, plain(hair), 10, gloss=0.2))
    return patches
