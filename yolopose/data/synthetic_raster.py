"""Draw textured surface patches with a depth buffer: the renderer of the synthetic people.

A patch is a coarse grid of surface points with normals and a texture. It is interpolated to a grid finer than the
pixels and every point that faces the camera is written to its pixel; the nearest one wins. That costs a few dozen
array operations per patch whatever its shape, and yields the depth from which joint visibility is decided.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_STEP = 0.72  # spacing of the interpolated surface points in pixels of the buffer; below 0.75 leaves no holes
_EMPTY = np.int64(1 << 62)


@dataclass(frozen=True)
class Patch:
    """A piece of surface.

    Attributes:
        points: (m, n, 3) camera frame of the person, units of the stature.
        normals: (m, n, 3) outward, of any length above zero.
        texture: (h, w, 3) or (h, w, 4) uint8 BGR(A); rows run along the first axis of ``points``. Alpha under 128 is a
            hole.
        two_sided: also draw the inside (skirts, coats, brims).
        gloss: added to the shading where the surface faces the light (hair, shoes).
    """

    points: np.ndarray
    normals: np.ndarray
    texture: np.ndarray
    two_sided: bool = False
    gloss: float = 0.0


@dataclass(frozen=True)
class Camera:
    """Weak perspective: ``scale`` pixels per stature at the depth of the pelvis, which is drawn at ``origin`` (x, y)."""

    scale: float
    origin: tuple[float, float]
    distance: float = 5.0

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points of the person -> (..., 2) pixels (x, y), pixel centres at integers."""
        ratio = self.scale * self.distance / (self.distance + points[..., 2:])
        return points[..., :2] * ratio + np.asarray(self.origin)


@dataclass(frozen=True)
class Light:
    """Direction towards the light (camera frame), share of ambient light, strength of the directed light."""

    direction: np.ndarray
    ambient: float
    strength: float


def rasterise(
    patches: list[Patch], camera: Camera, light: Light, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the patches into an empty buffer.

    Returns:
        colour: (height, width, 4) uint8 BGRA, alpha 0 or 255.
        depth: (height, width) float32 in statures, +inf where nothing was drawn.
    """
    pixels, depths, colours = [], [], []
    for patch in patches:
        _points_of(patch, camera, light, height, width, pixels, depths, colours)
    colour = np.zeros((height * width, 4), np.uint8)
    depth = np.full(height * width, np.inf, np.float32)
    if pixels:
        pixel, z, bgr = np.concatenate(pixels), np.concatenate(depths), np.concatenate(colours)
        nearest = np.full(height * width, _EMPTY)
        # One integer per point: depth in the high bits, its number in the low 24, so that a minimum finds the point.
        key = ((z + 8.0) * 1e6).astype(np.int64) << 24 | np.arange(len(z))
        np.minimum.at(nearest, pixel, key)
        hit = np.flatnonzero(nearest != _EMPTY)
        source = nearest[hit] & 0xFFFFFF
        colour[hit, :3], colour[hit, 3] = bgr[source], 255
        depth[hit] = z[source]
    colour, depth = colour.reshape(height, width, 4), depth.reshape(height, width)
    return _contact_shadows(colour, depth), depth


def _points_of(patch, camera, light, height, width, pixels, depths, colours) -> None:
    """Append the drawn points of one patch: flat pixel index, depth and shaded colour."""
    points, normals = patch.points, patch.normals
    normals = normals / np.sqrt((normals**2).sum(-1, keepdims=True) + 1e-12)
    grid = np.empty((*points.shape[:2], 5), np.float32)
    grid[..., :2] = camera.project(points)
    x, y = grid[..., 0], grid[..., 1]
    if x.max() < 0 or y.max() < 0 or x.min() > width - 1 or y.min() > height - 1:
        return
    grid[..., 2] = points[..., 2]
    view = points + [0, 0, camera.distance]
    facing = -(normals * view).sum(-1)  # positive towards the camera
    lit = np.clip(normals @ light.direction, -1, 1)
    if patch.two_sided:
        lit = np.where(facing < 0, -0.5 * lit - 0.35, lit)
        facing = np.ones_like(facing)
    diffuse = np.clip(0.5 + 0.5 * lit, 0, 1)  # wrapped, as under a sky
    grid[..., 3] = light.ambient + light.strength * diffuse + patch.gloss * np.clip(lit, 0, 1) ** 4
    grid[..., 4] = facing
    m, n = x.shape
    rows = max(1, int(np.ceil(np.hypot(np.diff(x, axis=0), np.diff(y, axis=0)).max() / _STEP)))
    columns = max(1, int(np.ceil(np.hypot(np.diff(x, axis=1), np.diff(y, axis=1)).max() / _STEP)))
    # cv2.resize by an integer factor places samples half a cell outside the outer grid points: those are cut off.
    fine = cv2.resize(grid, (n * columns, m * rows), interpolation=cv2.INTER_LINEAR)
    fine = fine[rows // 2 : m * rows - rows // 2, columns // 2 : n * columns - columns // 2]
    texture = cv2.resize(patch.texture, (fine.shape[1], fine.shape[0]), interpolation=cv2.INTER_LINEAR)
    xi, yi = np.rint(fine[..., 0]).astype(np.int32), np.rint(fine[..., 1]).astype(np.int32)
    keep = (fine[..., 4] > 0) & (xi >= 0) & (yi >= 0) & (xi < width) & (yi < height)
    if texture.shape[2] == 4:
        keep &= texture[..., 3] >= 128
    pixels.append((yi * width + xi)[keep])
    depths.append(fine[..., 2][keep])
    shaded = texture[keep, :3] * fine[..., 3][keep, None]
    colours.append(np.minimum(shaded, 255).astype(np.uint8))


def _contact_shadows(colour: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Darken what lies close behind something nearer (an arm over the chest, the chin over the neck)."""
    drawn = np.isfinite(depth)
    if not drawn.any():
        return colour
    z = np.where(drawn, depth, 0).astype(np.float32)
    size = max(3, int(round(max(depth.shape) * 0.035)) | 1)
    weight = cv2.blur(drawn.astype(np.float32), (size, size))
    behind = z - cv2.blur(z, (size, size)) / np.maximum(weight, 1e-3)
    factor = 1.0 - np.clip(behind * 7.0, 0.0, 0.42)
    colour[..., :3] = (colour[..., :3] * factor[..., None]).astype(np.uint8)
    return colour
