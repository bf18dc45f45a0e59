//! The same weights in every type a file may store them in.

use luna_core::{
    Conditioning, Limits, Precision,
    checkpoint::Checkpoint,
    text::{Conditioner, Fallback, TextLoadOptions, TextModel, TextOptions, TokenIds},
};
use luna_tests::text::{CLIP_L, Drawn, RUNTIME, assert_close, clip, file, t5};
use safetensors::Dtype;

fn load(drawn: &[Drawn], dtype: impl Fn(&str) -> Dtype) -> TextModel {
    let checkpoint = Checkpoint::from_bytes("drawn", file(&[("", drawn)], dtype), &Limits::default()).unwrap();
    TextModel::load(&checkpoint, &RUNTIME, &TextLoadOptions::default()).unwrap()
}

fn encode(model: &TextModel) -> Conditioning {
    let ids = (0..40).map(|i| i * 3).collect();
    let conditioner = Conditioner::new(&[model]).unwrap();
    conditioner.encode_ids(&[TokenIds { ids, mask: None }], &TextOptions::default()).unwrap().first().clone()
}

/// The nearest number of at most 3 binary digits after the first, between 1/64 and 240.
fn coarse(value: f32) -> f32 {
    if value.abs() < 1.0 / 64.0 {
        return 0.0;
    }
    let unit = value.abs().log2().floor().exp2() / 8.0;
    (value / unit).trunc() * unit
}

fn coarsened(mut drawn: Vec<Drawn>) -> Vec<Drawn> {
    drawn.iter_mut().flat_map(|(_, _, values)| values).for_each(|value| *value = coarse(*value));
    drawn
}

#[test]
fn stored_types_do_not_change_what_a_number_means() {
    for drawn in [coarsened(clip(&CLIP_L)), coarsened(t5())] {
        let wide = load(&drawn, |_| Dtype::F32);
        let expected = encode(&wide);
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F8_E4M3] {
            let narrow = load(&drawn, |_| dtype);
            assert_close(&format!("{dtype:?}"), encode(&narrow).data(), expected.data(), 1e-6);
            // Not doubled in memory: matrices are held as stored, only vectors are widened.
            let share = 4 / (dtype.bitsize() / 8) as u64;
            assert!(narrow.weight_bytes() * share < wide.weight_bytes() * 11 / 10, "{dtype:?}");
        }
    }
}

#[test]
fn scaled_fp8_counts_its_scales() {
    let mut drawn = coarsened(t5());
    let matrix = |name: &str, shape: &[usize]| {
        name.contains(".layer.") && shape.len() == 2 && !name.contains("relative_attention_bias")
    };
    let mut scales = Vec::new();
    for (name, shape, values) in &mut drawn {
        if matrix(name, shape) {
            scales.push((name.replace(".weight", ".scale_weight"), vec![], vec![0.75]));
            values.iter_mut().for_each(|value| *value *= 0.75);
        }
    }
    let expected = encode(&load(&drawn, |_| Dtype::F32));
    for (name, shape, values) in &mut drawn {
        if matrix(name, shape) {
            values.iter_mut().for_each(|value| *value /= 0.75);
        }
    }
    let matrices: Vec<String> = scales.iter().map(|(name, ..)| name.replace("scale_weight", "weight")).collect();
    drawn.extend(scales);
    let narrow = |name: &str| if matrices.iter().any(|known| known == name) { Dtype::F8_E4M3 } else { Dtype::F32 };
    assert_close("scaled", encode(&load(&drawn, narrow)).data(), expected.data(), 1e-5);
}

#[test]
fn what_half_precision_cannot_hold_is_done_again_and_told() {
    let mut drawn = clip(&CLIP_L);
    let (_, _, values) = drawn.iter_mut().find(|(name, ..)| name.ends_with("layers.1.mlp.fc2.weight")).unwrap();
    values.iter_mut().for_each(|value| *value *= 1e6);
    let model = load(&drawn, |_| Dtype::F32);
    let conditioner = Conditioner::new(&[&model]).unwrap();
    let with = |precision| {
        conditioner.encode(&["a cat".into()], &TextOptions { precision, ..TextOptions::default() }).unwrap()
    };
    let (wide, half) = (with(Precision::F32), with(Precision::F16));
    assert_eq!(half.first(), wide.first());
    assert!(wide.fallbacks.is_empty());
    assert!(matches!(half.fallbacks[..], [Fallback::Widened { from: Precision::F16, non_finite: 1.., .. }]));
}
