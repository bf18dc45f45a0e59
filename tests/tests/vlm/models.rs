//! Both families against transformers: logits of whole prompts, greedy tokens, and what becomes of chats and pictures.

use crate::fixtures::{CASES, case, generate, load, prompts};
use luna_core::{
    Call, Precision,
    vlm::{FinishReason, GenerateOptions, Question, VlmFamily},
};
use luna_tests::vae::relative_error;

#[test]
fn logits_and_greedy_tokens_are_those_of_transformers() {
    let mut checked = 0;
    for name in CASES {
        let case = case(name);
        let model = load(&case, "F16").unwrap();
        assert_eq!(model.info().unused, [""; 0], "{name}");
        for (index, prompt) in prompts(&case, &model).iter().enumerate() {
            let logits = model.logits(&prompt.input, Precision::F32, &Call::new()).unwrap();
            let error = relative_error(&logits, &prompt.logits);
            assert!(error < 2e-5, "{name}/{index}: relative error {error:.2e}");
            let generated = generate(&model, &prompt.input, prompt.generated.len());
            assert_eq!(generated.ids, prompt.generated, "{name}/{index}");
            assert_eq!(generated.finish, FinishReason::MaxTokens);
            assert_eq!(generated.prompt_tokens, prompt.input.ids.len());
            assert!(generated.cache_bytes > 0 && generated.fallbacks.is_empty());
            checked += 1;
        }
    }
    assert_eq!(checked, 10);
}

#[test]
fn weights_and_activations_of_every_width_come_near() {
    for name in ["qwen3_vl", "llava"] {
        let case = case(name);
        for (stored, precision, tolerance) in [
            ("F32", Precision::F32, 2e-5),
            ("BF16", Precision::F32, 3e-2),
            ("F8_E4M3", Precision::F32, 3e-1),
            ("F16", Precision::Bf16, 5e-2),
            ("F16", Precision::F16, 1e-2),
        ] {
            let model = load(&case, stored).unwrap();
            let prompt = &prompts(&case, &model)[0];
            let logits = model.logits(&prompt.input, precision, &Call::new()).unwrap();
            let error = relative_error(&logits, &prompt.logits);
            assert!(error < tolerance, "{name}, {stored} in {precision}: relative error {error:.2e}");
            let options =
                GenerateOptions { max_tokens: 6, precision, stop_at_end: false, ..GenerateOptions::default() };
            let generated = model.generate(&prompt.input, &options, &mut |_| ()).unwrap();
            assert_eq!((generated.precision, generated.fallbacks.len()), (precision, 0));
            // Reading token by token comes to the same as reading all at once.
            let mut whole = prompt.input.clone();
            for (index, &id) in generated.ids.iter().enumerate() {
                let logits = model.logits(&whole, precision, &Call::new()).unwrap();
                let last = &logits[logits.len() - model.info().vocabulary..];
                let best = last.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let spread = last.iter().map(|logit| logit.abs()).fold(0.0, f32::max);
                let near = if precision == Precision::F32 { 1e-4 } else { 5e-2 };
                assert!(best - last[id as usize] <= near * spread, "{name}, {stored} in {precision}: token {index}");
                whole.ids.push(id);
            }
        }
    }
}

#[test]
fn chats_and_pictures_become_what_the_processor_makes_of_them() {
    let mut checked = 0;
    for name in ["qwen3_vl", "qwen3_vl_tied"] {
        let case = case(name);
        let model = load(&case, "F16").unwrap();
        for (index, prompt) in prompts(&case, &model).into_iter().enumerate() {
            if prompt.pictures.len() != prompt.input.patches.grids.len() {
                continue;
            }
            let question = Question { system: prompt.system, prompt: prompt.user.unwrap() };
            let ours = model.prompt(&question.messages(prompt.pictures.len()), &prompt.pictures).unwrap();
            assert_eq!(ours.ids, prompt.input.ids, "{name}/{index}");
            assert_eq!(ours.patches.grids, prompt.input.patches.grids, "{name}/{index}");
            assert_eq!(ours.patches.data.len(), prompt.input.patches.data.len());
            let pairs = ours.patches.data.iter().zip(&prompt.input.patches.data);
            let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 1e-5, "{name}/{index}: {apart}");
            checked += 1;
        }
    }
    assert_eq!(checked, 4);
}

#[test]
fn what_is_known_of_a_model() {
    let info = load(&case("qwen3_vl"), "F16").unwrap().info();
    assert_eq!((info.family, info.layers, info.vision_layers, info.channels), (VlmFamily::Qwen3Vl, 3, 4, 64));
    assert_eq!((info.vocabulary, info.context, info.has_tokenizer), (400, 600, true));
    let info = load(&case("llava"), "F16").unwrap().info();
    assert_eq!((info.family, info.layers, info.vision_layers), (VlmFamily::Llava, 3, 3));
    assert!(!info.has_tokenizer);
}
