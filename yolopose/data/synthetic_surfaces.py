"""Curved surfaces from which bodies are put together: tubes of elliptic rings and ellipsoids."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from yolopose.data.synthetic_raster import Patch


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) scaled to length one."""
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9)


@lru_cache(maxsize=16)
def _circle(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of n + 1 angles around a tube, the last equal to the first."""
    angle = np.linspace(0, 2 * np.pi, n + 1)
    return np.cos(angle), np.sin(angle)


def tube(centres, e1, e2, a, b, texture, n: int = 16, two_sided: bool = False, gloss: float = 0.0) -> Patch:
    """Tube of elliptic rings.

    Args:
        centres: (m, 3); e1, e2: (m, 3) or (3,) unit axes of each ring, at columns 0 and a quarter of the texture.
        a, b: (m,) half axes along e1 and e2.
    """
    m = len(centres)
    e1, e2 = np.broadcast_to(e1, (m, 3)), np.broadcast_to(e2, (m, 3))
    a, b = np.broadcast_to(a, m)[:, None, None], np.broadcast_to(b, m)[:, None, None]
    cos, sin = (v[None, :, None] for v in _circle(n))
    points = centres[:, None] + a * cos * e1[:, None] + b * sin * e2[:, None]
    along = np.gradient(centres, axis=0)
    length = np.sqrt((along**2).sum(-1)) + 1e-9
    slope = np.gradient((a + b)[:, 0, 0] / 2) / length
    tangent = along / length[:, None]
    normals = b * cos * e1[:, None] + a * sin * e2[:, None]
    normals = normals / (np.sqrt((normals**2).sum(-1, keepdims=True)) + 1e-9)
    normals = normals - (np.clip(slope, -3, 3)[:, None] * tangent)[:, None]
    return Patch(points, normals, texture, two_sided, gloss)


def ellipsoid(centre, frame, radii, texture, m: int = 9, n: int = 14, gloss: float = 0.0) -> Patch:
    """Ellipsoid with its rings stacked along the frame's second axis (down); front is minus the third axis."""
    angle = np.linspace(0, np.pi, m)
    ring, height = np.sin(angle), -np.cos(angle)
    cos, sin = _circle(n)
    unit = np.empty((m, n + 1, 3))
    unit[..., 0] = ring[:, None] * cos
    unit[..., 1] = height[:, None]
    unit[..., 2] = -ring[:, None] * sin
    radii = np.asarray(radii, float)
    return Patch(centre + (unit * radii) @ frame.T, (unit / radii) @ frame.T, texture, False, gloss)
