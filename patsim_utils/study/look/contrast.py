"""Ink that can be read on a coloured square."""

import numpy as np
from matplotlib.colors import to_rgb

LEGIBLE = 4.5  # least contrast of a number with what is behind it


def legible_on(colour: tuple[float, ...]) -> str:
    """Nearly black or nearly white: whichever stands out more against a colour.

    The contrast is always LEGIBLE or more.
    """
    return max(("#000001", "#fffffe"), key=lambda ink: contrast(ink, colour))


def contrast(first: str | tuple[float, ...], second: str | tuple[float, ...]) -> float:
    """Contrast of two colours, 1 to 21, as the Web Content Accessibility Guidelines define it."""
    brighter, darker = sorted([_luminance(first), _luminance(second)], reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def _luminance(colour: str | tuple[float, ...]) -> float:
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
