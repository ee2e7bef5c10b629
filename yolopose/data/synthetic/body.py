"""Surfaces of a dressed person on a skeleton, and the places of COCO's seventeen keypoints on them.

Heads of the synthetic people: skull, nose, neck, ears, hair and hats.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from yolopose.data.synthetic.looks import EARS, EYES, NOSE, Looks, plain
from yolopose.data.synthetic.raster import Patch, ellipsoid, tube, unit
from yolopose.data.synthetic.skeleton import Skeleton

# Rings of the limbs: (segment, position along it, radius in statures).
_ARM = np.array(
    [(0, -0.22, 0.004), (0, -0.19, 0.020), (0, -0.06, 0.034), (0, 0.10, 0.039), (0, 0.35, 0.037), (0, 0.75, 0.032)]
    + [(0, 1.0, 0.030), (1, 0.2, 0.032), (1, 0.45, 0.030), (1, 0.8, 0.022), (1, 1.0, 0.019), (1, 1.06, 0.010)]
)
_LEG = np.array(
    [(0, -0.2, 0.02), (0, -0.14, 0.046), (0, 0.0, 0.060), (0, 0.2, 0.064), (0, 0.5, 0.057), (0, 0.82, 0.046)]
    + [(0, 1.0, 0.043), (1, 0.15, 0.042), (1, 0.35, 0.044), (1, 0.65, 0.036), (1, 0.9, 0.026), (1, 1.05, 0.024)]
    + [(1, 1.1, 0.012)]
)
# Rings of the torso: (distance below the shoulder line in shares of the spine, half width, half depth).
_TORSO_MALE = np.array(
    [(-0.20, 0.032, 0.034), (-0.11, 0.038, 0.040), (-0.05, 0.074, 0.052), (0.03, 0.106, 0.062), (0.13, 0.116, 0.070)]
    + [(0.28, 0.112, 0.076), (0.45, 0.102, 0.074), (0.65, 0.092, 0.068), (0.82, 0.100, 0.073), (1.0, 0.111, 0.079)]
    + [(1.14, 0.106, 0.076), (1.24, 0.07, 0.06), (1.3, 0.02, 0.02)]
)
_TORSO_FEMALE = _TORSO_MALE * 1.0


_TORSO_FEMALE[:, 1] *= [1, 1, 0.9, 0.9, 0.88, 0.87, 0.84, 0.85, 0.98, 1.08, 1.08, 1.05, 1]


_TORSO_FEMALE[:, 2] *= [0.9, 0.9, 0.92, 0.95, 1.02, 1.16, 1.06, 0.93, 1.0, 1.06, 1.08, 1.0, 1]


_SKULL = np.array([0.055, 0.079, 0.064])  # half width, half height, half depth in statures


def keypoints(skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """COCO's keypoints of a skeleton.

    Returns:
        points: (17, 3) camera frame of the person, statures.
        depth_margin: (17,) how much nearer than the joint its own body surface may lie and still show the joint.
        facing: (17,) cosine between the surface normal at a face point and the way to the camera; 1 for the others.
    """
    column, row = np.array([NOSE, *EYES, *EARS]).T
    face, normal = head_point(column, row, skeleton)
    normal = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    body = np.stack([skeleton.arms, skeleton.legs])  # limb, side, joint
    body = body.transpose(0, 2, 1, 3).reshape(12, 3)
    girth = skeleton.size.girth
    margin = np.repeat([0.07, 0.055, 0.045, 0.10, 0.07, 0.055], 2) * girth
    margin = np.concatenate([np.full(5, 0.03) * skeleton.size.head, margin])
    return np.concatenate([face, body]), margin, np.concatenate([-normal[:, 2], np.ones(12)])


def person_patches(skeleton: Skeleton, looks: Looks, detail: float) -> list[Patch]:
    """All surfaces of a person.

    Args:
        detail: height of the person in pixels; small people are built from fewer pieces.
    """
    torso = _torso(skeleton, looks)
    patches = [torso, *_limbs(skeleton, looks, detail), *head_patches(skeleton, looks, detail)]
    if looks.skirt is not None:
        patches.append(_skirt(skeleton, looks))
    if looks.backpack is not None:
        back, down = skeleton.chest_frame[:, 2], skeleton.chest_frame[:, 1]
        centre = skeleton.chest + 0.14 * down + 0.105 * back
        colour = np.clip(looks.backpack, 0, 255).astype(np.uint8)
        patches.append(ellipsoid(centre, skeleton.chest_frame, (0.085, 0.125, 0.06), plain(colour)))
    return patches


def _torso(skeleton: Skeleton, looks: Looks) -> Patch:
    rings = _TORSO_FEMALE if looks.female else _TORSO_MALE
    below = rings[:, 0:1]
    spine = skeleton.size.spine
    low, high = skeleton.pelvis_frame, skeleton.chest_frame
    waist = skeleton.pelvis - 0.4 * spine * low[:, 1]
    centres = np.where(
        below < 0.6, skeleton.chest + below * spine * high[:, 1], waist + (below - 0.6) * spine * low[:, 1]
    )
    blend = np.clip((below - 0.3) / 0.55, 0, 1)
    e1 = unit((1 - blend) * high[:, 0] + blend * low[:, 0])
    e2 = unit(-(1 - blend) * high[:, 2] - blend * low[:, 2])
    girth = skeleton.size.girth
    stout = np.where((below[:, 0] > 0.2) & (below[:, 0] < 1.1), girth**1.3, girth**0.7)
    wide = stout * np.where(below[:, 0] < 0.3, skeleton.size.shoulder / 0.112, 1.0)
    return tube(
        centres,
        e1,
        e2,
        rings[:, 1] * wide + looks.loose * 0.6,
        rings[:, 2] * stout + looks.loose * 0.6,
        looks.torso,
        20,
    )


def _limb(joints, hinge, rings, girth, covered, loose, texture) -> Patch:
    """Arm or leg as one bent tube; ``covered`` is the share of it under cloth."""
    first, second = joints[1] - joints[0], joints[2] - joints[1]
    segment, t, radius = rings.T
    lower = (segment == 1)[:, None]
    centres = np.where(lower, joints[1] + t[:, None] * second, joints[0] + t[:, None] * first)
    position = segment + t  # 1 at the elbow or knee
    blend = np.clip((position - 0.78) / 0.44, 0, 1)[:, None]
    tangent = unit((1 - blend) * unit(first) + blend * unit(second))
    cloth = np.where(position / 2 <= covered + 0.02, loose, 0.0)
    radius = radius * girth + cloth
    return tube(centres, hinge, np.cross(tangent, hinge), radius, radius, texture, 12)


def _limbs(skeleton: Skeleton, looks: Looks, detail: float) -> list[Patch]:
    girth = skeleton.size.girth
    patches = []
    for side in (0, 1):
        arm, leg = skeleton.arms[side], skeleton.legs[side]
        patches.append(_limb(arm, skeleton.arm_hinges[side], _ARM, girth, looks.sleeve, looks.loose, looks.arms[side]))
        patches.append(_limb(leg, skeleton.leg_hinges[side], _LEG, girth, looks.trouser, looks.loose, looks.legs[side]))
        down, left = unit(arm[2] - arm[1]), skeleton.arm_hinges[side]
        frame = np.stack([left, down, np.cross(left, down)], 1)
        patches.append(ellipsoid(arm[2] + 0.038 * down, frame, (0.019, 0.048, 0.024), looks.hands[side], 7, 10))
        if detail > 110:  # the thumb points forward and inward
            thumb = frame @ [(-0.5, 0.5)[side], 0.55, -0.65]
            path = arm[2] + 0.018 * down + np.linspace(0, 0.045, 4)[:, None] * thumb
            across = unit(np.cross(thumb, down))
            wide = np.array([0.008, 0.010, 0.009, 0.003])
            patches.append(tube(path, across, np.cross(unit(thumb), across), wide, wide, looks.hands[side], 8))
        foot = skeleton.foot_frames[side]
        ahead = np.array([-0.05, -0.048, -0.04, -0.01, 0.03, 0.07, 0.105, 0.12, 0.122])
        centres = (
            leg[2] + 0.026 * foot[:, 1] - ahead[:, None] * foot[:, 2] + 0.006 * (ahead[:, None] / 0.1) * foot[:, 1]
        )
        wide = np.array([0.0005, 0.010, 0.024, 0.029, 0.031, 0.034, 0.026, 0.008, 0.0005]) * girth**0.5
        high = np.array([0.0005, 0.012, 0.03, 0.034, 0.028, 0.021, 0.016, 0.006, 0.0005])
        patches.append(tube(centres, foot[:, 0], -foot[:, 1], wide, high, looks.shoes[side], 10, gloss=0.2))
    return patches


def _skirt(skeleton: Skeleton, looks: Looks) -> Patch:
    """Skirt or coat tail: rings around both thighs from the waist down."""
    frame, girth = skeleton.pelvis_frame, skeleton.size.girth
    s = np.linspace(0, 1, 8)
    knee = np.minimum(looks.skirt_end * s, 1.0)[:, None]
    shin = np.maximum(looks.skirt_end * s - 1.0, 0.0)[:, None]
    hips, knees, ankles = skeleton.legs[:, 0], skeleton.legs[:, 1], skeleton.legs[:, 2]
    legs = hips[:, None] + knee * (knees - hips)[:, None] + shin * (ankles - knees)[:, None]  # (2, 8, 3)
    top = skeleton.pelvis - 0.09 * frame[:, 1]
    start = np.clip(s / 0.25, 0, 1)[:, None]
    centres = (1 - start) * top + start * legs.mean(0)
    across = legs[0] - legs[1]
    e1 = unit((1 - start) * frame[:, 0] + start * (across + 1e-3 * frame[:, 0]))
    e1 = np.where((across * e1).sum(-1, keepdims=True) < 0, -e1, e1)
    e2 = np.cross(unit(np.gradient(centres, axis=0)), e1)
    gap = np.linalg.norm(across, axis=-1) / 2
    half = np.where(s < 0.2, 0.1, gap + 0.062) * girth + 0.008 + 0.02 * s
    return tube(centres, e1, unit(e2), half, (0.082 + 0.012 * s) * girth + 0.008, looks.skirt, 18, two_sided=True)


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
