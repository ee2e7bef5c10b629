"""Surfaces to pixels: curved patches (tubes and ellipsoids), and a renderer of them with textures and a depth buffer.

A patch is a coarse grid of surface points with normals and a texture. Every cell of the grid that faces the camera is
filled with points denser than the pixels, every point is written to its pixel and the nearest one wins. All cells of
a person are handled together, in groups of equal size, so that the cost hardly depends on the number of patches.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

LEVELS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256])  # points along a side of a cell
STEP = 0.82  # greatest spacing of the surface points in pixels of the buffer; from 0.95 on, holes appear
EMPTY = np.int64(1 << 62)
PRODUCT = 12_000  # points per matrix product: OpenBLAS starts threads above 13,107 of them, which would only disturb


@dataclass(frozen=True)
class Patch:
    points: np.ndarray  # (m, n, 3) camera frame of the person, units of the stature; its rows run along the texture's
    normals: np.ndarray  # (m, n, 3) outward, of any length above zero
    texture: np.ndarray  # (h, w, 3) or (h, w, 4) uint8 BGR(A); alpha under 128 is a hole
    two_sided: bool = False  # also draw the inside (skirts, coats, brims)
    gloss: float = 0.0  # added to the shading where the surface faces the light (hair, shoes)


@dataclass(frozen=True)
class Camera:
    """Weak perspective: ``scale`` pixels per stature at the pelvis, which is drawn at ``origin`` (x, y)."""

    scale: float
    origin: tuple[float, float]
    distance: float  # of the camera, statures

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points of the person -> (..., 2) pixels (x, y), pixel centres at integers."""
        ratio = self.scale * self.distance / (self.distance + points[..., 2:])
        return points[..., :2] * ratio + np.asarray(self.origin)


@dataclass(frozen=True)
class Light:
    direction: np.ndarray  # towards the light, camera frame
    ambient: float  # shading where no directed light falls
    strength: float  # of the directed light


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9)


@cache
def _circle(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine, (n + 1, 1), of the angles around a ring; the last equals the first."""
    angle = np.linspace(0, 2 * np.pi, n + 1)[:, None]
    return np.cos(angle), np.sin(angle)


@cache
def _sphere(m: int, n: int) -> np.ndarray:
    ring = np.sin(down := np.linspace(0, np.pi, m)[:, None])
    cos, sin = (v.T for v in _circle(n))
    return np.stack(np.broadcast_arrays(ring * cos, -np.cos(down), -ring * sin), axis=-1)


def tube(centres, e1, e2, a, b, texture, n: int, two_sided: bool = False, gloss: float = 0.0) -> Patch:
    """Tube of elliptic rings about ``centres`` (m, 3), of ``n`` cells around.

    Their half axes ``a`` and ``b``, (m,), lie along the unit vectors ``e1`` and ``e2``, (m, 3) or (3,), which are at
    columns 0 and a quarter of the texture.
    """
    along = np.gradient(centres, axis=0)
    length = np.sqrt((along**2).sum(-1)) + 1e-9
    slope, tangent = np.gradient((a + b) / 2) / length, along / length[:, None]
    e1, e2 = (np.broadcast_to(e, centres.shape)[:, None] for e in (e1, e2))
    a, b, (cos, sin) = a[:, None, None], b[:, None, None], _circle(n)
    points = centres[:, None] + a * cos * e1 + b * sin * e2
    normals = b * cos * e1 + a * sin * e2
    normals = normals / (np.sqrt((normals**2).sum(-1, keepdims=True)) + 1e-9)
    normals = normals - (np.clip(slope, -3, 3)[:, None] * tangent)[:, None]
    return Patch(points, normals, texture, two_sided, gloss)


def ellipsoid(centre, frame, radii, texture, m: int = 9, n: int = 14, gloss: float = 0.0) -> Patch:
    """Ellipsoid with its rings stacked along the frame's second axis (down); front is minus the third axis."""
    sphere = _sphere(m, n)
    return Patch(centre + (sphere * radii) @ frame.T, (sphere / radii) @ frame.T, texture, False, gloss)


def rasterise(patches: list[Patch], camera: Camera, light: Light, height: int, width: int) -> tuple[np.ndarray, ...]:
    """Draw the patches into an empty buffer: colour (height, width, 4) uint8 BGRA, whose alpha is 0 or 255, and depth
    (height, width) float32 in statures, +inf where nothing was drawn.
    """
    colour, depth = np.zeros((height * width, 4), np.uint8), np.full(height * width, np.inf, np.float32)
    x, y, z, shade, facing, place = _fill_cells(*_cells(patches, camera, light, height, width))
    texel = np.concatenate([_texels(patch.texture) for patch in patches])[place]
    keep = (facing > 0) & (texel >= 0x80000000) & (x > -0.5) & (y > -0.5) & (x < width - 0.51) & (y < height - 0.51)
    index = np.flatnonzero(keep)
    pixel = (y[index] + np.float32(0.5)).astype(np.int64) * width + (x[index] + np.float32(0.5)).astype(np.int64)
    nearest = np.full(height * width, EMPTY)
    # One integer per point: depth in the high bits, its number in the low 24, so that a minimum finds the point.
    np.minimum.at(nearest, pixel, ((z[index] + 8.0) * 1e6).astype(np.int64) << 24 | index)
    hit = np.flatnonzero(nearest != EMPTY)
    source = nearest[hit] & 0xFFFFFF
    colour[hit] = np.minimum(texel[source].view(np.uint8).reshape(-1, 4) * shade[source, None], 255)
    colour[hit, 3] = 255
    depth[hit] = z[source]
    colour, depth = colour.reshape(height, width, 4), depth.reshape(height, width)
    _contact_shadows(colour, depth)
    return colour, depth


def _texels(texture: np.ndarray) -> np.ndarray:
    texture = cv2.cvtColor(texture, cv2.COLOR_BGR2BGRA) if texture.shape[2] == 3 else np.ascontiguousarray(texture)
    return texture.view(np.uint32).ravel()


@cache
def _grid_cells(m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of every cell of an (m, n) grid the indices of its four corners, (cells, 4), and (column, row, 1, 1, 1, 1)."""
    row, column = (v.ravel() for v in np.indices((m - 1, n - 1)))
    first, one = row * n + column, np.ones_like(row)
    return np.stack([first, first + 1, first + n, first + n + 1], 1), np.stack([column, row, one, one, one, one], 1)


def _cells(patches: list[Patch], camera: Camera, light: Light, height: int, width: int):
    """Cells that may be seen: x, y in pixels, depth, shading and facing of their corners, (5, cells, 4) float32, and,
    (cells, 6) float32, first column and row in the texture, their extents, its width and its offset among all textures.
    """
    points = np.concatenate([p.points.reshape(-1, 3) for p in patches]).astype(np.float32)
    normals = np.concatenate([p.normals.reshape(-1, 3) for p in patches]).astype(np.float32)
    counts = [p.points[..., 0].size for p in patches]
    two_sided = np.repeat([p.two_sided for p in patches], counts)
    gloss = np.repeat(np.array([p.gloss for p in patches], np.float32), counts)
    normals /= np.sqrt(np.einsum("ij,ij->i", normals, normals) + np.float32(1e-12))[:, None]
    facing = -np.einsum("ij,ij->i", normals, points) - np.float32(camera.distance) * normals[:, 2]
    lit = normals @ light.direction.astype(np.float32)
    lit = np.where(two_sided & (facing < 0), -0.5 * lit - 0.35, lit)
    diffuse = np.clip(0.5 + 0.5 * lit, 0, 1)  # wrapped, as under a sky
    values = np.empty((len(points), 5), np.float32)
    values[:, :2], values[:, 2] = camera.project(points), points[:, 2]
    values[:, 3] = light.ambient + light.strength * diffuse + gloss * np.clip(lit, 0, 1) ** 4
    values[:, 4] = np.where(two_sided, 1, facing)  # positive towards the camera
    corners, texture, first, offset = [], [], 0, 0
    for patch, count in zip(patches, counts, strict=True):
        (m, n), (h, w) = patch.points.shape[:2], patch.texture.shape[:2]
        index, place = _grid_cells(m, n)
        corners.append(index + first)
        texture.append(place * (w / (n - 1), h / (m - 1), w / (n - 1), h / (m - 1), w, offset))
        first, offset = first + count, offset + h * w
    index, info = np.concatenate(corners), np.concatenate(texture).astype(np.float32)
    inside = (values[:, :2] > -1).all(1) & (values[:, :2] < [width, height]).all(1)
    seen = (values[:, 4] > 0)[index].any(1) & inside[index].any(1)
    return values.T[:, index[seen]], info[seen]


@cache
def _weights(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bilinear weights of rows x columns points in a cell, (4, points), and their place in it, 0..1."""
    s, t = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    s, t = s.ravel().astype(np.float32), t.ravel().astype(np.float32)
    return np.stack([(1 - s) * (1 - t), s * (1 - t), (1 - s) * t, s * t]), s, t


def _fill_cells(corners: np.ndarray, texture: np.ndarray) -> tuple[np.ndarray, ...]:
    """Points in cells: x, y, depth, shading, facing (float32) and the texel's place among all textures."""
    x, y = corners[:2]  # (cells, corner)
    across = np.hypot(x[:, 1::2] - x[:, ::2], y[:, 1::2] - y[:, ::2]).max(1)
    down = np.hypot(x[:, 2:] - x[:, :2], y[:, 2:] - y[:, :2]).max(1)
    columns, rows = (np.minimum(np.searchsorted(LEVELS, side / STEP), len(LEVELS) - 1) for side in (across, down))
    group = rows * len(LEVELS) + columns
    values, places = [np.zeros((5, 0), np.float32)], [np.zeros(0, np.int32)]
    for key in np.unique(group):
        members = np.flatnonzero(group == key)
        weights, s, t = _weights(LEVELS[key // len(LEVELS)], LEVELS[key % len(LEVELS)])
        step = max(1, PRODUCT // len(s))
        for cells in (members[i : i + step] for i in range(0, len(members), step)):
            values.append((corners[:, cells] @ weights).reshape(5, -1))
            u0, v0, du, dv, width, offset = texture[cells].T[..., None]
            row = (v0 + dv * t).astype(np.int32) * width.astype(np.int32) + offset.astype(np.int32)
            places.append((row + (u0 + du * s).astype(np.int32)).ravel())
    return (*np.concatenate(values, axis=1), np.concatenate(places))


def _contact_shadows(colour: np.ndarray, depth: np.ndarray) -> None:
    """Darken what lies close behind something nearer (an arm over the chest, the chin over the neck)."""
    drawn = np.isfinite(depth)
    z = np.where(drawn, depth, 0).astype(np.float32)
    size = max(3, int(round(max(depth.shape) * 0.035)) | 1)
    weight = cv2.blur(drawn.astype(np.float32), (size, size))
    behind = z - cv2.blur(z, (size, size)) / np.maximum(weight, 1e-3)
    factor = 1.0 - np.clip(behind * 7.0, 0.0, 0.42)
    colour[..., :3] = (colour[..., :3] * factor[..., None]).astype(np.uint8)
