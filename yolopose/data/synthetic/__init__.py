"""The drawn people: from a seed to images with COCO annotations. Reads no data set and knows no model.

In the order of reading: ``generate`` (seed to files), ``compose`` (one picture and its labels), ``scene`` (the place),
``person`` (one person in the picture), ``skeleton`` (its pose), ``body`` (its surfaces and keypoints), ``looks`` (what
they wear) and ``raster`` (surfaces to pixels).
"""
