//! The CPU's kernels and the portable operations must say the same: each layer is run both ways on the CPU.

use super::{linear::Affine, *};
use crate::{Call, Limits, Precision, Result, Runtime, checkpoint::Checkpoint};
use candle_core::{DType, Device};
use luna_kernels::AttentionMask;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn random(random: &mut ChaCha8Rng, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// A checkpoint with random tensors of these names and shapes.
fn checkpoint(tensors: &[(&str, &[usize])]) -> Checkpoint {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, shape)| {
            let count = shape.iter().product();
            let values = (0..count).flat_map(|_| rng.random_range(-0.5f32..0.5).to_le_bytes()).collect();
            (name.to_string(), shape.to_vec(), values)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, data)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    Checkpoint::from_bytes("test", file, &Limits::default()).unwrap()
}

fn weights<'a>(checkpoint: &'a Checkpoint, runtime: &'a Runtime) -> Weights<'a> {
    Weights::new(checkpoint, runtime, Precision::F32, |name| name.to_owned())
}

fn stored(checkpoint: &Checkpoint, name: &str) -> Tensor {
    let view = checkpoint.tensor(name).unwrap();
    let values: Vec<f32> = view.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    Tensor::from_vec(values, view.shape, &Device::Cpu).unwrap()
}

fn assert_close(ours: &Tensor, reference: &Tensor, tolerance: f64) {
    assert_eq!(ours.dims(), reference.dims());
    let wide = |x: &Tensor| x.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
    let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
    let difference = norm(&(wide(ours) - wide(reference)).unwrap()) / norm(&wide(reference));
    assert!(difference < tolerance, "relative difference {difference:.2e}, allowed {tolerance:.0e}");
}

/// Runs `test` with a pass on two threads.
fn in_pass(test: impl FnOnce(&Pass) -> Result<()> + Send) {
    let runtime = Runtime::new(crate::Device::Cpu, std::num::NonZeroUsize::new(2)).unwrap();
    let call = Call::new();
    let pass = Pass::new(&runtime, &call, 0);
    runtime.run(|| test(&pass)).unwrap();
}

#[test]
fn convolutions_agree() {
    let runtime = Runtime::cpu().unwrap();
    let checkpoint = checkpoint(&[
        ("a.weight", &[6, 8, 3, 3]),
        ("a.bias", &[6]),
        ("halving.weight", &[8, 8, 3, 3]),
        ("point.weight", &[5, 8, 1, 1]),
        ("norm.weight", &[8]),
        ("norm.bias", &[8]),
    ]);
    let weights = weights(&checkpoint, &runtime);
    let norm = GroupNorm::load(&weights.at("norm"), 8, 4, 1e-6).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (name, spec, bias) in [
        ("a", ConvSpec::same(8, 6), true),
        ("halving", ConvSpec::halving(8), false),
        ("point", ConvSpec::pointwise(8, 5), false),
    ] {
        let conv = Conv2d::load(&weights.at(name), spec).unwrap();
        let x = random(&mut rng, &[2, 7, 10, 8]);
        let bias = bias.then(|| stored(&checkpoint, &format!("{name}.bias")));
        let weight = stored(&checkpoint, &format!("{name}.weight"));
        in_pass(|pass| {
            let plain = conv.forward(&x, pass)?;
            let reference = portable::conv2d(&x, &weight, bias.as_ref(), spec, ConvCall::default(), pass)?;
            assert_close(&plain, &reference, 1e-5);
            if spec.kernel == 1 {
                assert_close(&conv.forward_consuming(x.copy()?, pass)?, &reference, 1e-5);
                return Ok(());
            }
            let residual = plain.copy()?;
            for upsample in [false, spec.stride == 1] {
                let call = ConvCall {
                    norm: Some(&norm),
                    activation: Activation::Silu,
                    upsample,
                    after: Activation::Relu,
                    residual: (!upsample).then_some(&residual),
                };
                let ours = conv.forward_with(&x, call, pass)?;
                assert_close(&ours, &portable::conv2d(&x, &weight, bias.as_ref(), spec, call, pass)?, 1e-5);
            }
            Ok(())
        });
    }
}

#[test]
fn norms_and_activations_agree() {
    let runtime = Runtime::cpu().unwrap();
    let checkpoint = checkpoint(&[("weight", &[12]), ("bias", &[12])]);
    let weights = weights(&checkpoint, &runtime);
    let x = random(&mut ChaCha8Rng::seed_from_u64(2), &[3, 5, 4, 12]);
    let group = GroupNorm::load(&weights, 12, 3, 1e-5).unwrap();
    let rows = [RowNorm::layer_norm(&weights, 12, 1e-5).unwrap(), RowNorm::rms_norm(&weights, 12, 1e-6).unwrap()];
    in_pass(|pass| {
        assert_close(&group.forward(&x, pass)?, &portable::group_norm(&x, &group, pass)?, 1e-5);
        for norm in &rows {
            assert_close(&norm.forward(&x, pass)?, &portable::row_norm(&x, norm, pass)?, 1e-5);
        }
        use Activation::{Gelu, GeluTanh, None, QuickGelu, Relu, Silu};
        for activation in [None, Silu, Gelu, GeluTanh, QuickGelu, Relu] {
            let reference = portable::activate(&x, activation)?;
            assert_close(&activate(x.copy()?, activation, pass)?, &reference, 1e-5);
        }
        Ok(())
    });
}

#[test]
fn linear_layers_agree_in_every_precision() {
    let runtime = Runtime::cpu().unwrap();
    let checkpoint = checkpoint(&[("weight", &[9, 16]), ("bias", &[9])]);
    let layer = Linear::load(&weights(&checkpoint, &runtime), 16, 9).unwrap();
    let (weight, bias) = (stored(&checkpoint, "weight"), stored(&checkpoint, "bias"));
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (x, residual) = (random(&mut rng, &[2, 5, 16]), random(&mut rng, &[2, 5, 9]));
    in_pass(|pass| {
        let call = LinearCall { activation: Activation::QuickGelu, residual: Some(&residual) };
        let reference = portable::linear(&x, &weight, Affine { scale: 1.0, bias: Some(&bias) }, call)?;
        for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 2e-2), (Precision::F16, 2e-3)] {
            let residual = residual.to_dtype(precision.dtype())?;
            let call = LinearCall { residual: Some(&residual), ..call };
            let ours = layer.forward_with(&x.to_dtype(precision.dtype())?, call, pass)?;
            assert_eq!(ours.dtype(), precision.dtype());
            assert_close(&ours, &reference, tolerance);
        }
        Ok(())
    });
}

#[test]
fn attention_agrees_with_every_mask() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let (q, k, v) = (random(&mut rng, &[2, 5, 24]), random(&mut rng, &[2, 7, 12]), random(&mut rng, &[2, 7, 12]));
    let summands: Vec<f32> = (0..2 * 4 * 5 * 7).map(|_| rng.random_range(-2.0..2.0)).collect();
    in_pass(|pass| {
        for mask in [
            AttentionMask::None,
            AttentionMask::Causal,
            AttentionMask::KeyLengths(&[7, 3]),
            AttentionMask::Additive { data: &summands, batch_stride: 140, head_stride: 35 },
            AttentionMask::Additive { data: &summands, batch_stride: 0, head_stride: 35 },
        ] {
            let call = AttentionCall { kv_heads: 2, mask, ..AttentionCall::heads(4) };
            assert_close(&attention(&q, &k, &v, call, pass)?, &portable::attention(&q, &k, &v, call, pass)?, 1e-5);
        }
        Ok(())
    });
}

#[test]
fn embeddings_give_rows_and_refuse_ids_past_the_table() {
    let runtime = Runtime::cpu().unwrap();
    let checkpoint = checkpoint(&[("weight", &[6, 4])]);
    let table = Embedding::load(&weights(&checkpoint, &runtime)).unwrap();
    let weight = stored(&checkpoint, "weight");
    in_pass(|pass| {
        let rows = table.forward(&[5, 0, 5], Precision::F32, pass)?;
        let reference = weight.index_select(&Tensor::new(&[5u32, 0, 5], &Device::Cpu)?, 0)?;
        assert_close(&rows, &reference, 1e-12);
        let error = table.forward(&[6], Precision::F32, pass).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
        Ok(())
    });
}

#[test]
fn the_digest_tells_models_apart_and_stays() {
    let runtime = Runtime::cpu().unwrap();
    let checkpoint = checkpoint(&[("a.weight", &[4, 8]), ("b.weight", &[4, 8])]);
    let digest = |name: &str| {
        let weights = weights(&checkpoint, &runtime);
        Linear::load(&weights.at(name), 8, 4).unwrap();
        let frozen = weights.into_frozen();
        assert!(frozen.bytes() >= 128);
        [frozen.digest().unwrap(), frozen.digest().unwrap()]
    };
    let ([a, again], [b, _]) = (digest("a"), digest("b"));
    assert_eq!(a, again);
    assert_ne!(a, b);
}

#[test]
fn weights_of_a_wrong_shape_or_type_are_refused_by_name() {
    let runtime = Runtime::cpu().unwrap();
    let checkpoint = checkpoint(&[("a.weight", &[4, 8])]);
    let weights = weights(&checkpoint, &runtime);
    let error = Linear::load(&weights.at("a"), 4, 8).map(drop).unwrap_err();
    assert!(error.to_string().contains("`a.weight`") && error.to_string().contains("[4, 8]"), "{error}");
    let error = Linear::load(&weights.at("b"), 4, 8).map(drop).unwrap_err();
    assert!(error.to_string().contains("`b.weight` is missing"), "{error}");
}

#[test]
fn a_cancelled_pass_stops_at_the_next_layer() {
    let runtime = Runtime::cpu().unwrap();
    let checkpoint = checkpoint(&[("weight", &[4, 8])]);
    let layer = Linear::load(&weights(&checkpoint, &runtime), 8, 4).unwrap();
    let token = crate::CancelToken::new();
    let call = Call::new().cancelled_by(&token);
    let pass = Pass::new(&runtime, &call, 1);
    let x = random(&mut ChaCha8Rng::seed_from_u64(5), &[1, 8]);
    assert!(layer.forward(&x, &pass).is_ok());
    token.cancel();
    assert_eq!(layer.forward(&x, &pass).unwrap_err().kind(), crate::ErrorKind::Cancelled);
}
