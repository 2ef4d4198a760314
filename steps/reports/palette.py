"""The colours of every picture, distinct for people who confuse red and green, and in grey on paper.

After Okabe and Ito (2008). The style sheet and the icons of a report use the same.
"""

INK, MUTED, GRID, PAPER = "#1b2733", "#5a6874", "#e3e8ec", "#ffffff"
AXIS, RULE = "#b7c2cb", "#c9d4dc"

# Two things side by side, an outcome's rate, and bars behind them.
FIRST, SECOND, RATE = "#0b5c8a", "#8a5a00", "#c2410c"
BAR, BAR_SECOND = "#b9cbd8", "#e3cfa4"

# Rows with and without the outcome; the four kinds of decision.
POSITIVE, NEGATIVE = RATE, "#9db4c4"
FALSE_ALARM, CLEARED = "#e8a977", "#d5dee5"

# By order of appearance: families of models, point scores.
SERIES = (FIRST, RATE, "#7a3b8f", "#2f6b3a", SECOND, "#444444")
