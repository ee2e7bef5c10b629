"""The body on a skeleton: surfaces of trunk, limbs, head, hair and hat, and the places of COCO's seventeen keypoints.

Lengths are statures, points lie in the camera frame of the person. Measures of the parts were chosen by eye.
"""

import numpy as np

from yolopose.data.synthetic.looks import EARS, EYES, NOSE, Looks, plain
from yolopose.data.synthetic.raster import Patch, ellipsoid, tube, unit
from yolopose.data.synthetic.skeleton import Skeleton

# Grids over the head texture, (column, row); their ends are not quite the poles, where normals would vanish.
FACE_GRID, HAIR_GRID = (np.meshgrid(np.linspace(0, 1, columns), np.linspace(0.001, 0.999, rows))
                        for columns, rows in ((25, 17), (21, 13)))
INNER_FACE = ((np.abs(FACE_GRID[0] - 0.25) < 0.12) & (FACE_GRID[1] > 0.3) & (FACE_GRID[1] < 0.9))[..., None]
# Rings of the limbs: (segment, position along it, radius).
ARM = np.array([
    (0, -0.22, 0.004), (0, -0.19, 0.020), (0, -0.06, 0.034), (0, 0.10, 0.039), (0, 0.35, 0.037), (0, 0.75, 0.032),
    (0, 1.0, 0.030), (1, 0.2, 0.032), (1, 0.45, 0.030), (1, 0.8, 0.022), (1, 1.0, 0.019), (1, 1.06, 0.010),
])  # fmt: skip
LEG = np.array([
    (0, -0.2, 0.02), (0, -0.14, 0.046), (0, 0.0, 0.060), (0, 0.2, 0.064), (0, 0.5, 0.057), (0, 0.82, 0.046),
    (0, 1.0, 0.043), (1, 0.15, 0.042), (1, 0.35, 0.044), (1, 0.65, 0.036), (1, 0.9, 0.026), (1, 1.05, 0.024),
    (1, 1.1, 0.012),
])  # fmt: skip
# Rings of the foot: (distance before the ankle, half width, half height).
FOOT = np.array([
    (-0.05, 0.0005, 0.0005), (-0.048, 0.010, 0.012), (-0.04, 0.024, 0.03), (-0.01, 0.029, 0.034), (0.03, 0.031, 0.028),
    (0.07, 0.034, 0.021), (0.105, 0.026, 0.016), (0.12, 0.008, 0.006), (0.122, 0.0005, 0.0005),
])  # fmt: skip
# Rings of the torso: (distance below the shoulder line in shares of the spine, half width, half depth).
TORSO_MALE = np.array([
    (-0.20, 0.032, 0.034), (-0.11, 0.038, 0.040), (-0.05, 0.074, 0.052), (0.03, 0.106, 0.062), (0.13, 0.116, 0.070),
    (0.28, 0.112, 0.076), (0.45, 0.102, 0.074), (0.65, 0.092, 0.068), (0.82, 0.100, 0.073), (1.0, 0.111, 0.079),
    (1.14, 0.106, 0.076), (1.24, 0.07, 0.06), (1.3, 0.02, 0.02),
])  # fmt: skip
TORSO_FEMALE = TORSO_MALE * np.stack([
    np.ones(13),
    [1, 1, 0.9, 0.9, 0.88, 0.87, 0.84, 0.85, 0.98, 1.08, 1.08, 1.05, 1],
    [0.9, 0.9, 0.92, 0.95, 1.02, 1.16, 1.06, 0.93, 1.0, 1.06, 1.08, 1.0, 1],
], axis=1)  # fmt: skip
SKULL = np.array([0.055, 0.079, 0.064])  # half width, half height, half depth
FACE_DEPTH = 0.03  # how much nearer than a keypoint its own body's surface may lie and still show it: of the face,
LIMB_DEPTHS = np.array([0.07, 0.055, 0.045, 0.10, 0.07, 0.055])  # of shoulder, elbow, wrist, hip, knee, ankle


def _from_front(columns: int) -> np.ndarray:
    """Way around the head from the middle of the face to each column, in shares of the circumference, 0..0.5."""
    return np.abs(((np.arange(columns) + 0.5) / columns + 0.25) % 1 - 0.5)


def _solid(fringe: float, half_width: float, nape: float, taper: float = 0.0) -> np.ndarray:
    """Texture of hair or hat, (48, 96) bool: open for the face below the row ``fringe``, ending at the row ``nape``."""
    rows, from_front = (np.arange(48)[:, None] + 0.5) / 48, _from_front(96)
    limit = half_width + taper * np.clip(rows - fringe, 0, 1)
    return ~((rows > fringe + 0.25 * from_front) & (from_front < limit)) & (rows <= nape)


# What lies over the skull: (hair or hat, growth, where it is solid).
SCALP = ("hair", 1.1, _solid(0.3, 0.2, 0.86, -0.05))
UNDER_HAT = ("hair", 1.05, _solid(0.33, 0.27, 0.72))
SHELLS = {
    "bald": [],
    "afro": [("hair", 1.32, _solid(0.36, 0.2, 0.7))],
    "short": [("hair", 1.07, _solid(0.27, 0.3, 0.72, -0.1))],
    "side": [("hair", 1.07, _solid(0.33, 0.3, 0.72, -0.1))],
    "cap": [("hat", 1.1, _solid(0.33, 0.5, 0.42)), UNDER_HAT],
    "beanie": [("hat", 1.1, _solid(0.33, 0.5, 0.5)), UNDER_HAT],
}  # and the scalp for all others
CURTAIN = np.tile(_from_front(64) >= 0.21, (8, 1))  # of long hair, open in front


def keypoints(skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """COCO's keypoints of a skeleton, (17, 3), with (17,) how much nearer its own body's surface may lie and still show
    each, and (17,) the cosine between the surface normal at a face point and the way to the camera, 1 for the others.
    """
    face, normal = head_point(*np.array([NOSE, *EYES, *EARS]).T, skeleton)
    normal = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    limbs = np.stack([skeleton.arms, skeleton.legs]).transpose(0, 2, 1, 3).reshape(12, 3)  # limb, keypoint, side, xyz
    margin = [np.full(5, FACE_DEPTH) * skeleton.size.head, np.repeat(LIMB_DEPTHS, 2) * skeleton.size.girth]
    return np.concatenate([face, limbs]), np.concatenate(margin), np.concatenate([-normal[:, 2], np.ones(12)])


def head_point(column, row, skeleton: Skeleton, grow: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Points on the skull and outward normals at places of the head texture (shares of its width and height)."""
    theta, phi = 2 * np.pi * column, np.pi * row
    ring = np.sin(phi)
    jaw = 1 - 0.28 * np.clip((row - 0.62) / 0.38, 0, 1)  # the face narrows towards the chin
    front = np.sin(theta) * ring
    nose = np.exp(-(((column - NOSE[0]) / 0.024) ** 2) - ((row - NOSE[1] + 0.01) / 0.07) ** 2)
    down = -np.cos(phi)
    shape = np.stack([ring * jaw * np.cos(theta), down, -front * (1 + 0.22 * nose)], -1)
    shape[..., 2] -= 0.12 * np.clip((row - 0.6) / 0.4, 0, 1)  # and the chin stays in front
    radii, frame = SKULL * skeleton.size.head * grow, skeleton.head_frame
    normal = np.stack([ring * np.cos(theta), down, -front], -1) / radii
    return skeleton.head + (shape * radii) @ frame.T, normal @ frame.T


def person_patches(skeleton: Skeleton, looks: Looks, detail: float) -> list[Patch]:
    """All surfaces of a person; fewer where ``detail``, the person's height in pixels, is small."""
    patches = [_torso(skeleton, looks), *_limbs(skeleton, looks, 0, detail), *_limbs(skeleton, looks, 1, detail),
               *_head(skeleton, looks, detail), *_hair(skeleton, looks)]
    patches += [_skirt(skeleton, looks)] if looks.skirt is not None else []
    if looks.backpack is not None:
        frame = skeleton.chest_frame
        centre = skeleton.chest + 0.14 * frame[:, 1] + 0.105 * frame[:, 2]
        patches.append(ellipsoid(centre, frame, (0.085, 0.125, 0.06), plain(looks.backpack)))
    return patches


def _torso(skeleton: Skeleton, looks: Looks) -> Patch:
    below, width, depth = (TORSO_FEMALE if looks.female else TORSO_MALE).T
    spine, girth = skeleton.size.spine, skeleton.size.girth
    low, high = skeleton.pelvis_frame, skeleton.chest_frame
    waist = -0.4 * spine * low[:, 1]
    along = below[:, None]
    centres = np.where(along < 0.6, skeleton.chest + along * spine * high[:, 1],
                       waist + (along - 0.6) * spine * low[:, 1])
    blend = np.clip((along - 0.3) / 0.55, 0, 1)
    e1 = unit((1 - blend) * high[:, 0] + blend * low[:, 0])
    e2 = unit(-(1 - blend) * high[:, 2] - blend * low[:, 2])
    stout = np.where((below > 0.2) & (below < 1.1), girth**1.3, girth**0.7)
    wide = stout * np.where(below < 0.3, skeleton.size.shoulder / 0.112, 1.0)
    return tube(centres, e1, e2, width * wide + looks.loose * 0.6, depth * stout + looks.loose * 0.6, looks.torso, 20)


def _limbs(skeleton: Skeleton, looks: Looks, side: int, detail: float) -> list[Patch]:
    girth = skeleton.size.girth
    arm, hinge, leg = skeleton.arms[side], skeleton.arm_hinges[side], skeleton.legs[side]
    patches = [_limb(arm, hinge, ARM, girth, looks.sleeve, looks.loose, looks.arms[side]),
               _limb(leg, skeleton.leg_hinges[side], LEG, girth, looks.trouser, looks.loose, looks.legs[side])]
    down = unit(arm[2] - arm[1])
    frame = np.stack([hinge, down, np.cross(hinge, down)], 1)
    patches.append(ellipsoid(arm[2] + 0.038 * down, frame, (0.019, 0.048, 0.024), looks.hands[side], 7, 10))
    if detail > 110:  # the thumb points forward and inward
        thumb = frame @ [(-0.5, 0.5)[side], 0.55, -0.65]
        path = arm[2] + 0.018 * down + np.linspace(0, 0.045, 4)[:, None] * thumb
        across = unit(np.cross(thumb, down))
        radius = np.array([0.008, 0.010, 0.009, 0.003])
        patches.append(tube(path, across, np.cross(unit(thumb), across), radius, radius, looks.hands[side], 8))
    left, down, back = skeleton.foot_frames[side].T
    ahead, (width, height) = FOOT[:, :1], FOOT[:, 1:].T
    path = leg[2] + 0.026 * down - ahead * back + 0.006 * (ahead / 0.1) * down
    patches.append(tube(path, left, -down, width * girth**0.5, height, looks.shoes[side], 10, gloss=0.2))
    return patches


def _limb(joints, hinge, rings, girth, covered, loose, texture) -> Patch:
    """Arm or leg as one bent tube; ``covered`` is the share of it under cloth."""
    first, second = joints[1] - joints[0], joints[2] - joints[1]
    segment, t, radius = rings.T
    centres = np.where((segment == 1)[:, None], joints[1] + t[:, None] * second, joints[0] + t[:, None] * first)
    position = segment + t  # 1 at the elbow or knee
    blend = np.clip((position - 0.78) / 0.44, 0, 1)[:, None]
    tangent = unit((1 - blend) * unit(first) + blend * unit(second))
    radius = radius * girth + np.where(position / 2 <= covered + 0.02, loose, 0.0)
    return tube(centres, hinge, np.cross(tangent, hinge), radius, radius, texture, 12)


def _skirt(skeleton: Skeleton, looks: Looks) -> Patch:
    """Skirt or coat tail: rings around both thighs from the waist down."""
    frame, girth = skeleton.pelvis_frame, skeleton.size.girth
    s = np.linspace(0, 1, 8)
    thigh = np.minimum(looks.skirt_end * s, 1.0)[:, None]
    shank = np.maximum(looks.skirt_end * s - 1.0, 0.0)[:, None]
    hips, knees, ankles = skeleton.legs.swapaxes(0, 1)
    legs = hips[:, None] + thigh * (knees - hips)[:, None] + shank * (ankles - knees)[:, None]  # (2, 8, 3)
    start = np.clip(s / 0.25, 0, 1)[:, None]
    centres = (1 - start) * (-0.09 * frame[:, 1]) + start * legs.mean(0)
    across = legs[0] - legs[1]
    e1 = unit((1 - start) * frame[:, 0] + start * (across + 1e-3 * frame[:, 0]))
    e1 = np.where((across * e1).sum(-1, keepdims=True) < 0, -e1, e1)
    e2 = np.cross(unit(np.gradient(centres, axis=0)), e1)
    gap = np.linalg.norm(across, axis=-1) / 2
    half = np.where(s < 0.2, 0.1, gap + 0.062) * girth + 0.008 + 0.02 * s
    return tube(centres, e1, unit(e2), half, (0.082 + 0.012 * s) * girth + 0.008, looks.skirt, 18, two_sided=True)


def _head(skeleton: Skeleton, looks: Looks, detail: float) -> list[Patch]:
    frame, size = skeleton.head_frame, skeleton.size.head
    points, normals = head_point(*FACE_GRID, skeleton)
    bump = np.cross(np.gradient(points, axis=1), np.gradient(points, axis=0))  # true normals, which shade the nose
    bump *= np.sign((bump * normals).sum(-1, keepdims=True) + 1e-12)
    patches = [Patch(points, np.where(INNER_FACE, unit(bump), unit(normals)), looks.head)]
    left, down, back = skeleton.chest_frame.T
    top = skeleton.head + 0.035 * size * frame[:, 1] + 0.012 * frame[:, 2]
    bottom = skeleton.chest + 0.01 * down + 0.008 * back
    width, depth = np.array([[0.042, 0.034, 0.033, 0.033], [0.04, 0.034, 0.033, 0.033]]) * skeleton.size.girth**0.5
    neck = bottom + np.linspace(0, 1, 4)[:, None] * (top - bottom)
    patches.append(tube(neck, left, -back, width, depth, plain(looks.skin * 0.85), 10))
    if detail > 24 and looks.hair_style not in ("bob", "long", "afro", "beanie"):  # those hide the ears
        radii, skin = np.array([0.012, 0.022, 0.014]) * size, plain(looks.skin * 0.92)
        patches += [ellipsoid(head_point(*ear, skeleton)[0], frame, radii, skin, 6, 8) for ear in EARS]
    return patches


def _hair(skeleton: Skeleton, looks: Looks) -> list[Patch]:
    style, hair, frame, size, patches = looks.hair_style, looks.hair, skeleton.head_frame, skeleton.size.head, []
    for what, grow, solid in SHELLS.get(style, [SCALP]):
        points, normals = head_point(*HAIR_GRID, skeleton, grow)
        patches.append(Patch(points, normals, _strands(getattr(looks, what), solid, 0.10, 1.7), True, 0.25))
    down, back = frame[:, 1], frame[:, 2]
    chest_down, chest_back = skeleton.chest_frame[:, 1], skeleton.chest_frame[:, 2]
    t = np.linspace(0, 1, 6)[:, None]
    match style:
        case "cap":  # its brim
            centre, radii = skeleton.head - 0.032 * size * down - 0.085 * size * back, np.array([0.05, 0.007, 0.045])
            patches.append(ellipsoid(centre, frame, radii * size, plain(looks.hat * 0.85), 7, 12))
        case "bun":
            centre = skeleton.head - 0.06 * size * down + 0.06 * size * back
            patches.append(ellipsoid(centre, frame, np.full(3, 0.032 * size), plain(hair), 7, 10, 0.2))
        case "ponytail":
            start = skeleton.head - 0.03 * size * down + 0.065 * size * back
            path = start + t * (0.17 * chest_down) + 0.05 * np.sin(np.pi * t) * back
            radius = np.array([0.012, 0.024, 0.026, 0.023, 0.016, 0.003]) * size
            patches.append(tube(path, frame[:, 0], -back, radius, radius, plain(hair), 10, gloss=0.2))
        case "bob" | "long":  # a curtain down the neck or the back, open in front
            length = 0.1 if style == "bob" else 0.22
            start = skeleton.head - 0.02 * size * down + 0.012 * back
            end = skeleton.head + 0.06 * size * down + length * (0.5 * chest_down + 0.5 * down) + 0.045 * chest_back
            texture = _strands(hair, CURTAIN, 0.12, 1.3)
            wide = np.array([0.058, 0.064, 0.067, 0.069, 0.066, 0.05]) * size
            deep = np.array([0.066, 0.066, 0.06, 0.05, 0.045, 0.03]) * size
            patches.append(tube(start + t * (end - start), frame[:, 0], -back, wide, deep, texture, 16, True, 0.2))
    return patches


def _strands(colour: np.ndarray, solid: np.ndarray, depth: float, rate: float) -> np.ndarray:
    """Texture of streaks along the rows with holes where ``solid`` (h, w) is false."""
    streaks = np.clip(colour * (1 + depth * np.sin(np.arange(solid.shape[1]) * rate)[:, None]), 0, 255)
    return np.dstack([np.broadcast_to(streaks, (*solid.shape, 3)), np.where(solid, 255, 0)]).astype(np.uint8)
