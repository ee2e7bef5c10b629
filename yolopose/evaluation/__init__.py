"""From weights to COCO's scores: prediction, scoring, intervals, test-time augmentation, COCO's server."""
