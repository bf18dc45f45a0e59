"""What the tests share: a session in this process on the models that the library carries, and arrays of the standard
library, which suffices for them."""

import array
import gc
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

import luna  # noqa: E402

HEIGHT, WIDTH = 40, 48


def pixels(height=HEIGHT, width=WIDTH):
    """A gradient as floats of the standard library, and the array over them of the right shape."""
    values = array.array("f", (((x + y * c) % 32) / 31 for y in range(height) for x in range(width) for c in range(3)))
    return memoryview(values).cast("B").cast("f", (1, height, width, 3))


def flat(tensor):
    return list(tensor.view().cast("B").cast("f"))


class Embedded(unittest.TestCase):
    def setUp(self):
        self.session = luna.open()
        self.addCleanup(self.session.close)


def handles(session):
    """How many handles are open in this process, once what is not reachable has gone."""
    gc.collect()
    return session.stats()["handles"]
