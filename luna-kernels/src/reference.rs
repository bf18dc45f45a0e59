//! Plain f64 versions of the kernels, written for obviousness, and what tests need around them.

use crate::*;
use half::{bf16, f16};

/// A small reproducible source of numbers.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn chance(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// Roughly normal, deviation 1.
    pub(crate) fn normal(&mut self) -> f32 {
        let unit = |r: &mut Self| (r.next() >> 40) as f32 / (1u64 << 24) as f32;
        (0..4).map(|_| unit(self) - 0.5).sum::<f32>() * 1.732
    }

    pub(crate) fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }

    pub(crate) fn scalars<T: Scalar>(&mut self, n: usize) -> Vec<T> {
        (0..n).map(|_| T::from_f32(self.normal())).collect()
    }

    /// One of a list.
    pub(crate) fn pick<V: Copy>(&mut self, from: &[V]) -> V {
        from[self.below(from.len())]
    }
}

pub(crate) const WEIGHT_TYPES: [WeightType; 5] =
    [WeightType::F32, WeightType::F16, WeightType::BF16, WeightType::F8E4M3, WeightType::F8E5M2];
pub(crate) const ACTIVATIONS: [Activation; 6] = [
    Activation::None,
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Relu,
];

/// Stored weights of a type (deliberately misaligned by one byte) and the same values widened.
pub(crate) struct Stored {
    bytes: Vec<u8>,
    pub(crate) dtype: WeightType,
    pub(crate) values: Vec<f32>,
}

impl Stored {
    pub(crate) fn random(rng: &mut Rng, dtype: WeightType, n: usize) -> Self {
        let mut bytes = vec![0u8];
        let mut values = Vec::with_capacity(n);
        for _ in 0..n {
            let at = bytes.len();
            let x = rng.normal() * 0.5;
            match dtype {
                WeightType::F32 => bytes.extend(x.to_le_bytes()),
                WeightType::F16 => bytes.extend(f16::from_f32(x).to_le_bytes()),
                WeightType::BF16 => bytes.extend(bf16::from_f32(x).to_le_bytes()),
                // Any finite byte of moderate size.
                WeightType::F8E4M3 => bytes.push((rng.below(0x40) | (rng.below(2) << 7)) as u8),
                WeightType::F8E5M2 => bytes.push((rng.below(0x40) | (rng.below(2) << 7)) as u8),
                _ => unreachable!("quantised blocks have a test of their own"),
            }
            values.push(dtype.widen(&bytes[at..]));
        }
        Self { bytes, dtype, values }
    }

    pub(crate) fn view(&self) -> WeightView<'_> {
        WeightView { dtype: self.dtype, bytes: &self.bytes[1..] }
    }
}

pub(crate) fn wide<T: Scalar>(x: &[T]) -> Vec<f64> {
    x.iter().map(|v| f64::from(v.to_f32())).collect()
}

/// Largest difference over the root mean square of the reference.
pub(crate) fn relative<T: Scalar>(got: &[T], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let size = (want.iter().map(|v| v * v).sum::<f64>() / want.len().max(1) as f64).sqrt().max(0.1);
    got.iter()
        .zip(want)
        .map(|(g, w)| (f64::from(g.to_f32()) - w).abs())
        .fold(0.0, |a, b| if a > b || b.is_nan() && a.is_nan() { a } else { b })
        / size
}

/// What rounding the result to the element type allows, beside `f32_error`.
pub(crate) fn tolerance<T: Scalar>(f32_error: f64) -> f64 {
    match size_of::<T>() {
        4 => f32_error,
        _ if T::IS_BF16 => 4e-2,
        // Half a unit of the largest value, which may be twenty times the root mean square.
        _ => 1e-2,
    }
}

pub(crate) fn erf(x: f64) -> f64 {
    // Series for small arguments, continued fraction for large ones.
    if x.abs() < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..80 {
            term *= -x * x / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        return sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    let z = x.abs();
    let mut f = 0.0;
    for k in (1..60).rev() {
        f = k as f64 / 2.0 / (z + f);
    }
    let erfc = (-z * z).exp() / (z + f) / std::f64::consts::PI.sqrt();
    (1.0 - erfc) * x.signum()
}

pub(crate) fn activate(a: Activation, x: f64) -> f64 {
    match a {
        Activation::None => x,
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::Relu => x.max(0.0),
    }
}

/// Epilogue on f64 sums; `before` is what the output held.
pub(crate) fn finish<T: Scalar>(sums: &mut [f64], n: usize, e: &Epilogue<'_, T>, before: &[T]) {
    for (i, sum) in sums.iter_mut().enumerate() {
        let biased = *sum * f64::from(e.scale) + e.bias.map_or(0.0, |b| f64::from(b[i % n]));
        let mut rest = e.residual.map_or(0.0, |r| f64::from(r[i].to_f32()));
        if e.accumulate {
            rest += f64::from(before[i].to_f32());
        }
        *sum = if e.activation_last {
            activate(e.activation, biased + rest)
        } else {
            activate(e.activation, biased) + rest
        };
    }
}

/// `[m, k] · [n, k]ᵀ`.
pub(crate) fn product(a: &[f64], w: &[f64], m: usize, n: usize, k: usize) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            out[i * n + j] = (0..k).map(|d| a[i * k + d] * w[j * k + d]).sum();
        }
    }
    out
}

/// Direct convolution of a prepared f64 image with `[cout, cin, kh, kw]` weights.
pub(crate) fn conv<T: Scalar>(x: &ConvInput<'_, T>, w: &[f32], shape: ConvShape) -> Vec<f64> {
    let ConvShape { cin, cout, kh, kw, stride, padding } = shape;
    let (h, width) = x.size();
    let (ho, wo) = shape.output(h, width);
    let factor = h / x.h;
    let prepared: Vec<f64> = (0..x.data.len())
        .map(|i| {
            let (image, c) = (i / (x.h * x.w * cin), i % cin);
            let v = f64::from(x.data[i].to_f32());
            let v = x.norm.map_or(v, |n| v * f64::from(n.scale[image * cin + c]) + f64::from(n.shift[image * cin + c]));
            let v = activate(x.activation, v);
            // What is prepared beforehand is held in the element type.
            if x.prepared_while_read() { v } else { f64::from(T::from_f32(v as f32).to_f32()) }
        })
        .collect();
    let mut out = vec![0.0; x.b * ho * wo * cout];
    for (at, sum) in out.iter_mut().enumerate() {
        let (o, ox, oy, image) = (at % cout, at / cout % wo, at / cout / wo % ho, at / cout / wo / ho);
        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
            let (Some(y), Some(px)) =
                ((oy * stride + ky).checked_sub(padding[0]), (ox * stride + kx).checked_sub(padding[2]))
            else {
                continue;
            };
            if y >= h || px >= width {
                continue;
            }
            let pixel = ((image * x.h + y / factor) * x.w + px / factor) * cin;
            for c in 0..cin {
                *sum += prepared[pixel + c] * f64::from(w[((o * cin + c) * kh + ky) * kw + kx]);
            }
        }
    }
    out
}
