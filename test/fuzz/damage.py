"""Ways in which bytes go wrong on a disk or in a network, as hypothesis draws them."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st

FUZZ = hypothesis.settings.get_profile("fuzz")
INTERESTING = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\0\0\0", b"\xff" * 8, b"\0" * 16)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` with a few bytes overwritten, cut out or doubled, and perhaps cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        # near the beginning, where headers are, as often as anywhere
        limit = draw(st.sampled_from([32, 400, len(data)]))
        position = draw(st.integers(0, max(0, min(limit, len(data)) - 1)))
        kind = draw(st.sampled_from(["overwrite", "interesting", "remove", "double", "cut"]))
        if kind == "overwrite":
            new = draw(st.binary(min_size=1, max_size=6))
            data[position : position + len(new)] = new
        elif kind == "interesting":
            new = draw(st.sampled_from(INTERESTING))
            data[position : position + len(new)] = new
        elif kind == "remove":
            del data[position : position + draw(st.integers(1, 64))]
        elif kind == "double":
            data[position:position] = data[position : position + draw(st.integers(1, 64))]
        else:
            del data[position:]
    return bytes(data)
