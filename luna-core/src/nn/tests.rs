//! The CPU's kernels and the portable operations must say the same: each layer is run both ways on the CPU.

use super::{bands::BandSizes, linear::Affine, *};
use crate::{Call, Limits, Precision, Result, Runtime, checkpoint::Checkpoint};
use candle_core::{DType, Device};
use luna_kernels::AttentionMask;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

mod chain;

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
            for (upsample, residual_first) in [(false, false), (false, true), (spec.stride == 1, false)] {
                let call = ConvCall {
                    norm: Some(&norm),
                    activation: Activation::Silu,
                    upsample,
                    after: Activation::Relu,
                    residual: (!upsample).then_some(&residual),
                    residual_first,
                };
                let ours = conv.forward_with(&x, call, pass)?;
                assert_close(&ours, &portable::conv2d(&x, &weight, bias.as_ref(), spec, call, pass)?, 1e-5);
            }
            Ok(())
        });
    }
}

/// The tensors of a residual block without its shortcut.
fn block_tensors(inputs: usize, outputs: usize) -> Vec<(&'static str, Vec<usize>)> {
    vec![
        ("norm1.weight", vec![inputs]),
        ("norm1.bias", vec![inputs]),
        ("conv1.weight", vec![outputs, inputs, 3, 3]),
        ("conv1.bias", vec![outputs]),
        ("norm2.weight", vec![outputs]),
        ("norm2.bias", vec![outputs]),
        ("conv2.weight", vec![outputs, outputs, 3, 3]),
        ("conv2.bias", vec![outputs]),
    ]
}

/// No image is too small, and `band` is as many bytes.
fn bands_of(band: usize, spared: bool) -> BandSizes {
    BandSizes { doubled: 0, spared: if spared { 0 } else { usize::MAX }, band }
}

#[test]
fn blocks_in_bands_are_whole_blocks() {
    let runtime = Runtime::cpu().unwrap();
    let mut tensors = block_tensors(24, 8);
    let more: [(&str, &[usize]); 4] = [
        ("conv_shortcut.weight", &[8, 24, 1, 1]),
        ("conv_shortcut.bias", &[8]),
        ("up.weight", &[24, 24, 3, 3]),
        ("up.bias", &[24]),
    ];
    tensors.extend(more.map(|(name, shape)| (name, shape.to_vec())));
    let narrow = checkpoint(&tensors.iter().map(|(name, shape)| (*name, &shape[..])).collect::<Vec<_>>());
    let tensors = block_tensors(16, 16);
    let even = checkpoint(&tensors.iter().map(|(name, shape)| (*name, &shape[..])).collect::<Vec<_>>());
    let block = ResnetBlock::load(&weights(&even, &runtime), 16, 16, 4, 1e-6).unwrap();
    let doubled = ResnetBlock::load(&weights(&narrow, &runtime), 24, 8, 4, 1e-6).unwrap();
    let doubling = Conv2d::load(&weights(&narrow, &runtime).at("up"), ConvSpec::same(24, 24)).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for (h, w) in [(1, 1), (2, 9), (7, 5), (16, 3), (37, 12)] {
        let (x, small) = (random(&mut rng, &[1, h, w, 16]), random(&mut rng, &[1, h, w, 24]));
        in_pass(|pass| {
            let whole = block.forward_by(&BandSizes::WHOLE, x.copy()?, pass)?;
            let whole_doubled = doubled.forward_doubled_by(&BandSizes::WHOLE, &doubling, small.copy()?, pass)?;
            assert_eq!(whole_doubled.dims(), [1, 2 * h, 2 * w, 8]);
            for rows in [1, 2, 3, 5, 11, 100] {
                let in_bands = block.forward_by(&bands_of(rows * w * 16 * 4, true), x.copy()?, pass)?;
                assert_close(&in_bands, &whole, 1e-5);
                for spared in [false, true] {
                    let sizes = bands_of(rows * 2 * w * 24 * 4, spared);
                    let in_bands = doubled.forward_doubled_by(&sizes, &doubling, small.copy()?, pass)?;
                    assert_close(&in_bands, &whole_doubled, 1e-5);
                }
            }
            Ok(())
        });
    }
}

#[test]
fn blocks_in_bands_can_be_cancelled() {
    let runtime = Runtime::cpu().unwrap();
    let tensors = block_tensors(16, 16);
    let checkpoint = checkpoint(&tensors.iter().map(|(name, shape)| (*name, &shape[..])).collect::<Vec<_>>());
    let block = ResnetBlock::load(&weights(&checkpoint, &runtime), 16, 16, 4, 1e-6).unwrap();
    let call = Call::new();
    call.cancel_token().cancel();
    let x = random(&mut ChaCha8Rng::seed_from_u64(4), &[1, 40, 8, 16]);
    let pass = Pass::new(&runtime, &call, 0);
    let error = runtime.run(|| block.forward_by(&bands_of(4 * 8 * 16 * 4, true), x, &pass)).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Cancelled);
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

/// A low-rank difference with factors of its own.
struct Product {
    down: Vec<f32>,
    up: Vec<f32>,
    rank: usize,
    strength: f32,
}

impl LowRank for Product {
    fn rank(&self) -> usize {
        self.rank
    }

    fn down(&self) -> StoredTensor<'_> {
        StoredTensor::of_values(&self.down)
    }

    fn up(&self) -> StoredTensor<'_> {
        StoredTensor::of_values(&self.up)
    }

    fn strength(&self) -> f32 {
        self.strength
    }
}

impl Delta for Product {
    fn low_rank(&self) -> Option<&dyn LowRank> {
        Some(self)
    }

    fn reads_base(&self) -> bool {
        false
    }

    fn add_to(&self, sum: &mut [f32], _: &[f32], cx: &luna_kernels::Context) -> Result<()> {
        add_product(sum, &self.up, &self.down, self.rank, self.strength, cx);
        Ok(())
    }

    fn bytes(&self) -> u64 {
        0
    }
}

/// Low-rank differences of these ranks and strengths, and a bias, for the first layer of a model, whose weight is
/// `[outputs, inputs]`.
fn patches(
    frozen: &FrozenWeights,
    [outputs, inputs]: [usize; 2],
    products: &[(usize, f32)],
    rule: patch::BranchRule,
) -> Patches {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut values = |count: usize| (0..count).map(|_| rng.random_range(-0.3f32..0.3)).collect::<Vec<_>>();
    let mut deltas: Vec<std::sync::Arc<dyn Delta>> = Vec::new();
    for &(rank, strength) in products {
        let (down, up) = (values(rank * inputs), values(outputs * rank));
        deltas.push(std::sync::Arc::new(Product { down, up, rank, strength }));
    }
    let layer = LayerPatch { deltas, bias: Some(values(outputs)), ..LayerPatch::default() };
    Patches::new([(0, layer)].into(), frozen, blake3::hash(b"test")).with_rule(rule)
}

/// Runs `layer` with patches applied in every way: the results are the same, and not those without patches.
fn compare_rules(
    frozen: &FrozenWeights,
    sides: [usize; 2],
    layer: impl Fn(&Pass) -> Result<Tensor> + Sync,
    tolerance: f64,
) {
    let runtime = Runtime::new(crate::Device::Cpu, std::num::NonZeroUsize::new(2)).unwrap();
    let call = Call::new();
    let run = |patches: Option<&Patches>| {
        let pass = Pass::new(&runtime, &call, 0).with_patches(patches);
        runtime.run(|| layer(&pass)).unwrap()
    };
    let plain = run(None);
    // One file's factors are used as they are stored, those of several side by side.
    for products in [&[(3, -0.6)][..], &[(3, 1.7), (5, 0.8)]] {
        let [branch, build] =
            [patch::BranchRule::Branch, patch::BranchRule::Build].map(|rule| patches(frozen, sides, products, rule));
        let merged = runtime.run(|| branch.merged(frozen, &Pass::new(&runtime, &call, 1), ())).unwrap();
        let built = run(Some(&build));
        assert_close(&run(Some(&branch)), &built, tolerance);
        assert_close(&run(Some(&merged)), &built, tolerance);
        let apart = (&built - &plain).unwrap().sqr().unwrap().mean_all().unwrap();
        assert!(apart.to_dtype(DType::F32).unwrap().to_scalar::<f32>().unwrap() > 1e-3, "the patches change nothing");
    }
}

/// A block for one token of each sequence gives the rows of the whole block.
#[test]
fn a_block_for_some_tokens_is_the_whole_block_there() {
    let runtime = Runtime::cpu().unwrap();
    let square = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"];
    let layers = square.map(|name| (name, 64, 64)).into_iter().chain([("mlp.fc1", 96, 64), ("mlp.fc2", 64, 96)]);
    let layers: Vec<_> = layers
        .flat_map(|(name, n, k)| [(format!("{name}.weight"), vec![n, k]), (format!("{name}.bias"), vec![n])])
        .chain(
            ["layer_norm1", "layer_norm2"]
                .iter()
                .flat_map(|norm| ["weight", "bias"].map(|part| (format!("{norm}.{part}"), vec![64]))),
        )
        .collect();
    let checkpoint = checkpoint(&layers.iter().map(|(name, shape)| (&**name, &**shape)).collect::<Vec<_>>());
    let spec = EncoderBlockSpec { width: 64, heads: 2, eps: 1e-5, activation: Activation::Gelu };
    let block = EncoderBlock::load(&weights(&checkpoint, &runtime), spec).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::BF16, 1e-2)] {
        for places in [&[8][..], &[0, 4], &[6, 8, 0]] {
            let x = random(&mut rng, &[places.len(), 9, 64]).to_dtype(dtype).unwrap();
            in_pass(|pass| {
                let call = EncoderBlockCall { mask: AttentionMask::Causal, rotary: None };
                let whole = tokens_at(&block.forward(x.copy()?, call, pass)?, places)?;
                assert_close(&block.forward_tokens(x.copy()?, places, pass)?, &whole, tolerance);
                Ok(())
            });
        }
    }
}

#[test]
fn branches_built_and_merged_weights_agree() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let runtime = Runtime::cpu().unwrap();
    let checkpoint = checkpoint(&[
        ("l.weight", &[20, 36]),
        ("l.bias", &[20]),
        ("c.weight", &[12, 32, 3, 3]),
        ("c.bias", &[12]),
        ("n.weight", &[32]),
        ("n.bias", &[32]),
        ("p.weight", &[12, 32, 1, 1]),
        ("p.bias", &[12]),
    ]);
    let load = || weights(&checkpoint, &runtime);
    for dtype in [DType::F32, DType::BF16] {
        let tolerance = if dtype == DType::F32 { 1e-5 } else { 2e-2 };
        let mut random = |shape: &[usize]| random(&mut rng, shape).to_dtype(dtype).unwrap();
        let place = load();
        let linear = Linear::load(&place.at("l"), 36, 20).unwrap();
        let (x, residual) = (random(&[3, 5, 36]), random(&[3, 5, 20]));
        let frozen = place.into_frozen();
        for activation in [Activation::None, Activation::Gelu] {
            for residual in [None, Some(&residual)] {
                let call = LinearCall { activation, residual };
                compare_rules(&frozen, [20, 36], |pass| linear.forward_with(&x, call, pass), tolerance);
            }
        }
        for (stride, upsample) in [(1, false), (2, false), (1, true)] {
            let place = load();
            let spec = ConvSpec { stride, ..ConvSpec::same(32, 12) };
            let conv = Conv2d::load(&place.at("c"), spec).unwrap();
            let norm = GroupNorm::load(&place.at("n"), 32, 8, 1e-5).unwrap();
            let x = random(&[2, 7, 9, 32]);
            let size = if upsample { [14, 18] } else { [7usize.div_ceil(stride), 9usize.div_ceil(stride)] };
            let residual = random(&[2, size[0], size[1], 12]);
            let call = ConvCall {
                norm: Some(&norm),
                activation: Activation::Silu,
                upsample,
                residual: Some(&residual),
                ..ConvCall::default()
            };
            let frozen = place.into_frozen();
            compare_rules(&frozen, [12, 288], |pass| conv.forward_with(&x, call, pass), tolerance);
        }
        let place = load();
        let pointwise = Conv2d::load(&place.at("p"), ConvSpec::pointwise(32, 12)).unwrap();
        let x = random(&[2, 4, 3, 32]);
        let frozen = place.into_frozen();
        compare_rules(&frozen, [12, 32], |pass| pointwise.forward_consuming(x.copy()?, pass), tolerance);
    }
}
