"""VAEs of the package: there and back, layouts, memory that is shared."""

import array
import gc
import importlib.util
import unittest

from common import HEIGHT, WIDTH, Embedded, flat, pixels

import luna  # found by common
from luna import arrays


class TestVae(Embedded):
    def test_there_and_back(self):
        with self.session.vae() as vae:
            latent = vae.encode(pixels())
            self.assertEqual(latent.shape, (1, 16, HEIGHT // 8, WIDTH // 8))
            self.assertEqual(vae.last_report.copied_bytes, 0)
            image = vae.decode(latent)
            self.assertEqual((image.shape, image.dtype), ((1, HEIGHT, WIDTH, 3), "float32"))
            self.assertEqual(vae.last_report.copied_bytes, 0)
            apart = [(a - b) ** 2 for a, b in zip(flat(image), pixels().cast("B").cast("f"))]
            self.assertLess(sum(apart) / len(apart), 0.05)

    def test_other_layouts_are_copied_and_give_the_same(self):
        vae = self.session.vae()
        expected = flat(vae.encode(pixels()))
        doubles = array.array("d", pixels().cast("B").cast("f"))
        other = vae.encode(memoryview(doubles).cast("B").cast("d", (1, HEIGHT, WIDTH, 3)))
        self.assertEqual(flat(other), expected)
        self.assertEqual(vae.last_report.copied_bytes, HEIGHT * WIDTH * 3 * 4)
        read_only = memoryview(bytes(pixels().cast("B"))).cast("f", (1, HEIGHT, WIDTH, 3))
        self.assertEqual(flat(vae.encode(read_only)), expected)
        self.assertEqual(vae.last_report.copied_bytes, 0)

    def test_half_a_vae_does_its_half(self):
        whole, encoder = self.session.vae(), self.session.vae(halves="encoder")
        self.assertLess(encoder.weight_bytes, whole.weight_bytes)
        latent = whole.encode(pixels())
        self.assertEqual(flat(encoder.encode(pixels())), flat(latent))
        with self.assertRaises(luna.LunaError):
            encoder.decode(latent)
        with self.assertRaises(luna.InvalidInput):
            self.session.vae(halves="left")

    def test_bytes_are_pixels_of_255(self):
        vae = self.session.vae()
        black = memoryview(bytes(16 * 16 * 3)).cast("B", (1, 16, 16, 3))
        floats = memoryview(array.array("f", bytes(16 * 16 * 3 * 4))).cast("B").cast("f", (1, 16, 16, 3))
        self.assertEqual(flat(vae.encode(black)), flat(vae.encode(floats)))

    def test_dtype_is_the_objects_own(self):
        exact, half = self.session.vae(), self.session.vae()
        half.dtype = "bf16"
        self.assertEqual((exact.dtype, half.dtype), ("float32", "bfloat16"))
        self.assertNotEqual(flat(half.encode(pixels())), flat(exact.encode(pixels())))
        self.assertEqual(half.last_report.dtype, "bfloat16")
        with self.assertRaises(luna.InvalidInput):
            half.dtype = "int8"

    def test_samples_and_tiles_are_reported(self):
        vae = self.session.vae()
        self.assertEqual(flat(vae.encode(pixels(), seed=1)), flat(vae.encode(pixels(), seed=1)))
        self.assertNotEqual(flat(vae.encode(pixels(), seed=1)), flat(vae.encode(pixels(), seed=2)))
        vae.encode(pixels(160, 144), tile=16)
        self.assertEqual((vae.last_report.tile, vae.last_report.fallbacks), (16, ()))
        self.assertGreater(vae.last_report.tiles, 1)

    def test_views_outlive_their_tensor(self):
        tensor = self.session.vae().encode(pixels())
        expected, view = flat(tensor), tensor.view()
        self.assertTrue(view.readonly)
        tensor.close()
        with self.assertRaises(luna.InvalidHandle):
            tensor.view()
        del tensor
        gc.collect()
        self.assertEqual(list(view.cast("B").cast("f")), expected)

    def test_a_capsule_that_nobody_takes_is_given_back(self):
        tensor = self.session.vae().encode(pixels())
        for _ in range(1000):
            tensor.__dlpack__()
        borrowed = arrays.Borrowed(DlpackOnly(tensor))
        self.assertEqual(borrowed.view.shape[:4], [1, 16, HEIGHT // 8, WIDTH // 8])


class DlpackOnly:
    """An array that speaks DLPack alone, as torch's tensors do."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self):
        return self.tensor.__dlpack__()


@unittest.skipUnless(importlib.util.find_spec("numpy"), "NumPy is not installed: its arrays are not tried")
class TestNumpy(Embedded):
    def test_memory_is_shared_both_ways(self):
        import numpy

        vae = self.session.vae()
        image = numpy.asarray(pixels()).copy()
        latent = vae.encode(image)
        self.assertEqual(vae.last_report.copied_bytes, 0)
        shared = latent.numpy()
        self.assertFalse(shared.flags.writeable)
        self.assertTrue(numpy.shares_memory(shared, numpy.asarray(latent)))
        self.assertTrue(numpy.shares_memory(shared, numpy.from_dlpack(latent)))
        numpy.testing.assert_array_equal(vae.encode(image[:, ::-1][:, ::-1]).numpy(), shared)
        planes = numpy.ascontiguousarray(image.transpose(0, 3, 1, 2))
        numpy.testing.assert_array_equal(vae.encode(planes.transpose(0, 2, 3, 1)).numpy(), shared)
        self.assertGreater(vae.last_report.copied_bytes, 0)
        mirrored = vae.encode(image[:, :, ::-1]).numpy()
        numpy.testing.assert_array_equal(vae.encode(image[:, :, ::-1].copy()).numpy(), mirrored)


@unittest.skipUnless(importlib.util.find_spec("torch"), "torch is not installed: its tensors are not tried")
class TestTorch(Embedded):
    def test_memory_is_shared_both_ways(self):
        import torch

        vae = self.session.vae()
        image = torch.rand(2, 16, 24, 3)
        latent = vae.encode(image)
        self.assertEqual(vae.last_report.copied_bytes, 0)
        shared = latent.torch()
        self.assertEqual(shared.data_ptr(), latent.torch().data_ptr())
        vae.dtype = torch.bfloat16
        self.assertEqual(vae.dtype, "bfloat16")
        vae.dtype = torch.float32
        again = vae.encode(image.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1))
        self.assertTrue(torch.equal(again.torch(), shared))
        half = vae.encode(image.to(torch.bfloat16)).torch()
        self.assertTrue(torch.equal(half, vae.encode(image.to(torch.bfloat16).float()).torch()))
