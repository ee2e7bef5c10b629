"""The file that COCO's evaluation server takes, and the answer that it gives. Computes no score itself."""
