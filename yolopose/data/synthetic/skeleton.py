"""A person's pose: proportions, joint angles by pose family, and where that puts the keypoints (forward kinematics).

Body frame, in units of the stature: x to the person's own left, y down, z backward (the person looks along -z). Points
of a :class:`Skeleton` are in the camera frame of a person whose pelvis is the origin: x to the right of the image, y
down, z away from the camera. Index 0 of every pair is the left side, 1 the right side. Angles are degrees.
"""

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
    name: str = "stand"
    root: np.ndarray = field(default_factory=lambda: np.zeros(2))  # pitch forward, roll to the person's left
    spine: np.ndarray = field(default_factory=lambda: np.zeros(3))  # lean forward, lateral, twist
    head: np.ndarray = field(default_factory=lambda: np.zeros(3))
    arms: np.ndarray = field(default_factory=lambda: np.zeros((2, 4)))
    legs: np.ndarray = field(default_factory=lambda: np.zeros((2, 5)))


def sample_proportions(rng: np.random.Generator) -> Proportions:
    """Adults of different build and, now and then, children (larger head, shorter limbs)."""
    child = rng.random() < 0.15
    mean, limb = Proportions(), rng.normal(1.0, 0.035) * (0.9 if child else 1.0)
    return Proportions(
        thigh=mean.thigh * limb, upper_arm=mean.upper_arm * limb, forearm=mean.forearm * limb,
        shank=mean.shank * limb * rng.normal(1.0, 0.02), spine=mean.spine * rng.normal(1.0, 0.03),
        shoulder=mean.shoulder * rng.uniform(0.9, 1.08), hip=mean.hip * rng.uniform(0.95, 1.12),
        head=rng.uniform(1.18, 1.35) if child else rng.uniform(0.98, 1.12),
        girth=float(np.clip(rng.normal(1.13, 0.11), 0.92, 1.45)))


def sample_pose(rng: np.random.Generator, weights: dict[str, float]) -> Pose:
    """Draw a pose family by weight, its angles, noise on every joint, and mirror it half of the time."""
    p = np.array(list(weights.values()), float)
    pose = Pose(str(rng.choice(list(weights), p=p / p.sum())))
    pose.head = rng.normal(0, [22, 9, 6])
    pose.spine = rng.normal([2, 0, 0], [3, 3, 5])
    for arm in pose.arms:  # hanging loosely
        arm[:] = rng.normal(4, 7), rng.uniform(6, 20), rng.normal(10, 20), rng.uniform(5, 35)
    pose.legs = np.array([0, 5, 6, 4, 0]) + rng.normal(0, [3, 2.5, 6, 3, 4], (2, 5))
    _strike(rng, pose)
    if rng.random() < 0.35 and pose.name in ("stand", "walk", "sit"):
        pose.arms[rng.integers(2)] = _gesture(rng)
    pose.arms += rng.normal(0, [4, 4, 8, 6], (2, 4))
    pose.legs += rng.normal(0, [2, 1.5, 3, 2, 3], (2, 5))
    if rng.random() < 0.5:  # every family is drawn for one side; mirroring keeps left and right statistics equal
        pose.arms, pose.legs = pose.arms[::-1], pose.legs[::-1]
        pose.root, pose.spine, pose.head = pose.root * [1, -1], pose.spine * [1, -1, -1], pose.head * [-1, 1, -1]
    pose.arms, pose.legs = np.clip(pose.arms, *ARM_LIMITS.T), np.clip(pose.legs, *LEG_LIMITS.T)
    pose.head = np.clip(pose.head, *HEAD_LIMITS.T)
    return pose


def _gesture(rng: np.random.Generator) -> list[float]:
    """One arm doing something."""
    return [
        [rng.uniform(60, 100), rng.uniform(0, 30), 0, rng.uniform(0, 25)],  # pointing
        [rng.uniform(35, 60), rng.uniform(10, 30), 25, rng.uniform(130, 148)],  # phone at the ear
        [rng.uniform(0, 20), rng.uniform(95, 150), 0, rng.uniform(10, 90)],  # waving
        [rng.uniform(-25, -5), rng.uniform(35, 55), 60, rng.uniform(75, 100)],  # hand on the hip
        [rng.uniform(15, 45), rng.uniform(0, 15), 20, rng.uniform(70, 115)],  # holding something in front
    ][rng.integers(5)]


def _both(rng: np.random.Generator, limbs: np.ndarray, **ranges: tuple[float, float]) -> None:
    for name, (low, high) in ranges.items():
        limbs[:, COLUMNS.index(name)] = rng.uniform(low, high, 2)


def _strike(rng: np.random.Generator, pose: Pose) -> None:
    """Bring someone who stands at ease into the pose of its family, on one side where the sides differ."""
    arms, legs, spine = pose.arms, pose.legs, pose.spine
    match pose.name:
        case "walk":
            swing = rng.uniform(14, 32)
            legs[0, [0, 3]] = swing, rng.uniform(2, 15)
            legs[1, [0, 3, 4]] = -0.7 * swing, rng.uniform(10, 45), 15
            arms[0, [0, 3]] = -0.9 * swing, rng.uniform(5, 30)
            arms[1, [0, 3]] = 1.1 * swing, rng.uniform(10, 45)
            spine[0] += rng.uniform(0, 6)
        case "run":
            swing = rng.uniform(35, 65)
            legs[0, [0, 3]] = swing, rng.uniform(35, 85)
            legs[1, [0, 3, 4]] = -0.4 * swing, rng.uniform(20, 95), 25
            arms[0, [0, 1, 3]] = -0.8 * swing, rng.uniform(8, 25), rng.uniform(70, 110)
            arms[1, [0, 1, 3]] = 0.9 * swing, rng.uniform(4, 15), rng.uniform(70, 110)
            pose.root[0] = rng.uniform(5, 16)
        case "sit":
            hip = rng.uniform(72, 98)
            legs[:, 0] = hip + rng.normal(0, 5, 2)
            _both(rng, legs, abduction=(4, 20))
            legs[:, 3] = np.clip(hip + rng.normal(0, 14, 2), 45, 125)
            if rng.random() < 0.15:  # one leg stretched out
                legs[0, 3] = rng.uniform(5, 40)
            spine[0] = rng.uniform(-8, 25)
            if rng.random() < 0.7:  # hands in the lap, on the knees or on a table
                _both(rng, arms, flexion=(15, 50), turn=(10, 45), bend=(35, 95))
        case "crouch":
            pose.root[0] = rng.uniform(5, 25)
            _both(rng, legs, flexion=(80, 118), abduction=(8, 28), bend=(90, 140))
            legs[:, 4] = -15
            if rng.random() < 0.4:  # kneeling on one knee
                legs[1, [0, 3, 4]] = rng.uniform(0, 25), rng.uniform(85, 110), 35
            spine[0] = rng.uniform(8, 30)
            _both(rng, arms, flexion=(25, 80), bend=(15, 100))
        case "arms_raised":
            if rng.random() < 0.6:  # sideways, else forward
                _both(rng, arms, flexion=(0, 25), abduction=(85, 162), bend=(0, 85))
            else:
                _both(rng, arms, flexion=(110, 172), abduction=(0, 25), bend=(0, 85))
            pose.head[1] -= rng.uniform(0, 12)
        case "reach":
            arms[0] = rng.uniform(50, 165), rng.uniform(-5, 60), 0, rng.uniform(0, 35)
            if rng.random() < 0.4:
                arms[1] = rng.uniform(40, 120), rng.uniform(-5, 30), 0, rng.uniform(0, 45)
            spine[[0, 2]] += rng.uniform(0, 15), rng.uniform(-20, 5)
        case "bend":
            pose.root[0] = tilt = rng.uniform(20, 65)
            legs[:, 0] = tilt + rng.uniform(0, 18)
            legs[:, 3] = rng.uniform(2, 35)
            spine[0] = rng.uniform(5, 30)
            arms[:, 0] = rng.uniform(30, 95) + rng.normal(0, 10, 2)
            _both(rng, arms, bend=(0, 50))
            pose.head[1] -= rng.uniform(0, 30)
        case "jump":
            pose.root[:] = rng.uniform(-8, 18), rng.normal(0, 8)
            _both(rng, legs, flexion=(-10, 75), abduction=(0, 35), bend=(10, 100), ankle=(15, 45))
            _both(rng, arms, flexion=(-20, 60), abduction=(40, 160), bend=(0, 70))
        case "lie":
            pose.root[1] = rng.uniform(72, 100)
            _both(rng, legs, flexion=(-5, 45), bend=(0, 70))
            _both(rng, arms, flexion=(0, 120), abduction=(10, 70), bend=(10, 110))
    if pose.name in ("stand", "reach"):
        if rng.random() < 0.4:  # weight on one leg
            legs[0] += rng.uniform(5, 25), rng.uniform(0, 12), 8, rng.uniform(8, 30), 0
            spine[1] += rng.uniform(0, 6)
        if rng.random() < 0.15:  # legs apart
            legs[:, 1] += rng.uniform(6, 16)


class Skeleton:
    """Keypoints of a pose in the camera frame, by forward kinematics, and frames (3, 3) whose columns are a segment's
    left, down and back. ``yaw`` in degrees: 0 faces the camera, 90 the left of the image, 180 is turned away; a camera
    of positive ``elevation`` in degrees looks down on the person.
    """

    def __init__(self, pose: Pose, size: Proportions, yaw: float, elevation: float) -> None:
        self.pose, self.size = pose.name, size
        root = _rotation(0, elevation) @ _rotation(1, yaw) @ _rotation(2, pose.root[1]) @ _rotation(0, pose.root[0])
        (lean, lateral, twist), (turn, nod, tilt) = pose.spine, pose.head
        chest_frame = root @ _rotation(1, twist) @ _rotation(2, lateral) @ _rotation(0, lean)
        head_frame = chest_frame @ _rotation(1, turn) @ _rotation(0, nod) @ _rotation(2, tilt)
        self.pelvis_frame, self.chest_frame, self.head_frame = root, chest_frame, head_frame
        up_low, up_high = -root[:, 1], -chest_frame[:, 1]
        self.chest = chest = size.spine * (0.4 * up_low + 0.6 * up_high)  # (3,) middle of the shoulders
        neck = size.neck * (0.7 * up_high - 0.3 * head_frame[:, 1])
        self.head = chest + neck + 0.072 * size.head * -head_frame[:, 1]  # (3,) centre of the skull
        arms, legs = [], []
        for arm, leg, sign in zip(pose.arms, pose.legs, (1.0, -1.0), strict=True):
            # A raised arm lifts its shoulder a little (shoulder blade), as it does in people.
            lift = 0.02 * max(0.0, max(arm[:2]) - 60) / 100
            shoulder = chest + chest_frame @ [sign * size.shoulder, 0.012 - lift, 0]
            arms.append(_limb(chest_frame, shoulder, arm, sign, 1, size.upper_arm, size.forearm))
            hip = root @ [sign * size.hip, 0.0, 0]
            points, hinge, shank = _limb(root, hip, leg[:4], sign, -1, size.thigh, size.shank)
            legs.append((points, hinge, shank @ _rotation(0, leg[4])))
        # (2, 3, 3) shoulder, elbow, wrist or hip, knee, ankle; (2, 3) axes of elbow or knee, towards the person's left
        self.arms, self.arm_hinges, _ = map(np.stack, zip(*arms, strict=True))
        self.legs, self.leg_hinges, self.foot_frames = map(np.stack, zip(*legs, strict=True))


def _rotation(axis: int, degrees: float) -> np.ndarray:
    angle, i, j, matrix = np.deg2rad(degrees), (axis + 1) % 3, (axis + 2) % 3, np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[j, i], matrix[i, j] = np.sin(angle), -np.sin(angle)
    return matrix


def _limb(frame, start, angles, sign: float, sense: int, length: float, lower_length: float) -> tuple[np.ndarray, ...]:
    """Points (3, 3) of an arm (``sense`` 1, in which its turns are positive) or a leg (-1), its hinge's axis (3,), and
    the frame of its lower segment."""
    flexion, abduction, turn, bend = angles
    upper = frame @ _rotation(0, -flexion) @ _rotation(2, -sign * abduction) @ _rotation(1, sense * sign * turn)
    lower = upper @ _rotation(0, -sense * bend)
    middle = start + length * upper[:, 1]
    return np.stack([start, middle, middle + lower_length * lower[:, 1]]), upper[:, 0], lower
