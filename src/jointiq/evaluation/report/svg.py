"""Matplotlib figures as SVG inside an HTML page."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"


def inline_svg(figure: Figure, prefix: str, title: str) -> str:
    """Give ``figure`` as an ``<svg>`` element.

    Args:
        figure: what to draw.
        prefix: put before every id, which must be unique in a page: one per figure.
        title: what the figure shows, for those who cannot see it.
    """
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": prefix}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(stream.getvalue())
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, prefix + value)
            elif key == f"{{{_XLINK}}}href" and value.startswith("#"):
                element.set(key, f"#{prefix}{value[1:]}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{prefix}"))
    for key in ("width", "height"):  # the page's style sets them
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", title)
    return re.sub(r"\n\s*", "\n", ElementTree.tostring(root, encoding="unicode"))
