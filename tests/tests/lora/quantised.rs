//! LoRAs over GGUF files, whose weights stay quantised in memory.

use luna_core::{
    ArrayView, Call, Limits,
    checkpoint::{Checkpoint, ElementType},
    diffusion::{Denoiser, ForwardInput, ForwardOptions},
    lora::{ApplyMode, MergedCopies, ResolveOptions},
    text::{Conditioner, EncoderKind, TextModel, TextOptions, TokenIds},
};
use luna_tests::{
    gguf_file::{GgufCase, Value},
    lora::{more, runtime, stack},
    vae::relative_error,
};

fn strict() -> ResolveOptions {
    ResolveOptions { strict: true, ..ResolveOptions::default() }
}

fn checkpoint(case: &GgufCase, metadata: &[(&str, Value)]) -> Checkpoint {
    let checkpoint = Checkpoint::from_bytes("model.gguf", case.model(metadata), &Limits::default()).unwrap();
    assert!(checkpoint.recognise().components[0].elements.contains_key(&ElementType::Q4K));
    checkpoint
}

/// LoRA on fused and single layers, LoKr on a fused one, DoRA, in every mode.
#[test]
fn a_quantised_denoiser_takes_loras() {
    let case = GgufCase::open("flux");
    let denoiser = Denoiser::load(&checkpoint(&case, &[]), runtime(), &Default::default()).unwrap();
    let digest = denoiser.digest().unwrap();
    let resolved = stack("gguf_flux", &[("kohya", 0.8)]).resolve(&denoiser, &strict()).unwrap();
    let [x, timesteps, context, y, guidance] =
        ["x", "timesteps", "context", "y", "guidance"].map(|name| case.get(name));
    let input = ForwardInput {
        y: Some(ArrayView::new(&y.0, &y.1).unwrap()),
        guidance: Some(&guidance.1),
        ..ForwardInput::new(
            ArrayView::new(&x.0, &x.1).unwrap(),
            &timesteps.1,
            ArrayView::new(&context.0, &context.1).unwrap(),
        )
    };
    let copies = MergedCopies::new(1 << 30);
    for mode in [ApplyMode::Functional, ApplyMode::Merged] {
        let prepared = copies.prepare(&denoiser, &resolved.patches, mode, &Call::new()).unwrap();
        let options = ForwardOptions { patches: Some(prepared.patches), ..ForwardOptions::default() };
        let predicted = denoiser.forward(&input, &options).unwrap();
        let error = relative_error(predicted.prediction.data(), &more("gguf_flux/kohya@0.8"));
        assert!(error < 2e-4, "{mode:?}: relative error {error:.2e}");
        let merged = predicted.report.patched.counts()[2];
        assert_eq!(merged > 0, mode == ApplyMode::Merged);
    }
    let base = denoiser.forward(&input, &ForwardOptions::default()).unwrap();
    assert!(relative_error(base.prediction.data(), &case.get("out").1) < 2e-4);
    assert_eq!(denoiser.digest().unwrap(), digest);
}

#[test]
fn a_quantised_language_model_takes_loras() {
    let case = GgufCase::open("qwen3");
    let metadata = [
        ("qwen3.rope.freq_base", Value::F32(500_000.0)),
        ("qwen3.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("qwen3.block_count", Value::U32(3)),
    ];
    let model = TextModel::load(&checkpoint(&case, &metadata), runtime(), &Default::default()).unwrap();
    let resolved = stack("gguf_qwen3", &[("peft", 1.0)]).resolve_text(&model, &strict()).unwrap();
    assert_eq!(resolved.coverage.applied(), 9);
    let options = TextOptions { patches: resolved.patches, ..TextOptions::default() };
    let tokens = TokenIds { ids: case.integers("ids"), mask: None };
    let encoded = Conditioner::new(&[&model]).unwrap().encode_ids(&[tokens], &options).unwrap();
    let error = relative_error(encoded.first().data(), &more("gguf_qwen3/peft@1.0"));
    assert!(error < 2e-4, "relative error {error:.2e}");
    // The last layer is not run for this encoding.
    let patched = &encoded.patched[&EncoderKind::Qwen3];
    assert_eq!(patched.layers.len(), 6);
    assert_eq!(patched.counts(), [6, 0, 0, 0], "{patched}");
}
