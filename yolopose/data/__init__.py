"""Data sets: COCO's layout, the synthetic set, augmentation and loading."""

# Version of what the synthetic generator draws; part of the data set's fingerprint and of its folder's name.
GENERATOR_VERSION = "3"
