"""Progress, cancellation, deadlines and event loops; callbacks that raise, threads that close what others use."""

import asyncio
import gc
import sys
import threading

from common import HEIGHT, Embedded, pixels

import luna  # found by common


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


class TestDeadlines(Embedded):
    def test_what_takes_too_long_says_so(self):
        vae = self.session.vae()
        with self.assertRaises(luna.TimedOut) as raised:
            vae.encode(pixels(512, 512), timeout=0.001)
        self.assertIsInstance(raised.exception, TimeoutError)
        self.assertEqual((raised.exception.kind, raised.exception.status), ("deadline", 101))
        self.assertIn("within 1 ms", raised.exception.expected)
        self.assertEqual(vae.encode(pixels(16, 16), timeout=600).shape, (1, 16, 2, 2))
        with self.assertRaises(luna.TimedOut):
            asyncio.run(self.wait_for(vae.encode_async(pixels(512, 512), timeout=0.001)))

    def test_a_deadline_counts_for_each_call_anew(self):
        call, vae = luna.Call(timeout=600), self.session.vae()
        for _ in range(3):
            vae.encode(pixels(16, 16), call=call)
        call.cancel()
        with self.assertRaises(luna.Cancelled, msg="the caller's own end is no deadline"):
            vae.encode(pixels(16, 16), call=call)

    def test_impossible_timeouts_are_refused(self):
        vae = self.session.vae()
        for wrong in (-1, float("nan"), float("inf")):
            with self.assertRaises(luna.InvalidInput):
                vae.encode(pixels(8, 8), timeout=wrong)
        with self.assertRaises(ValueError):
            vae.encode(pixels(8, 8), timeout=1, call=luna.Call())

    async def wait_for(self, awaitable):
        return await awaitable


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
