"""Reproducibility study of YOLO-Pose (Maji et al., 2022)."""
