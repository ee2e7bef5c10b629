"""A person's pose: proportions, joint angles by pose family, and where that puts the joints (forward kinematics).

Body frame, in units of the stature: x to the person's own left, y down, z backward (the person looks along -z). After
:func:`solve` all points are in the camera frame of a person whose pelvis is the origin: x to the right of the image, y
down, z away from the camera. Index 0 of every pair is the left side, 1 the right side. Angles are degrees.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# Angles of an arm or a leg: forward, outward, about the upper segment, of elbow or knee, pointing the toes (legs only).
COLUMNS = ("flexion", "abduction", "turn", "bend", "ankle")
ARM_LIMITS = np.array([[-50, 178], [-12, 165], [-80, 80], [0, 150]], float)
LEG_LIMITS = np.array([[-30, 128], [-15, 60], [-35, 45], [0, 150], [-30, 50]], float)
HEAD_LIMITS = np.array([[-75, 75], [-40, 45], [-28, 28]], float)  # turn to the left, nod forward, tilt


@dataclass(frozen=True)
class Proportions:
    """Lengths in units of the stature; ``girth`` multiplies every radius of the body."""

    thigh: float = 0.245
    shank: float = 0.235
    spine: float = 0.29
    neck: float = 0.062
    upper_arm: float = 0.165
    forearm: float = 0.145
    shoulder: float = 0.112
    hip: float = 0.062
    head: float = 1.0
    girth: float = 1.0


@dataclass
class Pose:
    """Joint angles."""

    name: str = "stand"
    root: np.ndarray = field(default_factory=lambda: np.zeros(2))  # pitch forward, roll to the person's left
    spine: np.ndarray = field(default_factory=lambda: np.zeros(3))  # lean forward, lateral, twist
    head: np.ndarray = field(default_factory=lambda: np.zeros(3))
    arms: np.ndarray = field(default_factory=lambda: np.zeros((2, 4)))
    legs: np.ndarray = field(default_factory=lambda: np.zeros((2, 5)))


@dataclass(frozen=True)
class Skeleton:
    """Joints, and frames of the segments, whose columns are the segment's left, down and backward axes."""

    pose: str
    size: Proportions
    chest: np.ndarray  # (3,) middle of the shoulders
    head: np.ndarray  # (3,) centre of the skull
    pelvis_frame: np.ndarray  # (3, 3)
    chest_frame: np.ndarray
    head_frame: np.ndarray
    arms: np.ndarray  # (2, 3, 3) shoulder, elbow, wrist
    arm_hinges: np.ndarray  # (2, 3) axis of the elbow, towards the person's left
    legs: np.ndarray  # (2, 3, 3) hip, knee, ankle
    leg_hinges: np.ndarray
    foot_frames: np.ndarray  # (2, 3, 3)


def sample_proportions(rng: np.random.Generator) -> Proportions:
    """Adults of different build and, now and then, children (larger head, shorter limbs)."""
    child = rng.random() < 0.15
    limb = rng.normal(1.0, 0.035) * (0.9 if child else 1.0)
    mean = Proportions()
    return Proportions(
        thigh=mean.thigh * limb,
        shank=mean.shank * limb * rng.normal(1.0, 0.02),
        spine=mean.spine * rng.normal(1.0, 0.03),
        upper_arm=mean.upper_arm * limb,
        forearm=mean.forearm * limb,
        shoulder=mean.shoulder * rng.uniform(0.9, 1.08),
        hip=mean.hip * rng.uniform(0.95, 1.12),
        head=rng.uniform(1.18, 1.35) if child else rng.uniform(0.98, 1.12),
        girth=float(np.clip(rng.normal(1.13, 0.11), 0.92, 1.45)),
    )


def sample_pose(rng: np.random.Generator, weights: dict[str, float]) -> Pose:
    """Draw a pose family by weight, its angles, noise on every joint, and mirror it half of the time."""
    p = np.array(list(weights.values()), float)
    name = str(rng.choice(list(weights), p=p / p.sum()))
    pose = Pose(name)
    pose.head = rng.normal(0, [22, 9, 6])
    pose.spine = rng.normal([2, 0, 0], [3, 3, 5])
    pose.arms = np.stack([_relaxed_arm(rng), _relaxed_arm(rng)])
    pose.legs = np.array([0, 5, 6, 4, 0]) + rng.normal(0, [3, 2.5, 6, 3, 4], (2, 5))
    FAMILIES[name](rng, pose)
    if rng.random() < 0.35 and name in ("stand", "walk", "sit"):
        pose.arms[rng.integers(2)] = _gesture(rng)
    pose.arms += rng.normal(0, [4, 4, 8, 6], (2, 4))
    pose.legs += rng.normal(0, [2, 1.5, 3, 2, 3], (2, 5))
    if rng.random() < 0.5:  # every family is drawn for one side; mirroring keeps left and right statistics equal
        pose.arms, pose.legs = pose.arms[::-1], pose.legs[::-1]
        pose.root = pose.root * [1, -1]
        pose.spine, pose.head = pose.spine * [1, -1, -1], pose.head * [-1, 1, -1]
    pose.arms = np.clip(pose.arms, *ARM_LIMITS.T)
    pose.legs = np.clip(pose.legs, *LEG_LIMITS.T)
    pose.head = np.clip(pose.head, *HEAD_LIMITS.T)
    return pose


def _relaxed_arm(rng: np.random.Generator) -> np.ndarray:
    return np.array([rng.normal(4, 7), rng.uniform(6, 20), rng.normal(10, 20), rng.uniform(5, 35)])


def _gesture(rng: np.random.Generator) -> np.ndarray:
    """One arm doing something: pointing, phone at the ear, waving, hand on the hip, holding something in front."""
    options = [
        [rng.uniform(60, 100), rng.uniform(0, 30), 0, rng.uniform(0, 25)],
        [rng.uniform(35, 60), rng.uniform(10, 30), 25, rng.uniform(130, 148)],
        [rng.uniform(0, 20), rng.uniform(95, 150), 0, rng.uniform(10, 90)],
        [rng.uniform(-25, -5), rng.uniform(35, 55), 60, rng.uniform(75, 100)],
        [rng.uniform(15, 45), rng.uniform(0, 15), 20, rng.uniform(70, 115)],
    ]
    return np.array(options[int(rng.integers(len(options)))])


def _both(rng: np.random.Generator, limbs: np.ndarray, **ranges: tuple[float, float]) -> None:
    """Draw angles of both sides alike, each from its own range of degrees."""
    for name, (low, high) in ranges.items():
        limbs[:, COLUMNS.index(name)] = rng.uniform(low, high, 2)


def _stand(rng: np.random.Generator, pose: Pose) -> None:
    if rng.random() < 0.4:  # weight on one leg
        pose.legs[0] += [rng.uniform(5, 25), rng.uniform(0, 12), 8, rng.uniform(8, 30), 0]
        pose.spine[1] += rng.uniform(0, 6)
    if rng.random() < 0.15:  # legs apart
        pose.legs[:, 1] += rng.uniform(6, 16)


def _walk(rng: np.random.Generator, pose: Pose) -> None:
    swing = rng.uniform(14, 32)
    pose.legs[0, [0, 3]] = [swing, rng.uniform(2, 15)]
    pose.legs[1, [0, 3, 4]] = [-0.7 * swing, rng.uniform(10, 45), 15]
    pose.arms[0, [0, 3]] = [-0.9 * swing, rng.uniform(5, 30)]
    pose.arms[1, [0, 3]] = [1.1 * swing, rng.uniform(10, 45)]
    pose.spine[0] += rng.uniform(0, 6)


def _run(rng: np.random.Generator, pose: Pose) -> None:
    swing = rng.uniform(35, 65)
    pose.legs[0, [0, 3]] = [swing, rng.uniform(35, 85)]
    pose.legs[1, [0, 3, 4]] = [-0.4 * swing, rng.uniform(20, 95), 25]
    pose.arms[0, [0, 1, 3]] = [-0.8 * swing, rng.uniform(8, 25), rng.uniform(70, 110)]
    pose.arms[1, [0, 1, 3]] = [0.9 * swing, rng.uniform(4, 15), rng.uniform(70, 110)]
    pose.root[0] = rng.uniform(5, 16)


def _sit(rng: np.random.Generator, pose: Pose) -> None:
    hip = rng.uniform(72, 98)
    pose.legs[:, 0] = hip + rng.normal(0, 5, 2)
    _both(rng, pose.legs, abduction=(4, 20))
    pose.legs[:, 3] = np.clip(hip + rng.normal(0, 14, 2), 45, 125)
    if rng.random() < 0.15:  # one leg stretched out
        pose.legs[0, 3] = rng.uniform(5, 40)
    pose.spine[0] = rng.uniform(-8, 25)
    if rng.random() < 0.7:  # hands in the lap, on the knees or on a table
        _both(rng, pose.arms, flexion=(15, 50), turn=(10, 45), bend=(35, 95))


def _crouch(rng: np.random.Generator, pose: Pose) -> None:
    pose.root[0] = rng.uniform(5, 25)
    _both(rng, pose.legs, flexion=(80, 118), abduction=(8, 28), bend=(90, 140))
    pose.legs[:, 4] = -15
    if rng.random() < 0.4:  # kneeling on one knee
        pose.legs[1, [0, 3, 4]] = [rng.uniform(0, 25), rng.uniform(85, 110), 35]
    pose.spine[0] = rng.uniform(8, 30)
    _both(rng, pose.arms, flexion=(25, 80), bend=(15, 100))


def _arms_raised(rng: np.random.Generator, pose: Pose) -> None:
    if rng.random() < 0.6:  # sideways, else forward
        _both(rng, pose.arms, flexion=(0, 25), abduction=(85, 162), bend=(0, 85))
    else:
        _both(rng, pose.arms, flexion=(110, 172), abduction=(0, 25), bend=(0, 85))
    pose.head[1] -= rng.uniform(0, 12)


def _reach(rng: np.random.Generator, pose: Pose) -> None:
    pose.arms[0] = [rng.uniform(50, 165), rng.uniform(-5, 60), 0, rng.uniform(0, 35)]
    if rng.random() < 0.4:
        pose.arms[1] = [rng.uniform(40, 120), rng.uniform(-5, 30), 0, rng.uniform(0, 45)]
    pose.spine[0] += rng.uniform(0, 15)
    pose.spine[2] += rng.uniform(-20, 5)
    _stand(rng, pose)


def _bend(rng: np.random.Generator, pose: Pose) -> None:
    tilt = rng.uniform(20, 65)
    pose.root[0] = tilt
    pose.legs[:, 0] = tilt + rng.uniform(0, 18)
    pose.legs[:, 3] = rng.uniform(2, 35)
    pose.spine[0] = rng.uniform(5, 30)
    pose.arms[:, 0] = rng.uniform(30, 95) + rng.normal(0, 10, 2)
    _both(rng, pose.arms, bend=(0, 50))
    pose.head[1] -= rng.uniform(0, 30)


def _jump(rng: np.random.Generator, pose: Pose) -> None:
    pose.root = np.array([rng.uniform(-8, 18), rng.normal(0, 8)])
    _both(rng, pose.legs, flexion=(-10, 75), abduction=(0, 35), bend=(10, 100), ankle=(15, 45))
    _both(rng, pose.arms, flexion=(-20, 60), abduction=(40, 160), bend=(0, 70))


def _lie(rng: np.random.Generator, pose: Pose) -> None:
    pose.root[1] = rng.uniform(72, 100)
    _both(rng, pose.legs, flexion=(-5, 45), bend=(0, 70))
    _both(rng, pose.arms, flexion=(0, 120), abduction=(10, 70), bend=(10, 110))


FAMILIES = {family.__name__.lstrip("_"): family
            for family in (_stand, _walk, _run, _sit, _crouch, _arms_raised, _reach, _bend, _jump, _lie)}


def solve(pose: Pose, size: Proportions, yaw: float, elevation: float) -> Skeleton:
    """Forward kinematics into the camera frame.

    Args:
        yaw: degrees; 0 faces the camera, 90 faces the left of the image, 180 is turned away.
        elevation: degrees; positive when the camera looks down on the person.
    """
    root = _rotation(0, elevation) @ _rotation(1, yaw) @ _rotation(2, pose.root[1]) @ _rotation(0, pose.root[0])
    lean, lateral, twist = pose.spine
    chest_frame = root @ _rotation(1, twist) @ _rotation(2, lateral) @ _rotation(0, lean)
    turn, nod, tilt = pose.head
    head_frame = chest_frame @ _rotation(1, turn) @ _rotation(0, nod) @ _rotation(2, tilt)
    up_low, up_high = -root[:, 1], -chest_frame[:, 1]
    chest = size.spine * (0.4 * up_low + 0.6 * up_high)
    head = chest + size.neck * (0.7 * up_high - 0.3 * head_frame[:, 1]) + 0.072 * size.head * -head_frame[:, 1]
    arms, legs = np.zeros((2, 3, 3)), np.zeros((2, 3, 3))
    arm_hinges, leg_hinges, feet = np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3, 3))
    for side, sign in enumerate((1.0, -1.0)):
        *swing, elbow = pose.arms[side]
        # A raised arm lifts its shoulder joint a little (shoulder blade), as it does in people.
        lift = 0.02 * max(0.0, max(swing[:2]) - 60) / 100
        upper = _swung(chest_frame, *swing, sign, 1)
        shoulder = chest + chest_frame @ [sign * size.shoulder, 0.012 - lift, 0]
        arms[side] = _chain(shoulder, upper, upper @ _rotation(0, -elbow), size.upper_arm, size.forearm)
        *swing, knee, ankle = pose.legs[side]
        thigh = _swung(root, *swing, sign, -1)
        shank = thigh @ _rotation(0, knee)
        legs[side] = _chain(root @ [sign * size.hip, 0.0, 0], thigh, shank, size.thigh, size.shank)
        arm_hinges[side], leg_hinges[side] = upper[:, 0], thigh[:, 0]
        feet[side] = shank @ _rotation(0, ankle)
    return Skeleton(pose.name, size, chest, head, root, chest_frame, head_frame, arms, arm_hinges, legs, leg_hinges,
                    feet)


def _rotation(axis: int, degrees: float) -> np.ndarray:
    """Rotation matrix about a coordinate axis, right-handed."""
    a = np.deg2rad(degrees)
    c, s = np.cos(a), np.sin(a)
    if axis == 0:
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == 1:
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _swung(frame: np.ndarray, flexion: float, abduction: float, turn: float, sign: float, inward: int) -> np.ndarray:
    """Frame of an upper arm or a thigh; ``inward`` is the sense in which a positive ``turn`` rotates it."""
    return frame @ _rotation(0, -flexion) @ _rotation(2, -sign * abduction) @ _rotation(1, inward * sign * turn)


def _chain(start: np.ndarray, upper: np.ndarray, lower: np.ndarray, length: float, lower_length: float) -> np.ndarray:
    """The three joints of a limb, (3, 3)."""
    middle = start + length * upper[:, 1]
    return np.stack([start, middle, middle + lower_length * lower[:, 1]])
