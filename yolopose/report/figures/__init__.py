"""One function a figure, from stored results alone. Nothing here measures."""
