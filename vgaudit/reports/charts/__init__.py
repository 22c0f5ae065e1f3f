"""Pictures of a report: pure functions from plain figures to inline SVG.

Every chart is three functions in one file: what is drawn (numbers), the picture
(markup), and the table beside it. No chart measures anything, and none imports a
drawing library.

A plot is a fluid SVG: x is a percentage of the width, y is in pixels, so the marks
stretch with the page and the letters do not.
"""
