"""What is free goes back to the system."""

import subprocess
import sys

import pytest

from jaxstyle.engine import heap

CHILD = """
import psutil
from jaxstyle.engine import heap

process = psutil.Process()
kept = [bytes(3000) for _ in range(60_000)]
# Every hundredth stays: nothing between them is given back by itself.
kept = kept[::100]
before = process.memory_info().rss
heap.trim()
print(before - process.memory_info().rss)
"""


@pytest.mark.skipif(heap._libc() is None, reason="the C library is not glibc")
def test_pages_between_what_is_kept_are_given_back():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # 180 MB were taken; pages are of 4 kB.
    assert int(done.stdout) > 50_000_000


def test_other_libraries_have_nothing_to_trim(monkeypatch):
    monkeypatch.setattr(heap, "_libc", lambda: None)
    heap.trim()
