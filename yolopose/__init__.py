"""A reproducibility study of YOLO-Pose (Maji et al., 2022)."""

__version__ = "0.1.0"
