"""The package with a daemon: started, found, asked over the socket, by a machine that has no library. LUNA_CLI is the
program, LUNA_LIBRARY the library for the few tests that need one."""

import array
import asyncio
import importlib.util
import os
import pathlib
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import luna  # noqa: E402

QUIET = ("--watch-listen", "off", "--threads", "2")


def pixels(height=40, width=48):
    values = array.array("f", (((x + y * c) % 32) / 31 for y in range(height) for x in range(width) for c in range(3)))
    return memoryview(values).cast("B").cast("f", (1, height, width, 3))


class TestDaemon(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folders = [str(pathlib.Path(os.environ[name]).parent) for name in ("LUNA_TEST_LORA", "LUNA_TEST_VLM")]
        options = ("--lora-folder", folders[0], "--model-root", folders[1])
        cls.daemon = luna.start_daemon(arguments=(*QUIET, *options))
        cls.addClassCleanup(cls.daemon.stop)

    def setUp(self):
        self.session = self.daemon.connect()
        self.addCleanup(self.session.close)

    def test_the_library_is_not_needed(self):
        program = (
            "import sys, luna; session = luna.connect(sys.argv[1]);"
            "print(session.vae().encode(memoryview(bytes(192)).cast('B', (1, 8, 8, 3))).shape);"
            "print(session.clip().tokenize('a fox')[1].id, sys.modules['luna.library']._loaded)"
        )
        environment = {**os.environ, "LUNA_LIBRARY": "/nowhere"}
        environment["PYTHONPATH"] = str(pathlib.Path(luna.__file__).parent.parent)
        told = subprocess.run(
            [sys.executable, "-c", program, self.daemon.address], env=environment, capture_output=True, text=True
        )
        self.assertEqual(told.stdout.splitlines(), ["(1, 16, 1, 1)", "320 None"], told.stderr)

    def test_auto_takes_a_daemon_and_says_so(self):
        with luna.auto(self.daemon.address) as session:
            self.assertTrue(session.remote)
            self.assertIn(self.daemon.address, session.where)
        with luna.auto("127.0.0.1:1", threads=2) as session:
            self.assertFalse(session.remote)
            self.assertEqual(session.where, "in this process")
            self.assertEqual(session.vae().encode(pixels()).shape, (1, 16, 5, 6))

    def test_progress_and_cancellation_cross_the_wire(self):
        vae, heard = self.session.vae(), []
        vae.encode(pixels(96, 96), progress=lambda done, total: heard.append((done, total)))
        # How many steps are told depends on how fast they are.
        self.assertTrue(heard)
        self.assertEqual(heard[-1][0], heard[-1][1])

        def stop(done, total):
            raise ArithmeticError("enough")

        with self.assertRaisesRegex(ArithmeticError, "enough"):
            vae.encode(pixels(96, 96), progress=stop)
        call = luna.Call()
        call.cancel()
        with self.assertRaises(luna.Cancelled):
            vae.encode(pixels(256, 256), call=call)
        self.assertEqual(vae.encode(pixels()).shape, (1, 16, 5, 6))

    def test_tasks_run_beside_the_loop_on_one_connection(self):
        vae = self.session.vae()

        async def several():
            return await asyncio.gather(*[vae.encode_async(pixels(8 * n, 16)) for n in range(1, 6)])

        self.assertEqual([latent.shape[2] for latent in asyncio.run(several())], [1, 2, 3, 4, 5])

    def test_threads_share_a_connection(self):
        vae, shapes = self.session.vae(), []

        def work(height):
            for _ in range(5):
                shapes.append(vae.encode(pixels(height, 16)).shape[2] == height // 8)

        threads = [threading.Thread(target=work, args=(8 * n,)) for n in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(shapes, [True] * 20)

    def test_loras_travel_with_the_request(self):
        path = os.environ["LUNA_TEST_LORA"]
        plain = self.session.clip()
        changed, sent = plain.clone(), plain.clone()
        changed.add_lora(path, 0.8)
        sent.add_lora(data=pathlib.Path(path).read_bytes(), name="sent", strength=0.8)
        values = [bytes(clip.encode("a fox")[0].tokens.view()) for clip in (plain, changed, sent)]
        self.assertNotEqual(values[0], values[1])
        self.assertEqual(values[1], values[2])
        self.assertEqual(changed.last_report.adapters_applied, 1)
        self.assertEqual(changed.lora_report[0].of("applied")[0].kind, "lora")

    def test_tags_name_loras_of_the_daemons_folders(self):
        plain, clip = self.session.clip(), self.session.clip()
        plain.add_lora(os.environ["LUNA_TEST_LORA"], 1.0, 0.5)
        clip.lora_tags = True
        expected = bytes(plain.encode("a fox")[0].tokens.view())
        positive, negative = clip.encode("a fox<lora:ink:1:0.5>", "<lora:oops:x>")
        self.assertEqual(bytes(positive.tokens.view()), expected)
        self.assertEqual(clip.last_tags, (luna.LoraTag("ink", 1.0, 0.5),))
        self.assertEqual(clip.malformed_tags, ("<lora:oops:x>",))
        self.assertTrue(clip.lora_report[0].is_complete)
        self.assertEqual(clip.tokenize("a fox<lora:none>"), clip.tokenize("a fox"))
        with self.assertRaises(luna.NotFound) as raised:
            clip.encode("<lora:none>")
        self.assertEqual(raised.exception.missing, ("none",))
        with self.assertRaisesRegex(luna.Unsupported, "two prompts"):
            clip.encode("a", "b", "c")

    def test_texts_of_one_encoder_and_ids_travel(self):
        clip = self.session.clip()
        own, plain = clip.encode(luna.Prompt("a lighthouse", clip_l="a fox"), "a fox")
        self.assertEqual(bytes(own.tokens.view()), bytes(plain.tokens.view()))
        ids = [token.id for token in clip.tokenize(luna.Prompt("a", clip_l="a fox"))]
        first, second = clip.encode_ids([ids, ids[::-1]])
        self.assertEqual(bytes(first.tokens.view()), bytes(plain.tokens.view()))
        self.assertNotEqual(bytes(second.tokens.view()), bytes(plain.tokens.view()))
        with self.assertRaisesRegex(luna.InvalidInput, "takes no part"):
            clip.encode(luna.Prompt("a fox", clip_g="a fox"))
        clip.break_chunks = True
        self.assertEqual(clip.tokenize("a fox BREAK a lake")[-1].chunk, 1)
        with self.assertRaisesRegex(luna.InvalidInput, "no attention mask"):
            clip.encode_ids(ids, [1] * len(ids))

    def test_listeners_that_raise_end_the_request(self):
        vlm, heard = self.session.vlm(os.environ["LUNA_TEST_VLM"]), []

        def stop(text):
            heard.append(text)
            raise KeyboardInterrupt

        for _ in range(10):
            heard.clear()
            with self.assertRaises(KeyboardInterrupt):
                vlm.generate("What is it?", max_tokens=200, on_text=stop)
            self.assertEqual(len(heard), 1, "it hears no more")
        self.assertEqual(len(vlm.chat([{"role": "user", "content": "What is it?"}], max_tokens=2).ids), 2)

    def test_deadlines_cross_the_wire(self):
        vae = self.session.vae()
        with self.assertRaises(luna.TimedOut) as raised:
            vae.encode(pixels(512, 512), timeout=0.001)
        self.assertEqual((raised.exception.kind, raised.exception.reason), ("deadline", "deadline"))
        self.assertIsInstance(raised.exception, TimeoutError)
        self.assertEqual(vae.encode(pixels(), timeout=600).shape, (1, 16, 5, 6))

    def test_errors_have_their_kind_and_words(self):
        with self.assertRaises(luna.NotFound):
            self.session.vae("no/such/file.safetensors")
        with self.assertRaises(luna.InvalidInput) as raised:
            self.session.vae().encode(array.array("f", [0.0] * 12))
        self.assertTrue(raised.exception.message)
        with self.assertRaises(luna.LunaError):
            self.session.vlm("somewhere", projector="mmproj.gguf")
        with self.assertRaises(luna.InvalidInput):
            self.session.clip("one", "two", encoders=["clip_l"])

    def test_a_daemon_that_ends_is_an_io_error(self):
        with luna.start_daemon(arguments=QUIET, token="hush hush hush hush") as daemon:
            session = daemon.connect()
            with self.assertRaisesRegex(luna.LunaError, "token"):
                luna.connect(daemon.address)
            vae = session.vae()
            daemon.process.kill()
            daemon.process.wait()
            with self.assertRaises(luna.Io):
                vae.encode(pixels())
        with self.assertRaises(luna.Io):
            luna.connect(daemon.address, timeout=2)

    def test_no_program_and_a_program_that_fails(self):
        with self.assertRaises(luna.Io) as raised:
            luna.start_daemon("127.0.0.1:0", arguments=("--no-such-option",))
        self.assertIn("no-such-option", str(raised.exception))
        with self.assertRaises((luna.NotFound, luna.Io, OSError)):
            luna.start_daemon(program="/no/such/luna-cli")

    def test_tensors_share_their_memory(self):
        latent = self.session.vae().encode(pixels())
        self.assertTrue(latent.view().readonly)
        capsule = latent.__dlpack__()
        del capsule
        self.assertEqual(len(latent.tolist()), 1)
        if importlib.util.find_spec("numpy") is None:
            self.skipTest("NumPy is not installed")
        import numpy

        self.assertTrue(numpy.shares_memory(latent.numpy(), numpy.from_dlpack(latent)))


if __name__ == "__main__":
    unittest.main()
