"""Okabe and Ito's colours, which keep apart for all common kinds of colour blindness, and the greys of a page."""

RED, BLUE, GREEN, PINK, ORANGE, SKY, YELLOW, BLACK = (
    "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
INK, GREY, GRID = "#1a1a1a", "#666666", "#e3e3e3"
