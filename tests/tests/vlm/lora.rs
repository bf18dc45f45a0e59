//! LoRAs on vision-language models, against PEFT on transformers' own.

use crate::fixtures::{QWEN, case, load, prompts};
use luna_core::{
    Call, ErrorKind,
    lora::{ApplyMode, LoraStack, MergedCopies, ResolveOptions, Resolved},
    vlm::{GenerateOptions, VlmModel},
};
use luna_tests::{
    lora::{more, more_ids, stack},
    vae::relative_error,
};

fn resolve(stack: &LoraStack, model: &VlmModel) -> Resolved {
    stack.resolve_vlm(model, &ResolveOptions { strict: true, ..ResolveOptions::default() }).unwrap()
}

#[test]
fn logits_and_tokens_are_those_of_peft() {
    for (name, file, adapters, targets) in [("qwen3_vl", "peft", 14, 16), ("llava", "peft_dora", 9, 9)] {
        let case = case(name);
        let model = load(&case, "F16").unwrap();
        let digest = model.weights_digest().unwrap();
        let resolved = resolve(&stack(name, &[(file, 1.0)]), &model);
        let applied = &resolved.coverage.files[0].applied;
        assert_eq!(applied.len(), adapters, "{name}");
        // Queries, keys and values of the vision part are one matrix in the file.
        assert_eq!(applied.iter().map(|entry| entry.targets.len()).sum::<usize>(), targets, "{name}");
        let prompt = &prompts(&case, &model)[0];
        let copies = MergedCopies::new(1 << 30);
        for mode in [ApplyMode::Functional, ApplyMode::Merged] {
            let prepared = copies.prepare_vlm(&model, &resolved.patches, mode, &Call::new()).unwrap();
            let options = GenerateOptions {
                max_tokens: prompt.generated.len(),
                stop_at_end: false,
                lora: Some(prepared.patches),
                ..GenerateOptions::default()
            };
            let logits = model.logits_with(&prompt.input, &options).unwrap();
            let error = relative_error(&logits, &more(&format!("{name}/{file}@1.0")));
            assert!(error < 2e-4, "{name} {mode:?}: relative error {error:.2e}");
            let generated = model.generate(&prompt.input, &options, &mut |_| ()).unwrap();
            assert_eq!(generated.ids, more_ids(&format!("{name}/{file}@1.0/generated")), "{name} {mode:?}");
            assert_eq!(generated.patched.layers.len(), targets, "{name} {mode:?}");
            assert_eq!(generated.patched.counts()[2] == targets, mode == ApplyMode::Merged);
        }
        // The next generation is the model's own again.
        let plain = crate::fixtures::generate(&model, &prompt.input, prompt.generated.len());
        assert_eq!((plain.ids, plain.patched.layers.len()), (prompt.generated.clone(), 0));
        assert_eq!(model.weights_digest().unwrap(), digest);
    }
}

/// Files of before transformers 4.52 call the layers otherwise.
#[test]
fn names_of_either_age_fit() {
    let (new, old) = (load(&case("llava"), "F16").unwrap(), load(&case("llava_before_5"), "F16").unwrap());
    let file = stack("llava", &[("peft_dora", 1.0)]);
    assert_eq!(resolve(&file, &old).coverage.files[0].applied, resolve(&file, &new).coverage.files[0].applied);
}

#[test]
fn loras_for_others_are_refused() {
    let wrong = stack("llava", &[("peft_dora", 1.0)]).resolve_vlm(&QWEN, &ResolveOptions::default()).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::InvalidInput);
    assert!(wrong.to_string().contains("qwen3_vl") && wrong.to_string().contains("of wrong shape"), "{wrong}");
    let wrong = stack("sd15_ldm", &[("kohya", 1.0)]).resolve_vlm(&QWEN, &ResolveOptions::default()).unwrap_err();
    assert!(wrong.to_string().contains("for other components"), "{wrong}");
    let other = load(&case("llava"), "F16").unwrap();
    let resolved = resolve(&stack("llava", &[("peft_dora", 1.0)]), &other);
    let options = GenerateOptions { lora: Some(resolved.patches), ..GenerateOptions::default() };
    let input = &prompts(&case("qwen3_vl"), &QWEN)[1].input;
    let error = QWEN.generate(input, &options, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("another model"), "{error}");
}
