"""Sessions, what they save, and what they leave behind."""

import array
import gc
import tempfile

from common import HEIGHT, WIDTH, Embedded, flat, pixels

import luna  # found by common


class TestSession(Embedded):
    def test_models_are_shared(self):
        first, second = self.session.vae(), self.session.vae()
        [resident] = self.session.models()
        self.assertEqual((resident.path, resident.leases, len(resident.id)), ("moonlet", 2, 64))
        self.session.pin(resident.id)
        self.assertFalse(self.session.unload(resident.id))
        self.assertEqual(self.session.models(), [])
        del first, second

    def test_errors_are_of_their_kind(self):
        with self.assertRaises(luna.NotFound) as raised:
            self.session.vae("no/such/file.safetensors")
        self.assertIsInstance(raised.exception, LookupError)
        with self.assertRaises(luna.InvalidInput):
            self.session.vae().encode(array.array("f", [0.0] * 12))
        with self.assertRaises(luna.InvalidInput) as raised:
            self.session.vae().encode("a picture")
        self.assertIn("not an array", str(raised.exception))
        with self.assertRaises(luna.NonFinite):
            self.session.vae().encode(memoryview(array.array("f", [float("nan")] * 192)).cast("B").cast("f", (1, 8, 8, 3)))

    def test_closed_objects_are_refused(self):
        session = luna.open()
        vae = session.vae()
        session.close()
        session.close()
        vae.encode(pixels(16, 16))
        vae.close()
        with self.assertRaises(luna.InvalidHandle):
            vae.encode(pixels(16, 16))
        with self.assertRaises(luna.InvalidHandle):
            session.vae()

    def test_pictures_are_saved_and_read(self):
        with tempfile.TemporaryDirectory() as folder:
            lines = []
            with luna.open(output_folder=folder, log=lambda level, line: lines.append((level, line))) as session:
                job = session.save(pixels(), name="picture_%seed%", seed=7, metadata={"parameters": "a test"})
                self.assertEqual(job.wait(60), "done")
                [picture] = job.pictures()
                self.assertTrue(picture.path.endswith("picture_7.png"))
                read = luna.read_picture(picture.path)
                self.assertEqual(read.shape, (1, HEIGHT, WIDTH, 3))
                self.assertEqual(session.stats()["pictures_written"], 1)
                self.assertLess(max(abs(a - b) for a, b in zip(flat(read), pixels().cast("B").cast("f"))), 0.005)
            self.assertTrue(any("done" in line for _, line in lines), lines)

    def test_nothing_is_left_behind(self):
        def cycle():
            with luna.open() as session:
                with session.vae() as vae:
                    vae.encode(pixels(8, 8)).close()

        cycle()
        gc.collect()
        before = self.session.stats()["handles"]
        for _ in range(20):
            cycle()
        gc.collect()
        self.assertEqual(self.session.stats()["handles"], before)
