"""One person in a picture: what it does and where it looks, how it is drawn with soft edges, which keypoints show."""

from dataclasses import dataclass

import cv2
import numpy as np

from yolopose.data.synthetic.body import keypoints, person_patches
from yolopose.data.synthetic.looks import Looks
from yolopose.data.synthetic.raster import Camera, Light, Patch, rasterise
from yolopose.data.synthetic.skeleton import Skeleton, sample_pose, sample_proportions


@dataclass(frozen=True)
class Habits:
    """What people do and where they look: weights of the pose families, chances to face the camera and to turn away."""

    poses: dict[str, float]
    facing: float
    away: float


LIVELY = Habits(
    {"stand": 0.23, "walk": 0.17, "run": 0.09, "sit": 0.17, "crouch": 0.06, "arms_raised": 0.09, "reach": 0.08,
     "bend": 0.055, "jump": 0.04, "lie": 0.025},
    facing=0.58, away=0.18)
# Mostly upright: what a small network can learn at 128 px within the minutes of a reduced study.
CALM = Habits(
    {"stand": 0.4, "walk": 0.24, "run": 0.06, "sit": 0.09, "crouch": 0.02, "arms_raised": 0.08, "reach": 0.07,
     "bend": 0.02, "jump": 0.015, "lie": 0.005},
    facing=0.66, away=0.2)
# Least cosine towards the camera at which nose, eyes and ears are still seen: the nose and the ears stand out.
GRAZING = np.array([-0.35, 0.0, 0.0, -0.2, -0.2] + [-1.0] * 12)


@dataclass
class Person:
    """A person before a camera: of one pixel per stature and about the pelvis until its place is chosen."""

    skeleton: Skeleton
    looks: Looks
    camera: Camera
    box: np.ndarray  # (4,) xyxy of the expected extent in this camera's pixels
    labelled: bool = True


@dataclass
class Drawn:
    points: np.ndarray  # (17, 2) keypoints in pixels; pixel (0, 0) covers 0..1, as boxes do
    shown: np.ndarray  # (17,) the person's own body does not hide the keypoint
    facing: np.ndarray  # (17,) cosine of face points towards the camera, 1 for the others
    alone: int  # pixels inside the picture that the person would show if nobody stood before it


def sample_person(rng: np.random.Generator, elevation: float, habits: Habits) -> Person:
    """Draw pose, build, looks and heading; the camera looks down by ``elevation`` degrees."""
    pose = sample_pose(rng, habits.poses)
    kind = rng.random()
    if kind < habits.facing + habits.away:
        yaw = (0 if kind < habits.facing else 180) + rng.normal(0, 30)
    else:
        yaw = rng.uniform(-180, 180)
    if pose.name == "lie":
        yaw = rng.choice([0, 180]) + rng.normal(0, 15)
        elevation += 15
    skeleton = Skeleton(pose, sample_proportions(rng), yaw, elevation)
    camera = Camera(1.0, (0.0, 0.0), distance=float(np.exp(rng.uniform(np.log(2.4), np.log(9)))))
    points, head = camera.project(keypoints(skeleton)[0]), camera.project(skeleton.head)
    low = np.minimum(points.min(0) - 0.055, head - 0.095 * skeleton.size.head)
    high = np.maximum(points.max(0) + 0.065, head + 0.085 * skeleton.size.head)
    return Person(skeleton, Looks(rng), camera, np.concatenate([low, high]))


def draw_person(person: Person, light: Light, image: np.ndarray, owner: np.ndarray, number: int) -> Drawn:
    """Draw a person into ``image`` (height, width, 3) and, with its ``number``, into the map of who is visible."""
    height, width = owner.shape
    camera, scale = person.camera, person.camera.scale
    (points, margin, facing), patches = keypoints(person.skeleton), person_patches(person.skeleton, person.looks, scale)
    places = camera.project(points) + 0.5
    x0, y0, x1, y1 = _window(patches, camera, height, width)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if right <= left or bottom <= top:
        return Drawn(places, np.zeros(len(points), bool), facing, 0)
    # Drawn larger, the smaller the person, and averaged: this makes the edges soft.
    factor = 3.0 if scale < 45 else 2.0 if scale < 140 else 1.5 if scale < 220 else 1.25
    x, y = camera.origin
    origin = (x - x0 + 0.5) * factor - 0.5, (y - y0 + 0.5) * factor - 0.5
    inner = Camera(scale * factor, origin, camera.distance)
    colour, depth = rasterise(patches, inner, light, int((y1 - y0) * factor), int((x1 - x0) * factor))
    # Empty pixels are black and transparent, so that averaging yields colour already multiplied by coverage.
    layer = cv2.resize(colour, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    layer, target = layer[top - y0 : bottom - y0, left - x0 : right - x0], image[top:bottom, left:right]
    alpha = layer[..., 3]
    target[...] = cv2.add(cv2.multiply(target, cv2.merge([255 - alpha] * 3), scale=1 / 255), layer[..., :3])
    solid = alpha >= 128
    owner[top:bottom, left:right][solid] = number
    # A keypoint shows where the farthest of 3 x 3 pixels of its own body is no nearer than its margin allows.
    surface = np.where(np.isfinite(depth), depth, -np.inf)  # where nothing was drawn, nothing shows
    surface = cv2.dilate(np.pad(surface, 2, constant_values=-np.inf), np.ones((3, 3), np.uint8))
    x, y = np.clip(np.rint(inner.project(points)).astype(int) + 2, 0, np.array(surface.shape[::-1]) - 1).T
    shown = (surface[y, x] >= points[:, 2] - margin) & (facing > GRAZING)
    return Drawn(places, shown, facing, int(solid.sum()))


def _window(patches: list[Patch], camera: Camera, height: int, width: int) -> tuple[int, int, int, int]:
    """Part of the picture that the patches may touch, xyxy, a multiple of four wide and high."""
    flat = np.concatenate([camera.project(patch.points).reshape(-1, 2) for patch in patches])
    x0, y0 = (int(v) for v in np.maximum(np.floor(flat.min(0)) - 2, -2))
    x1, y1 = (int(v) for v in np.minimum(np.ceil(flat.max(0)) + 3, [width + 2, height + 2]))
    return x0, y0, x0 + -(-(x1 - x0) // 4) * 4, y0 + -(-(y1 - y0) // 4) * 4
