"""Denoisers."""

import array
import os

from common import Embedded, flat

import luna  # found by common


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
