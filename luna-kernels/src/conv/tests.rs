use super::conv2d_by;
use super::cost::Algorithm;
use super::narrow::Narrow;
use super::winograd::Winograd;
use crate::reference::{ACTIVATIONS, Rng, Stored, WEIGHT_TYPES, conv, finish, relative, tolerance};
use crate::*;
use half::{bf16, f16};
use proptest::prelude::*;

/// All algorithms that exist for a convolution.
fn algorithms<T: Scalar>(x: &ConvInput<'_, T>, shape: ConvShape, dtype: WeightType) -> Vec<Algorithm> {
    let mut all = vec![Algorithm::Implicit];
    if Winograd::applies(x, shape, dtype) {
        all.push(Algorithm::Winograd);
        all.extend(Winograd::has_large(x).then_some(Algorithm::LargeWinograd));
    }
    all.extend(Narrow::<T>::applies(shape).then_some(Algorithm::Narrow));
    all
}

/// What the worst output in f32 may be off, of what outputs are on the average. Random weights of a few bits have outliers that those of a
/// model have not; usual errors are in `algorithms_keep_their_error_bounds_on_realistic_activations`.
fn worst_error(algorithm: Algorithm) -> f64 {
    if algorithm == Algorithm::LargeWinograd { 2.5e-4 } else { 5e-5 }
}

/// A random convolution drawn from a seed, checked on every instruction set.
fn check<T: Scalar>(seed: u64, shape: ConvShape, size: [usize; 3], upsample: bool) {
    let rng = &mut Rng::new(seed);
    let [b, h, w] = size;
    let ConvShape { cin, cout, kh, kw, .. } = shape;
    let weights = Stored::random(rng, rng_type(seed), cout * cin * kh * kw);
    let data: Vec<T> = rng.scalars(b * h * w * cin);
    let norm = ChannelAffine { scale: rng.values(b * cin), shift: rng.values(b * cin) };
    let activation = rng.pick(&ACTIVATIONS);
    let x = ConvInput { data: &data, b, h, w, norm: rng.chance().then_some(&norm), activation, upsample, rows: None };
    let packed = PackedConv::pack(weights.view(), shape);
    let mut back = vec![0.0; weights.values.len()];
    packed.unpack_f32(&mut back);
    assert_eq!(back, weights.values);

    let algorithms = algorithms(&x, shape, weights.dtype);
    let mut want = conv(&x, &weights.values, shape);
    let bias = rng.values(cout);
    let (residual, before): (Vec<T>, Vec<T>) = (rng.scalars(want.len()), rng.scalars(want.len()));
    let e = Epilogue {
        bias: rng.chance().then_some(&bias),
        activation: rng.pick(&ACTIVATIONS),
        residual: rng.chance().then_some(&residual),
        scale: rng.pick(&[1.0, 0.37]),
        accumulate: rng.chance(),
        activation_last: rng.chance(),
    };
    finish(&mut want, cout, &e, &before);
    for isa in Isa::available() {
        let workspace = Workspace::new();
        for &algorithm in &algorithms {
            let mut out = before.clone();
            conv2d_by(algorithm, &x, &packed, &mut out, &e, &Context::new(&workspace).with_isa(isa));
            let error = relative(&out, &want);
            assert!(
                error < tolerance::<T>(worst_error(algorithm)),
                "{} {algorithm:?} seed {seed} {shape:?} {size:?} up {upsample} {:?}: {error:e}",
                isa.name(),
                weights.dtype
            );
        }
    }
}

/// Any rows of an output, computed alone, are those of the whole.
fn check_rows(seed: u64, shape: ConvShape, size: [usize; 3], upsample: bool) {
    let rng = &mut Rng::new(seed);
    let [b, h, w] = size;
    let weights: Vec<f32> = rng.values(shape.cout * shape.cin * shape.kh * shape.kw);
    let (data, packed) = (rng.values(b * h * w * shape.cin), PackedConv::from_f32(&weights, shape));
    let x = ConvInput { upsample, activation: rng.pick(&ACTIVATIONS), ..ConvInput::new(&data, b, h, w) };
    let want = conv(&x, &weights, shape);
    let (height, width) = x.size();
    let (ho, wo) = shape.output(height, width);
    let first = rng.below(ho);
    let count = rng.below(ho - first + 1);
    let line = wo * shape.cout;
    let want: Vec<f64> = (0..b).flat_map(|i| want[(i * ho + first) * line..][..count * line].to_vec()).collect();
    let x = ConvInput { rows: Some((first, count)), ..x };
    let algorithms = algorithms(&x, shape, WeightType::F32);
    for isa in Isa::available() {
        for &algorithm in &algorithms {
            let (workspace, mut out) = (Workspace::new(), vec![0.0f32; want.len()]);
            conv2d_by(algorithm, &x, &packed, &mut out, &Epilogue::default(), &Context::new(&workspace).with_isa(isa));
            let error = relative(&out, &want);
            assert!(
                error < worst_error(algorithm),
                "{} {algorithm:?} seed {seed} {shape:?} {size:?} {:?}: {error:e}",
                isa.name(),
                x.rows
            );
        }
    }
}

fn rng_type(seed: u64) -> WeightType {
    Rng::new(seed ^ 77).pick(&WEIGHT_TYPES)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_convolution_matches_the_plain_one(
        seed in any::<u64>(), cin in 1usize..40, cout in 1usize..70, k in 1usize..4, kw in 1usize..4, stride in 1usize..3,
        padding in any::<[bool; 4]>(), b in 1usize..3, h in 1usize..12, w in 1usize..12, upsample in any::<bool>(),
    ) {
        let factor = if upsample { 2 } else { 1 };
        let padding = padding.map(usize::from);
        prop_assume!(h * factor + padding[0] + padding[1] >= k && w * factor + padding[2] + padding[3] >= kw);
        let shape = ConvShape { cin, cout, kh: k, kw, stride, padding };
        match seed % 3 {
            0 => check::<f32>(seed, shape, [b, h, w], upsample),
            1 => check::<bf16>(seed, shape, [b, h, w], upsample),
            _ => check::<f16>(seed, shape, [b, h, w], upsample),
        }
    }

    #[test]
    fn any_rows_are_those_of_the_whole(
        seed in any::<u64>(), cin in 1usize..40, cout in 1usize..40, k in 1usize..4, stride in 1usize..3,
        padding in any::<[bool; 4]>(), b in 1usize..3, h in 2usize..20, w in 2usize..12, upsample in any::<bool>(),
    ) {
        let any = ConvShape { cin, cout, kh: k, kw: k, stride, padding: padding.map(usize::from) };
        prop_assume!(h + any.padding[0] + any.padding[1] >= k && w + any.padding[2] + any.padding[3] >= k);
        let shape = if seed % 2 == 0 { any } else { ConvShape::same3x3(cin, cout) };
        check_rows(seed, shape, [b, h, w], upsample);
    }

    #[test]
    fn same_size_3x3_matches_the_plain_one(
        seed in any::<u64>(), cin in 1usize..70, cout in 1usize..100, b in 1usize..3, h in 1usize..30, w in 1usize..30, upsample in any::<bool>(),
    ) {
        match seed % 4 {
            0 => check::<bf16>(seed, ConvShape::same3x3(cin, cout), [b, h, w], upsample),
            1 => check::<f16>(seed, ConvShape::same3x3(cin, cout), [b, h, w], upsample),
            _ => check::<f32>(seed, ConvShape::same3x3(cin, cout), [b, h, w], upsample),
        }
    }
}

#[test]
fn a_downsample_of_the_ldm_kind_pads_bottom_and_right() {
    let shape = ConvShape { stride: 2, padding: [0, 1, 0, 1], ..ConvShape::same3x3(32, 32) };
    assert_eq!(shape.output(64, 64), (32, 32));
    check::<f32>(5, shape, [1, 16, 16], false);
}

#[test]
fn layers_of_many_tiles_keep_their_weights_and_match() {
    check::<f32>(11, ConvShape::same3x3(64, 64), [1, 57, 90], false);
    check::<bf16>(12, ConvShape::same3x3(18, 40), [1, 61, 70], true);
    check_rows(13, ConvShape::same3x3(33, 48), [2, 50, 62], false);
    check_rows(14, ConvShape::same3x3(24, 32), [1, 70, 61], true);
}

#[test]
fn deep_and_wide_layers_match() {
    check::<f32>(1, ConvShape::same3x3(320, 96), [1, 9, 11], false);
    check::<f32>(2, ConvShape::same3x3(256, 64), [1, 12, 12], true);
    check::<f32>(3, ConvShape { stride: 2, padding: [1; 4], ..ConvShape::same3x3(160, 96) }, [2, 10, 10], false);
    check::<bf16>(4, ConvShape::same3x3(128, 3), [1, 24, 20], false);
}

#[test]
fn few_channels_match_across_blocks() {
    for seed in 20..32 {
        let shape = ConvShape::same3x3([64, 130, 7][seed as usize % 3], 1 + seed as usize % 4);
        check::<f32>(seed, shape, [2, 19, 83], false);
        check::<f16>(seed, shape, [1, 10, 41], true);
        check_rows(seed, shape, [2, 21, 77], seed % 2 == 0);
    }
    check::<bf16>(
        32,
        ConvShape { kh: 1, kw: 5, padding: [0, 0, 3, 1], ..ConvShape::same3x3(48, 2) },
        [2, 3, 130],
        false,
    );
    check::<f32>(33, ConvShape::pointwise(90, 3), [1, 30, 7], false);
}

/// Large outputs that begin at a cache line are written past the caches; those that do not are written as all others.
#[test]
fn outputs_written_past_the_caches_are_the_same() {
    fn check<T: Scalar>(cout: usize, upsample: bool) {
        let (rng, (h, w)) = (&mut Rng::new(cout as u64), if upsample { (161, 159) } else { (322, 318) });
        let shape = ConvShape::same3x3(8, cout);
        let weights: Vec<f32> = rng.values(cout * 8 * 9);
        let (data, packed): (Vec<T>, _) = (rng.scalars(h * w * 8), PackedConv::from_f32(&weights, shape));
        let x = ConvInput { upsample, ..ConvInput::new(&data, 1, h, w) };
        let (height, width) = x.size();
        let len = height * width * cout;
        assert!(len * size_of::<T>() >= 24 << 20);
        let workspace = Workspace::new();
        let outputs = [0, 1].map(|off| {
            let mut out = vec![T::from_f32(7.0); len + 64];
            let margin = out.as_ptr().addr().next_multiple_of(64) - out.as_ptr().addr();
            let first = margin / size_of::<T>() + off;
            conv2d(&x, &packed, &mut out[first..first + len], &Epilogue::default(), &Context::new(&workspace));
            out[first..first + len].iter().map(|v| v.to_f32().to_bits()).collect::<Vec<_>>()
        });
        assert!(outputs[0] == outputs[1], "{cout} channels, doubled {upsample}");
    }
    check::<f32>(64, false);
    check::<f32>(96, true);
    check::<bf16>(128, false);
}

#[test]
fn an_interrupted_convolution_returns() {
    let (workspace, stop) = (Workspace::new(), std::sync::atomic::AtomicBool::new(true));
    let shape = ConvShape::same3x3(8, 8);
    let packed = PackedConv::from_f32(&[0.5; 8 * 8 * 9], shape);
    let x = vec![1.0f32; 64 * 64 * 8];
    let mut out = vec![7.0f32; 64 * 64 * 8];
    conv2d(
        &ConvInput::new(&x, 1, 64, 64),
        &packed,
        &mut out,
        &Epilogue::default(),
        &Context::new(&workspace).with_interrupt(&stop),
    );
    assert!(out.iter().all(|&v| v == 7.0));
}

/// Activations as a VAE has them: a smooth picture in each channel, of different size and mean, with noise; then norm and SiLU.
fn realistic(rng: &mut Rng, size: usize, c: usize) -> (Vec<f32>, ChannelAffine) {
    let waves: Vec<[f32; 5]> = (0..c).map(|_| std::array::from_fn(|_| rng.normal())).collect();
    let mut x = Vec::with_capacity(size * size * c);
    for (py, px) in (0..size).flat_map(|y| (0..size).map(move |x| (y as f32, x as f32))) {
        for [a, fy, fx, mean, size] in &waves {
            x.push(mean * 3.0 + size.exp() * ((py * fy * 0.3 + px * fx * 0.3 + a).sin() + 0.3 * rng.normal()));
        }
    }
    let workspace = Workspace::new();
    let (gamma, beta) = (vec![0.8; c], vec![0.1; c]);
    let norm = GroupNorm { groups: 32, eps: 1e-6, gamma: &gamma, beta: &beta };
    let affine = group_norm_affine(&x, 1, size * size, &norm, &Context::new(&workspace));
    (x, affine)
}

#[test]
fn algorithms_keep_their_error_bounds_on_realistic_activations() {
    for (cin, upsample) in [(512, false), (128, false), (512, true), (128, true)] {
        let rng = &mut Rng::new(cin as u64);
        let (x, affine) = realistic(rng, 16, cin);
        let shape = ConvShape::same3x3(cin, 32);
        let weights: Vec<f32> = rng.values(32 * cin * 9).iter().map(|v| v / (9.0 * cin as f32).sqrt()).collect();
        let packed = PackedConv::from_f32(&weights, shape);
        let x =
            ConvInput { norm: Some(&affine), activation: Activation::Silu, upsample, ..ConvInput::new(&x, 1, 16, 16) };
        let want = conv(&x, &weights, shape);
        for (isa, algorithm) in Isa::available()
            .into_iter()
            .flat_map(|isa| algorithms(&x, shape, WeightType::F32).into_iter().map(move |a| (isa, a)))
        {
            let (workspace, mut out) = (Workspace::new(), vec![0.0f32; want.len()]);
            let cx = Context::new(&workspace).with_isa(isa);
            conv2d_by(algorithm, &x, &packed, &mut out, &Epilogue::default(), &cx);
            let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
            let error =
                norm(&mut out.iter().zip(&want).map(|(g, w)| f64::from(*g) - w)) / norm(&mut want.iter().copied());
            let worst = relative(&out, &want);
            let of = format!("{} {algorithm:?}, {cin} channels, doubled {upsample}", isa.name());
            println!("{of}: error {error:.1e} of the norm, {worst:.1e} at worst");
            let (error_bound, worst_bound) =
                if algorithm == Algorithm::LargeWinograd { (1e-5, 6e-5) } else { (5e-6, 2e-5) };
            assert!(error < error_bound && worst < worst_bound, "{of}: {error:e}, worst {worst:e}");
        }
    }
}
