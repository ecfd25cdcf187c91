"""A hook of MkDocs: formulas become MathML when the site is built, so pages need no script."""

import re

from latex2mathml.converter import convert

# Code is left alone: fences and spans come first in the alternation.
PATTERN = re.compile(
    r"(?P<code>^```.*?^```|`[^`\n]+`)|\$\$(?P<block>.+?)\$\$|\\\((?P<inline>.+?)\\\)",
    re.DOTALL | re.MULTILINE,
)


def on_page_markdown(markdown, **_):
    """Replace `$$…$$` and `\\(…\\)` in a page's source."""
    return PATTERN.sub(_replace, markdown)


def _replace(match):
    if match["code"]:
        return match["code"]
    if match["block"]:
        return convert(match["block"].strip(), display="block").replace("\n", "")
    return convert(match["inline"].strip()).replace("\n", "")
