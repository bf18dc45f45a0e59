"""Libraries of other versions or none, and the types of the package."""

import ctypes
import importlib.util
import os
import pathlib
import subprocess
import sys
import unittest

import common  # noqa: F401 - it finds the package
import luna
from luna import _abi, library


class TestLibrary(unittest.TestCase):
    def test_other_versions_are_refused_with_a_reason(self):
        major, minor = _abi.LUNA_ABI_MAJOR, _abi.LUNA_ABI_MINOR
        library.check_version(major << 16 | minor, "libluna.so")
        library.check_version(major << 16 | minor + 1, "libluna.so")
        with self.assertRaisesRegex(luna.LibraryMismatch, "is newer than this package.*upgrade the Python package"):
            library.check_version((major + 1) << 16, "libluna.so")
        with self.assertRaisesRegex(luna.LibraryMismatch, "is older than this package"):
            library.check_version((major - 1) << 16 | 9, "libluna.so")
        with self.assertRaisesRegex(luna.LibraryMismatch, "is not libluna"):
            library.load(ctypes.util.find_library("c"))
        with self.assertRaisesRegex(luna.LibraryMismatch, "is not libluna"):
            library.load("no/such/libluna.so")

    def test_a_package_without_library_says_what_to_do(self):
        environment = {key: value for key, value in os.environ.items() if key != "LUNA_LIBRARY"}
        environment["PYTHONPATH"] = str(pathlib.Path(luna.__file__).parent.parent)
        ran = subprocess.run(
            [sys.executable, "-c", "import luna; luna.open()"], env=environment, capture_output=True, text=True
        )
        self.assertIn("libluna was not found", ran.stderr)
        self.assertIn("LUNA_LIBRARY", ran.stderr)


@unittest.skipUnless(importlib.util.find_spec("mypy"), "mypy is not installed: types are not checked")
class TestTypes(unittest.TestCase):
    def test_the_package_is_typed(self):
        folder = pathlib.Path(luna.__file__).parent.parent
        ran = subprocess.run([sys.executable, "-m", "mypy"], cwd=folder, capture_output=True, text=True)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
