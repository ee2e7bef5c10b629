"""Data sets: COCO's layout, the synthetic set, augmentation and loading."""

# Version of what the synthetic generator draws; part of the data set's fingerprint and of its folder's name.
GENERATOR_VERSION = "3"


def before_forking() -> None:
    """Stop OpenCV's threads, for good. A forked child inherits their locks but not the threads, and waits for ever."""
    import cv2

    cv2.setNumThreads(1)
