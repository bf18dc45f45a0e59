//! Nothing that is done with LoRAs changes a model, and nothing of it stays behind.

use luna_core::{
    Call, CancelToken, Limits,
    lora::{ApplyMode, LoraFile, LoraStack, MergedCopies, ResolveOptions},
    memory,
    text::{Conditioner, EncoderKind, TextModel, TextOptions, TokenIds},
};
use luna_tests::text::{draw, file, model_as, qwen3};
use safetensors::Dtype;
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
};

/// A file of each kind for layers of the Qwen3 of the fixtures.
fn files() -> Vec<Arc<LoraFile>> {
    let q = "text_encoder.layers.0.self_attn.q_proj"; // [512, 96]
    let down = "lora_te_layers_2_mlp_down_proj"; // [96, 144]
    let factor = |name: String, shape: &[usize]| {
        let values = draw(&name, shape.iter().product(), 0.0, 0.125);
        (name, shape.to_vec(), values)
    };
    let parts: [&[(&str, &str, &[usize])]; 9] = [
        &[(q, "lora_A.weight", &[4, 96]), (q, "lora_B.weight", &[512, 4])],
        &[(down, "lora_down.weight", &[2, 144]), (down, "lora_up.weight", &[96, 2]), (down, "alpha", &[])],
        &[
            (q, "hada_w1_a", &[512, 2]),
            (q, "hada_w1_b", &[2, 96]),
            (q, "hada_w2_a", &[512, 3]),
            (q, "hada_w2_b", &[3, 96]),
        ],
        &[(down, "lokr_w1", &[8, 12]), (down, "lokr_w2_a", &[12, 2]), (down, "lokr_w2_b", &[2, 12])],
        &[(q, "lora_A.weight", &[1, 96]), (q, "lora_B.weight", &[512, 1]), (q, "lora_magnitude_vector", &[512])],
        &[(down, "diff", &[96, 144]), (down, "diff_b", &[96])],
        &[(q, "oft_blocks", &[64, 8, 8])],
        &[(down, "oft_blocks", &[2, 24, 4, 4]), (down, "rescale", &[96, 1])],
        &[("lora_te_layers_1_input_layernorm", "w_norm", &[96])],
    ];
    let read = |parts: &&[(&str, &str, &[usize])]| {
        let tensors: Vec<_> = parts.iter().map(|(key, part, shape)| factor(format!("{key}.{part}"), shape)).collect();
        let bytes = file(&[("", &tensors)], |_| Dtype::F32);
        Arc::new(LoraFile::from_bytes("drawn", bytes, &Limits::default()).unwrap())
    };
    parts.iter().map(read).collect()
}

fn model() -> TextModel {
    model_as(&qwen3(), Some(EncoderKind::Qwen3))
}

/// What two tokens come to.
fn encode(model: &TextModel, options: &TextOptions) -> luna_core::Result<Vec<f32>> {
    let ids = [TokenIds { ids: vec![17, 42], mask: None }];
    let encoded = Conditioner::new(&[model])?.encode_ids(&ids, options)?;
    Ok(encoded.first().data().to_vec())
}

fn options(stack: &LoraStack, model: &TextModel) -> TextOptions {
    let resolved = stack.resolve_text(model, &ResolveOptions { strict: true, ..Default::default() }).unwrap();
    TextOptions { patches: resolved.patches, ..TextOptions::default() }
}

/// A stack of up to four files at strengths of up to ±1.
fn random_stack(files: &[Arc<LoraFile>], seed: usize) -> LoraStack {
    let numbers = draw(&format!("stack {seed}"), 9, 0.5, 0.5);
    let count = 1 + (numbers[8] * 4.0) as usize % 4;
    (0..count).fold(LoraStack::new(), |stack, entry| {
        let file = &files[(numbers[2 * entry] * files.len() as f32) as usize % files.len()];
        stack.with(file.clone(), 0.0, f64::from(2.0 * numbers[2 * entry + 1] - 1.0)).unwrap()
    })
}

#[test]
fn ten_thousand_stacks_leave_the_model_as_it_was() {
    let (model, files, copies) = (model(), files(), MergedCopies::new(1 << 24));
    let digest = model.weights_digest().unwrap();
    let base = encode(&model, &TextOptions::default()).unwrap();
    let (mut done, mut errors, mut panics) = (0, 0, 0);
    for seed in 0..10_000 {
        let mut stack = random_stack(&files, seed);
        let mut call = Call::new();
        match seed % 16 {
            // Overflows.
            1 => stack = stack.with(files[0].clone(), 0.0, 1e30).unwrap(),
            2 => {
                let token = CancelToken::new();
                call = call.cancelled_by(&token).on_progress(move |_| token.cancel());
            }
            3 => {
                call = call.on_progress(|progress| {
                    if progress.done == 2 {
                        resume_unwind(Box::new("in the middle of a layer"));
                    }
                });
            }
            _ => {}
        }
        let mut options = TextOptions { call, ..options(&stack, &model) };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            if seed % 5 == 0 {
                let prepared = copies.prepare_text(&model, &options.patches, ApplyMode::Merged, &options.call)?;
                options.patches = prepared.into_iter().map(|(kind, prepared)| (kind, prepared.patches)).collect();
            }
            encode(&model, &options)
        }));
        match outcome {
            Ok(Ok(values)) => {
                assert!(values.iter().all(|value| value.is_finite()));
                done += 1;
            }
            Ok(Err(_)) => errors += 1,
            Err(_) => panics += 1,
        }
    }
    assert!(done > 8000 && errors > 500 && panics > 500, "{done} done, {errors} errors, {panics} panics");
    assert_eq!(copies.copies(), 0);
    assert_eq!(encode(&model, &TextOptions::default()).unwrap(), base);
    assert_eq!(model.weights_digest().unwrap(), digest);
}

#[test]
fn stacks_in_eight_threads_give_what_each_gives_alone() {
    let (model, files) = (model(), files());
    let stacks: Vec<_> = (0..6).map(|seed| options(&random_stack(&files, seed), &model)).collect();
    let alone: Vec<_> = stacks.iter().map(|options| encode(&model, options).unwrap()).collect();
    assert_ne!(alone[0], alone[1]);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (model, stacks, alone) = (&model, &stacks, &alone);
            scope.spawn(move || {
                for round in 0..50 {
                    let which = (thread + round) % stacks.len();
                    assert_eq!(encode(model, &stacks[which]).unwrap(), alone[which]);
                }
            });
        }
    });
}

#[test]
fn a_thousand_forwards_take_no_more_memory() {
    let (model, files) = (model(), files());
    let run = |seeds: std::ops::Range<usize>| {
        for seed in seeds {
            encode(&model, &options(&random_stack(&files, seed), &model)).unwrap();
        }
        memory::resident().expect("known on every tested system")
    };
    let before = run(0..200);
    let after = run(200..1200);
    assert!(after < before + (8 << 20), "{before} bytes before, {after} after");
}
