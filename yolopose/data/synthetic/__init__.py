"""The drawn people: from a seed to images with COCO annotations. Reads no data set and knows no model."""
