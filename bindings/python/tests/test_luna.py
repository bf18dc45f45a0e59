"""The Python package as programs use it, on the models that the library carries. The standard library suffices; what
NumPy, torch and mypy add is tried where they are, and said where not."""

import array
import asyncio
import ctypes
import gc
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import luna  # noqa: E402
from luna import _abi, arrays, library  # noqa: E402

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


class TestCalls(Embedded):
    def test_progress_is_heard_to_the_end(self):
        heard = []
        self.session.vae().encode(pixels(), progress=lambda done, total: heard.append((done, total)))
        self.assertGreater(len(heard), 5)
        self.assertEqual(heard[-1][0], heard[-1][1])

    def test_what_progress_raises_is_raised(self):
        class Enough(Exception):
            pass

        def stop(done, total):
            raise Enough(f"{done} of {total}")

        with self.assertRaises(Enough):
            self.session.vae().encode(pixels(), progress=stop)

    def test_cancelled_calls_say_so(self):
        call = luna.Call()
        call.cancel()
        with self.assertRaises(luna.Cancelled) as raised:
            self.session.vae().encode(pixels(), call=call)
        self.assertEqual((raised.exception.kind, raised.exception.status), ("cancelled", 8))

    def test_other_threads_run_meanwhile(self):
        counted, done = [0], threading.Event()

        def count():
            while not done.is_set():
                counted[0] += 1

        thread = threading.Thread(target=count)
        thread.start()
        self.session.vae().encode(pixels(256, 256))
        done.set()
        thread.join()
        self.assertGreater(counted[0], 1000)


class TestAsync(Embedded):
    def test_calls_run_beside_the_loop(self):
        vae = self.session.vae()

        async def both():
            return await asyncio.gather(vae.encode_async(pixels()), vae.encode_async(pixels(16, 16)))

        first, second = asyncio.run(both())
        self.assertEqual((first.shape[2], second.shape[2]), (HEIGHT // 8, 2))

    def test_a_cancelled_task_cancels_the_call(self):
        vae = self.session.vae()

        async def impatient():
            task = asyncio.ensure_future(vae.encode_async(pixels(512, 512)))
            await asyncio.sleep(0.05)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return True
            return False

        self.assertTrue(asyncio.run(impatient()))

    def test_progress_is_heard_and_its_exception_raised(self):
        heard, vae = [], self.session.vae()
        asyncio.run(self.run_one(vae.decode_async(vae.encode(pixels()), progress=lambda *now: heard.append(now))))
        self.assertEqual(heard[-1][0], heard[-1][1])

        def stop(done, total):
            raise LookupError("enough")

        with self.assertRaisesRegex(LookupError, "enough"):
            asyncio.run(self.run_one(vae.encode_async(pixels(), progress=stop)))

    async def run_one(self, awaitable):
        return await awaitable


class TestClip(Embedded):
    def test_prompts_are_tokenized_and_encoded(self):
        clip = self.session.clip()
        tokens = clip.tokenize("a (red:1.3) fox")
        self.assertEqual((tokens[2].encoder, tokens[2].id), ("clip_l", 736))
        self.assertAlmostEqual(tokens[2].weight, 1.3)
        positive, negative = clip.encode("a (red:1.3) fox", "blurry")
        self.assertEqual((positive.tokens.shape, negative.pooled.shape), ((1, 77, 64), (1, 64)))
        self.assertIsNone(positive.mask)
        self.assertEqual(positive.problems, ())
        self.assertEqual(flat(clip.encode("blurry")[0].tokens), flat(negative.tokens))

    def test_a_missing_textual_inversion_is_told(self):
        with tempfile.TemporaryDirectory() as folder:
            clip = self.session.clip("demo", embedding_folders=[folder])
            [encoded] = clip.encode("embedding:sun over a lake")
        self.assertIn("sun", encoded.problems[0])

    def test_the_cache_answers_the_second_time(self):
        clip = self.session.clip(cache_bytes=1 << 20)
        clip.encode("a fox")
        self.assertEqual(clip.last_report.cached, 0)
        clip.encode("a fox")
        self.assertEqual(clip.last_report.cached, 1)
        usage = clip.cache_usage()
        self.assertEqual((usage["entries"], usage["hits"], usage["misses"]), (1, 1, 1))
        clip.clear_cache()
        self.assertEqual((clip.cache_usage()["entries"], clip.cache_usage()["bytes"]), (0, 0))
        self.assertEqual(self.session.clip().cache_usage()["entries"], 0)

    def test_what_is_wanted_of_a_file_is_said_for_each(self):
        with self.assertRaisesRegex(luna.InvalidInput, "for each path"):
            self.session.clip("demo", encoders=["clip_l", "clip_g"])
        with self.assertRaisesRegex(luna.InvalidInput, "in one way only"):
            self.session.clip("demo", encoders=["clip_l"])
        with self.assertRaises(luna.InvalidInput):
            self.session.clip("some.safetensors", encoders=["clip_x"])

    def test_attention_is_the_objects_own(self):
        clip = self.session.clip()
        clip.attention = "pytorch"
        clip.encode("a fox")
        self.assertEqual(clip.last_report.attention, "pytorch")
        with self.assertRaises(luna.InvalidInput):
            clip.attention = "magic"


class TestModel(Embedded):
    def setUp(self):
        super().setUp()
        self.model = self.session.model(os.environ["LUNA_TEST_DENOISER"])
        channels, width = self.model.info["input_channels"], self.model.info["context_width"]
        noise = memoryview(array.array("f", [0.25] * (channels * 256))).cast("B").cast("f", (1, channels, 16, 16))
        context = memoryview(array.array("f", [0.5] * (7 * width))).cast("B").cast("f", (1, 7, width))
        self.step = (noise, array.array("f", [500.0]), context)

    def test_one_step(self):
        model = self.model
        prediction = model(*self.step)
        self.assertEqual(prediction.shape, (1, model.info["output_channels"], 16, 16))
        twin = model.clone()
        twin.dtype = "bfloat16"
        self.assertEqual(model.dtype, "float32")
        self.assertNotEqual(flat(twin(*self.step)), flat(prediction))
        self.assertEqual(len(self.session.models()), 1)
        nothing = model(*self.step, control={"output": [None, None]})
        self.assertEqual(flat(nothing), flat(prediction))
        with self.assertRaises(luna.InvalidInput):
            model(*self.step, control={"aside": []})

    def test_attention_is_the_objects_own(self):
        split = self.model.clone()
        split.attention = "split"
        close = zip(flat(split(*self.step)), flat(self.model(*self.step)))
        self.assertLess(max(abs(a - b) for a, b in close), 1e-4)
        self.assertEqual((split.last_report.attention, self.model.last_report.attention), ("split", "auto"))
        self.assertEqual(split.clone().attention, "split")

    def test_the_first_block_cache_answers_for_equal_steps(self):
        first = self.model(*self.step, cache="positive")
        self.assertEqual((self.model.last_report.cache_hit, self.model.last_report.cache_difference), (False, None))
        again = self.model(*self.step, cache=luna.StepCache("positive", most_hits=1))
        report = self.model.last_report
        self.assertEqual((report.cache_hit, report.cache_hits, report.cache_difference), (True, 1, 0.0))
        self.assertLess(max(abs(a - b) for a, b in zip(flat(first), flat(again))), 1e-5)
        self.model(*self.step, cache=luna.StepCache("positive", most_hits=1))
        self.assertFalse(self.model.last_report.cache_hit)
        self.model(*self.step, cache=luna.StepCache("positive", threshold=0.0))
        self.assertFalse(self.model.last_report.cache_hit, "a threshold of 0 never answers")
        self.assertGreater(self.session.stats()["step_cache_bytes"], 0)
        self.assertEqual(self.session.forget_steps("pos"), 1)
        with self.assertRaises(luna.InvalidInput):
            self.model(*self.step, cache=luna.StepCache("positive", threshold=-1.0))

    def test_a_model_without_pooled_text_takes_none(self):
        [encoded] = self.session.clip().encode("a fox")
        self.assertIsNone(self.model.pooled(encoded))

    def test_noise_levels_are_comfyuis(self):
        levels = luna.noise_levels(5)
        self.assertEqual([timestep for timestep, _ in levels], [999.0, 749.0, 500.0, 250.0, 0.0, 0.0])
        self.assertAlmostEqual(levels[0][1], 14.61464, 4)
        self.assertEqual(levels[-1][1], 0.0)


class TestLoras(Embedded):
    def test_the_stack_is_the_objects_own(self):
        plain, path = self.session.clip(), os.environ["LUNA_TEST_LORA"]
        expected = flat(plain.encode("a fox")[0].tokens)
        changed = plain.clone()
        changed.add_lora(path, 0.8)
        self.assertNotEqual(flat(changed.encode("a fox")[0].tokens), expected)
        self.assertEqual((changed.last_report.adapters_applied, changed.last_report.adapters_missed), (1, 0))
        self.assertGreater(sum(changed.last_report.layers), 0)
        [file] = changed.lora_report
        self.assertEqual((file.name, file.model, file.strength, file.is_complete), ("ink", "clip_l", 0.8, True))
        self.assertEqual(flat(plain.encode("a fox")[0].tokens), expected)
        self.assertEqual((len(plain.lora_stack), len(changed.lora_stack)), (0, 1))
        twin = changed.clone()
        twin.clear_loras()
        self.assertEqual(flat(twin.encode("a fox")[0].tokens), expected)
        self.assertEqual(len(changed.lora_stack), 1)

    def test_bytes_and_names_serve_as_well(self):
        path = pathlib.Path(os.environ["LUNA_TEST_LORA"])
        clip, named = self.session.clip(), None
        clip.add_lora(data=path.read_bytes(), name="from memory")
        encoded = flat(clip.encode("a fox")[0].tokens)
        self.assertEqual(clip.lora_report[0].name, "from memory")
        with luna.open(lora_folders=[path.parent]) as session:
            self.assertIn(path.stem, session.loras())
            named = session.clip()
            named.add_lora(name=path.stem)
            self.assertEqual(flat(named.encode("a fox")[0].tokens), encoded)

    def test_what_does_not_apply_is_an_error_with_words(self):
        model = self.session.model(os.environ["LUNA_TEST_DENOISER"])
        width = model.info["context_width"]
        context = memoryview(array.array("f", bytes(28 * width))).cast("B").cast("f", (1, 7, width))
        noise = memoryview(array.array("f", bytes(4 * 4 * 64))).cast("B").cast("f", (1, 4, 8, 8))
        model.add_lora(os.environ["LUNA_TEST_LORA"])
        with self.assertRaisesRegex(luna.InvalidInput, "nothing of the LoRA stack applies"):
            model(noise, array.array("f", [1.0]), context)
        with self.assertRaises(luna.InvalidInput):
            model.add_lora()


class TestVision(Embedded):
    def test_pictures_become_features(self):
        vision = self.session.vision(os.environ["LUNA_TEST_VISION"])
        features = vision.encode(pixels(), pixels(30, 64))
        self.assertEqual(features.image_embeds.shape, (2, vision.info["embedding"]))
        part = vision.encode(pixels(), part=(0, 0, 20, 20)).image_embeds
        self.assertNotEqual(flat(part), flat(features.image_embeds)[: vision.info["embedding"]])
        [again] = asyncio.run(self.gather(vision.encode_async(pixels(), pixels(30, 64))))
        self.assertEqual(flat(again.image_embeds), flat(features.image_embeds))

    async def gather(self, *awaitables):
        return await asyncio.gather(*awaitables)


class TestVlm(Embedded):
    def setUp(self):
        super().setUp()
        self.vlm = self.session.vlm(os.environ["LUNA_TEST_VLM"])

    def test_text_comes_piece_by_piece(self):
        pieces = []
        answer = self.vlm.generate("What is it?", pixels(), max_tokens=6, on_text=pieces.append)
        self.assertEqual("".join(pieces), answer.text)
        self.assertEqual(len(answer.ids), 6)
        self.assertGreater(answer.picture_tokens, 0)

    def test_what_a_listener_raises_is_raised(self):
        def stop(_):
            raise KeyError("enough")

        with self.assertRaises(KeyError):
            self.vlm.generate("What is it?", max_tokens=64, on_text=stop)

    def test_loras_change_the_answer_and_are_reported(self):
        path = os.environ["LUNA_TEST_VLM_LORA"]
        plain = self.vlm.generate("What is it?", max_tokens=6)
        changed = self.vlm.clone()
        changed.add_lora(path, 1.0)
        told = changed.generate("What is it?", max_tokens=6)
        self.assertEqual((changed.last_report.adapters_applied, changed.last_report.adapters_missed), (14, 0))
        self.assertEqual(sum(changed.last_report.layers), 16 if told.picture_tokens else sum(changed.last_report.layers))
        self.assertEqual(changed.lora_report[0].model, "qwen3_vl")
        self.assertEqual(self.vlm.generate("What is it?", max_tokens=6).ids, plain.ids)
        other = self.vlm.clone()
        other.add_lora(os.environ["LUNA_TEST_LORA"])
        with self.assertRaises(luna.InvalidInput):
            other.generate("What is it?", max_tokens=2)

    def test_a_projector_is_for_gguf_files(self):
        with self.assertRaises(luna.LunaError):
            self.session.vlm(os.environ["LUNA_TEST_VLM"], projector="no/such/mmproj.gguf")


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


class TestMisuse(Embedded):
    def test_callbacks_that_raise_leave_nothing_behind(self):
        vae = self.session.vae()

        def stop(*_):
            raise RuntimeError("no")

        gc.collect()
        before = self.session.stats()["handles"]
        for _ in range(50):
            with self.assertRaises(RuntimeError):
                vae.encode(pixels(16, 16), progress=stop)
        gc.collect()
        self.assertEqual(self.session.stats()["handles"], before)

    def test_a_log_that_raises_does_no_harm(self):
        def log(level, line):
            raise RuntimeError("no")

        hook, heard = sys.unraisablehook, []
        sys.unraisablehook = heard.append
        try:
            with luna.open(log=log) as session:
                self.assertEqual(session.vae().encode(pixels(16, 16)).shape, (1, 16, 2, 2))
        finally:
            sys.unraisablehook = hook
        self.assertGreater(len(heard), 0, "Python tells of it")

    def test_threads_close_what_others_use(self):
        session = luna.open()
        vae, fates = session.vae(), []

        def work():
            for _ in range(30):
                try:
                    vae.encode(pixels(16, 16))
                    fates.append("done")
                except luna.InvalidHandle:
                    fates.append("closed")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        vae.close()
        session.close()
        for thread in threads:
            thread.join()
        self.assertEqual(len(fates), 120)


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


@unittest.skipUnless(importlib.util.find_spec("mypy"), "mypy is not installed: types are not checked")
class TestTypes(unittest.TestCase):
    def test_the_package_is_typed(self):
        folder = pathlib.Path(luna.__file__).parent.parent
        ran = subprocess.run([sys.executable, "-m", "mypy"], cwd=folder, capture_output=True, text=True)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)


if __name__ == "__main__":
    unittest.main()
