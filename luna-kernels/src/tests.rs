//! Products, norms and pointwise kernels against plain f64 code, on every instruction set of this machine.

use crate::reference::{ACTIVATIONS, Rng, Stored, WEIGHT_TYPES, activate, finish, product, relative, tolerance, wide};
use crate::*;
use half::{bf16, f16};
use proptest::prelude::*;

fn check_linear<T: Scalar>(seed: u64, m: usize, n: usize, k: usize) {
    let rng = &mut Rng::new(seed);
    let dtype = rng.pick(&WEIGHT_TYPES);
    let stored = Stored::random(rng, dtype, n * k);
    let a: Vec<T> = rng.scalars(m * k);
    let lender = Workspace::new();
    lender.take::<f32>(n.div_ceil(32) * 32 * k).fill(f32::NAN);
    let packed = match rng.chance() {
        true => PackedMatrix::pack(stored.view(), n, k),
        false => PackedMatrix::pack_for_call(stored.view(), n, k, &Context::new(&lender)),
    };
    let mut back = vec![0.0; n * k];
    packed.unpack_f32(&mut back);
    assert_eq!(back, stored.values);
    let weights: Vec<f64> = stored.values.iter().map(|&v| f64::from(v)).collect();
    let mut want = product(&wide(&a), &weights, m, n, k);
    let (rank, up_type, branched) = (1 + rng.below(70), rng.pick(&WEIGHT_TYPES), rng.chance());
    let (up, hidden) = (Stored::random(rng, up_type, n * rank), rng.scalars::<T>(m * rank));
    let (bias, residual, before) = (rng.values(n), rng.scalars::<T>(m * n), rng.scalars::<T>(m * n));
    let e = Epilogue {
        bias: rng.chance().then_some(&bias),
        activation: rng.pick(&ACTIVATIONS),
        residual: rng.chance().then_some(&residual),
        scale: rng.pick(&[1.0, -0.6]),
        accumulate: rng.chance(),
        activation_last: rng.chance(),
    };
    let strength = 0.7;
    if branched {
        let up: Vec<f64> = up.values.iter().map(|&v| f64::from(v)).collect();
        let added = product(&wide(&hidden), &up, m, n, rank);
        want.iter_mut().zip(added).for_each(|(sum, added)| *sum += f64::from(strength / e.scale) * added);
    }
    finish(&mut want, n, &e, &before);
    let up = PackedMatrix::pack(up.view(), n, rank);
    for isa in Isa::available() {
        let (workspace, mut out) = (Workspace::new(), before.clone());
        let cx = Context::new(&workspace).with_isa(isa);
        if branched {
            let branch = LowRankBranch { hidden: &hidden, up: &up, strength };
            linear_with_branch(&a, m, &packed, &branch, &mut out, &e, &cx);
        } else {
            linear(&a, m, &packed, &mut out, &e, &cx);
        }
        let error = relative(&out, &want);
        assert!(error < tolerance::<T>(2e-5), "{} seed {seed} {m}x{n}x{k} {dtype:?} {e:?}: {error:e}", isa.name());
    }
}

/// A random strided, perhaps transposed operand.
struct Owned<T> {
    data: Vec<T>,
    row_stride: usize,
    batch_stride: usize,
    transposed: bool,
}

impl<T: Scalar> Owned<T> {
    fn random(rng: &mut Rng, batch: usize, rows: usize, columns: usize) -> Self {
        let transposed = rng.chance();
        let (lines, width) = if transposed { (columns, rows) } else { (rows, columns) };
        let row_stride = width + rng.below(3);
        let batch_stride = if rng.chance() { lines * row_stride } else { 0 };
        Self { data: rng.scalars(batch * lines * row_stride + width), row_stride, batch_stride, transposed }
    }

    fn view(&self) -> Operand<'_, T> {
        Operand {
            data: &self.data,
            row_stride: self.row_stride,
            batch_stride: self.batch_stride,
            transposed: self.transposed,
        }
    }

    fn at(&self, i: usize, row: usize, column: usize) -> f64 {
        let (line, column) = if self.transposed { (column, row) } else { (row, column) };
        f64::from(self.data[i * self.batch_stride + line * self.row_stride + column].to_f32())
    }
}

fn check_matmul<T: Scalar>(seed: u64, shape: MatmulShape) {
    let rng = &mut Rng::new(seed);
    let MatmulShape { batch, m, n, k } = shape;
    let (a, b) = (Owned::<T>::random(rng, batch, m, k), Owned::<T>::random(rng, batch, k, n));
    let mut want = vec![0.0; batch * m * n];
    for (x, sum) in want.iter_mut().enumerate() {
        let (i, r, c) = (x / (m * n), x / n % m, x % n);
        *sum = (0..k).map(|d| a.at(i, r, d) * b.at(i, d, c)).sum::<f64>() * 0.5;
    }
    for isa in Isa::available() {
        let (workspace, mut out) = (Workspace::new(), vec![T::default(); batch * m * n]);
        let e = Epilogue { scale: 0.5, ..Epilogue::default() };
        matmul(&a.view(), &b.view(), &mut out, shape, &e, &Context::new(&workspace).with_isa(isa));
        let error = relative(&out, &want);
        assert!(error < tolerance::<T>(2e-5), "{} seed {seed} {shape:?}: {error:e}", isa.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_linear_layer_matches(seed in any::<u64>(), m in 1usize..60, n in 1usize..90, k in 1usize..100) {
        match seed % 3 {
            0 => check_linear::<bf16>(seed, m, n, k),
            1 => check_linear::<f16>(seed, m, n, k),
            _ => check_linear::<f32>(seed, m, n, k),
        }
    }

    #[test]
    fn any_single_row_matches(seed in any::<u64>(), n in 1usize..200, k in 1usize..300) {
        match seed % 3 {
            0 => check_linear::<bf16>(seed, 1, n, k),
            1 => check_linear::<f16>(seed, 1, n, k),
            _ => check_linear::<f32>(seed, 1, n, k),
        }
    }

    #[test]
    fn any_product_of_activations_matches(seed in any::<u64>(), batch in 1usize..4, m in 1usize..30, n in 1usize..50, k in 1usize..40) {
        let shape = MatmulShape { batch, m, n, k };
        match seed % 3 {
            0 => check_matmul::<bf16>(seed, shape),
            1 => check_matmul::<f16>(seed, shape),
            _ => check_matmul::<f32>(seed, shape),
        }
    }

    #[test]
    fn norms_match(seed in any::<u64>(), b in 1usize..3, hw in 1usize..200, groups in 1usize..6, width in 1usize..9) {
        check_norms(seed, b, hw, groups, groups * width);
    }

    #[test]
    fn pointwise_kernels_match(seed in any::<u64>(), rows in 1usize..6, n in 1usize..70) {
        check_pointwise::<f32>(seed, rows, n);
        check_pointwise::<bf16>(seed, rows, n);
    }
}

#[test]
fn products_of_many_blocks_match() {
    check_linear::<f32>(1, 700, 40, 70);
    check_linear::<f32>(2, 3, 300, 2100);
    check_linear::<bf16>(3, 77, 70, 1100);
    check_linear::<f32>(4, 300, 33, 1030);
}

#[test]
fn a_row_has_the_same_digits_whatever_rows_lie_beside_it() {
    let (m, n, k) = (77, 96, 1000);
    let rng = &mut Rng::new(5);
    let mut a: Vec<f32> = rng.values(m * k);
    // What another row's sums had of these would be seen, even if it is taken off again.
    a.chunks_exact_mut(k).step_by(3).flatten().for_each(|value| *value *= 1e6);
    for dtype in WEIGHT_TYPES {
        let w = PackedMatrix::pack(Stored::random(rng, dtype, n * k).view(), n, k);
        for isa in Isa::available() {
            let workspace = Workspace::new();
            let cx = Context::new(&workspace).with_isa(isa);
            let (mut all, mut two) = (vec![0.0; m * n], vec![0.0; 2 * n]);
            linear(&a, m, &w, &mut all, &Epilogue::default(), &cx);
            for row in [0, 1, 38, 76] {
                let pair = [&a[row * k..][..k], &vec![0.0; k][..]].concat();
                linear(&pair, 2, &w, &mut two, &Epilogue::default(), &cx);
                assert!(all[row * n..][..n] == two[..n], "{} {dtype:?}: row {row}", isa.name());
            }
        }
    }
}

#[test]
fn empty_operands_are_no_exception() {
    let workspace = Workspace::new();
    let cx = Context::new(&workspace);
    let mut out = [5.0f32; 4];
    let e = Epilogue { bias: Some(&[1.0, 2.0]), ..Epilogue::default() };
    linear(&[], 2, &PackedMatrix::from_f32(&[], 2, 0), &mut out, &e, &cx);
    assert_eq!(out, [1.0, 2.0, 1.0, 2.0]);
    linear(&[], 0, &PackedMatrix::from_f32(&[1.0, 2.0], 2, 1), &mut [], &e, &cx);
    let shape = MatmulShape { batch: 1, m: 2, n: 2, k: 0 };
    let nothing = Operand::<f32>::contiguous(&[], 2, 0);
    matmul(&nothing, &Operand::contiguous(&[], 0, 2), &mut out, shape, &e, &cx);
    assert_eq!(out, [1.0, 2.0, 1.0, 2.0]);
    let w = PackedConv::from_f32(&[1.0; 18], ConvShape::same3x3(1, 2));
    conv2d(&ConvInput::<f32>::new(&[], 0, 4, 4), &w, &mut [], &e, &cx);
    let norm = GroupNorm { groups: 1, eps: 1e-6, gamma: &[1.0], beta: &[0.0] };
    assert_eq!(group_norm_affine::<f32>(&[], 0, 4, &norm, &cx), ChannelAffine::default());
    softmax_rows::<f32>(&mut [], 3, &cx);
    nchw_to_nhwc::<f32, f32>(&[], &mut [], ImageShape { b: 0, c: 3, h: 1, w: 1 });
}

fn check_norms(seed: u64, b: usize, hw: usize, groups: usize, c: usize) {
    let rng = &mut Rng::new(seed);
    // A mean far from zero, where careless sums lose all digits.
    let mean = rng.pick(&[0.0f32, 3.0, 1000.0]);
    let x: Vec<f32> = (0..b * hw * c).map(|_| rng.normal() + mean).collect();
    let (gamma, beta) = (rng.values(c), rng.values(c));
    let width = c / groups;
    let want: Vec<f64> = (0..x.len())
        .map(|i| {
            let (image, channel) = (i / (hw * c), i % c);
            let group = channel / width;
            let members: Vec<f64> = (0..hw)
                .flat_map(|p| (0..width).map(move |j| (image * hw + p) * c + group * width + j))
                .map(|at| f64::from(x[at]))
                .collect();
            standardised(f64::from(x[i]), &members, true) * f64::from(gamma[channel]) + f64::from(beta[channel])
        })
        .collect();
    let rows: Vec<f64> = x
        .chunks(c)
        .flat_map(|row| row.iter().map(|&v| standardised(f64::from(v), &wide(row), true)).collect::<Vec<_>>())
        .collect();
    let square: Vec<f64> = x
        .chunks(c)
        .flat_map(|row| row.iter().map(|&v| standardised(f64::from(v), &wide(row), false)).collect::<Vec<_>>())
        .collect();
    // f32 inputs near 1000 carry 6e-5 themselves relative to their deviation.
    let allowed = if mean > 100.0 { 3e-3 } else { 3e-5 };
    for isa in Isa::available() {
        let workspace = Workspace::new();
        let cx = Context::new(&workspace).with_isa(isa);
        let mut out = vec![0.0; x.len()];
        let affine = group_norm_affine(&x, b, hw, &GroupNorm { groups, eps: 1e-3, gamma: &gamma, beta: &beta }, &cx);
        apply_affine(&x, &mut out, b, &affine, Activation::None, &cx);
        assert!(relative(&out, &want) < allowed, "{} seed {seed} group norm {:e}", isa.name(), relative(&out, &want));
        let plain = RowNorm { c, eps: 1e-3, gamma: None, beta: None };
        layer_norm(&x, &mut out, &plain, &cx);
        assert!(relative(&out, &rows) < allowed, "{} seed {seed} layer norm {:e}", isa.name(), relative(&out, &rows));
        rms_norm(&x, &mut out, &plain, &cx);
        assert!(relative(&out, &square) < 3e-5, "{} seed {seed} rms norm {:e}", isa.name(), relative(&out, &square));
        let weighted = RowNorm { gamma: Some(&gamma), beta: Some(&beta), ..plain };
        rms_norm(&x, &mut out, &weighted, &cx);
        let want: Vec<f64> =
            square.iter().enumerate().map(|(i, v)| v * f64::from(gamma[i % c]) + f64::from(beta[i % c])).collect();
        assert!(relative(&out, &want) < 3e-5, "{} seed {seed} weighted rms norm", isa.name());
    }
}

fn standardised(v: f64, members: &[f64], centred: bool) -> f64 {
    let n = members.len() as f64;
    let mean = if centred { members.iter().sum::<f64>() / n } else { 0.0 };
    let variance = members.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / n;
    (v - mean) / (variance + f64::from(1e-3f32)).sqrt()
}

fn check_pointwise<T: Scalar>(seed: u64, rows: usize, n: usize) {
    let rng = &mut Rng::new(seed);
    let x: Vec<T> = rng.scalars(rows * 2 * n);
    let y: Vec<T> = rng.scalars(rows * 2 * n);
    let at = |r: usize, j: usize| f64::from(x[r * 2 * n + j].to_f32());
    let gates = |f: &dyn Fn(usize, usize) -> f64| (0..rows * n).map(|i| f(i / n, i % n)).collect::<Vec<f64>>();
    let want_geglu = gates(&|r, j| at(r, j) * activate(Activation::Gelu, at(r, n + j)));
    let want_swiglu = gates(&|r, j| at(r, n + j) * activate(Activation::Silu, at(r, j)));
    let want_softmax: Vec<f64> = x
        .chunks(n)
        .flat_map(|row| {
            let total: f64 = wide(row).iter().map(|v| v.exp()).sum();
            wide(row).into_iter().map(move |v| v.exp() / total).collect::<Vec<_>>()
        })
        .collect();
    for isa in Isa::available() {
        let workspace = Workspace::new();
        let cx = Context::new(&workspace).with_isa(isa);
        let mut out = vec![T::default(); rows * n];
        geglu(&x, &mut out, n, &cx);
        assert!(relative(&out, &want_geglu) < tolerance::<T>(1e-5), "{} seed {seed} geglu", isa.name());
        swiglu(&x, &mut out, n, &cx);
        assert!(relative(&out, &want_swiglu) < tolerance::<T>(1e-5), "{} seed {seed} swiglu", isa.name());
        let mut sum = x.clone();
        add_scaled(&mut sum, &y, 0.25, &cx);
        let want: Vec<f64> = wide(&x).iter().zip(wide(&y)).map(|(a, b)| a + 0.25 * b).collect();
        assert!(relative(&sum, &want) < tolerance::<T>(1e-6), "{} seed {seed} add", isa.name());
        let mut soft = x.clone();
        softmax_rows(&mut soft, n, &cx);
        assert!(relative(&soft, &want_softmax) < tolerance::<T>(1e-5), "{} seed {seed} softmax", isa.name());
        for activation in ACTIVATIONS {
            let mut got = x.clone();
            activate_in_place(&mut got, activation, &cx);
            let want: Vec<f64> = wide(&x).into_iter().map(|v| activate(activation, v)).collect();
            assert!(relative(&got, &want) < tolerance::<T>(1e-5), "{} seed {seed} {activation:?}", isa.name());
        }
    }
}

#[test]
fn activations_hold_over_their_whole_range() {
    let x: Vec<f32> = (-4000..4000).map(|i| i as f32 * 0.05).collect();
    for isa in Isa::available() {
        let workspace = Workspace::new();
        let cx = Context::new(&workspace).with_isa(isa);
        for activation in ACTIVATIONS {
            let mut got = x.clone();
            activate_in_place(&mut got, activation, &cx);
            for (&x, &y) in x.iter().zip(&got) {
                let want = activate(activation, f64::from(x));
                assert!(
                    (f64::from(y) - want).abs() <= 1e-6 * want.abs() + 3e-7,
                    "{} {activation:?}({x}) = {y}, not {want}",
                    isa.name()
                );
            }
            let mut odd = vec![f32::NAN, f32::INFINITY, -1e30];
            activate_in_place(&mut odd, activation, &cx);
            assert!(odd[0].is_nan() && odd[1] == f32::INFINITY, "{} {activation:?} {odd:?}", isa.name());
        }
    }
}

#[test]
fn conversions_are_exact_for_every_bit_pattern() {
    for isa in Isa::available() {
        let workspace = Workspace::new();
        let cx = Context::new(&workspace).with_isa(isa);
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for dtype in WEIGHT_TYPES {
            let mut got = vec![0.0f32; all.len() / dtype.size()];
            convert_weights(WeightView { dtype, bytes: &all }, &mut got, &cx);
            for (i, got) in got.iter().enumerate() {
                let want = dtype.widen(&all[i * dtype.size()..]);
                assert!(
                    got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                    "{} {dtype:?} {i}: {got} {want}",
                    isa.name()
                );
            }
        }
        // Rounding: halfway cases, overflow, subnormals and NaN, in vectors and in tails.
        let rng = &mut Rng::new(3);
        let mut x: Vec<f32> = (0..20_003).map(|_| f32::from_bits(rng.next() as u32)).collect();
        x.extend(
            [0x3f80_8000u32, 0x3f81_8000, 0x7f7f_ffff, 1, 0x7f80_0001, 0x3380_0000, 0x3300_0000].map(f32::from_bits),
        );
        let (mut b, mut h) = (vec![bf16::ZERO; x.len()], vec![f16::ZERO; x.len()]);
        convert(&x, &mut b, &cx);
        convert(&x, &mut h, &cx);
        for ((&x, b), h) in x.iter().zip(&b).zip(&h) {
            let (want_b, want_h) = (bf16::from_f32(x), f16::from_f32(x));
            assert!(
                b.to_bits() == want_b.to_bits() || b.is_nan() && want_b.is_nan(),
                "{} bf16 of {x:e}: {b} {want_b}",
                isa.name()
            );
            assert!(
                h.to_bits() == want_h.to_bits() || h.is_nan() && want_h.is_nan(),
                "{} f16 of {x:e}: {h} {want_h}",
                isa.name()
            );
        }
    }
}

#[test]
fn layouts_turn_round_and_back() {
    let shape = ImageShape { b: 2, c: 5, h: 7, w: 41 };
    let x: Vec<f32> = (0..shape.len()).map(|i| i as f32).collect();
    let (mut last, mut first) = (vec![0.0f32; x.len()], vec![0.0f32; x.len()]);
    nchw_to_nhwc(&x, &mut last, shape);
    assert_eq!(last[3], x[3 * 7 * 41]);
    assert_eq!(last[5 * 41 + 1], x[7 * 41 + 41]);
    nhwc_to_nchw(&last, &mut first, shape);
    assert_eq!(first, x);
    let mut twice = vec![0.0f32; 4 * x.len()];
    upsample_nearest_2x(&last, &mut twice, shape);
    for (i, v) in twice.iter().enumerate() {
        let (c, px, y, image) = (i % 5, i / 5 % 82, i / 5 / 82 % 14, i / 5 / 82 / 14);
        assert_eq!(*v, last[((image * 7 + y / 2) * 41 + px / 2) * 5 + c]);
    }
}

#[test]
fn rotary_turns_both_layouts() {
    let (cos, sin) = ([0.0f32, 1.0], [1.0f32, 0.0]); // a quarter turn, and none
    let shape = RotaryShape { tokens: 1, heads: 1, dim: 5, stride: 6 };
    let rotary = Rotary { cos: &cos, sin: &sin, rotary: 4, layout: RotaryLayout::Interleaved };
    let mut x = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    rotate(&mut x, shape, &rotary);
    assert_eq!(x, [-2.0, 1.0, 3.0, 4.0, 5.0, 6.0]);
    let mut x = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    rotate(&mut x, shape, &Rotary { layout: RotaryLayout::HalfSplit, ..rotary });
    assert_eq!(x, [-3.0, 2.0, 1.0, 4.0, 5.0, 6.0]);
}

#[test]
fn the_peak_is_measured() {
    let workspace = Workspace::new();
    let peak = peak(std::time::Duration::from_millis(40), &Context::new(&workspace));
    assert!(peak.gflops > 0.1 && peak.read_gbytes > 0.1 && peak.threads >= 1);
}
