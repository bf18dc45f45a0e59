//! Exponentials and activation functions over vectors.
//!
//! Enters: lanes. Leaves: lanes, with a relative error of a few units in the last place. NaN goes through.

use super::Simd;

/// A pointwise non-linearity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `x`.
    #[default]
    None,
    /// `x * sigmoid(x)`, also called swish.
    Silu,
    /// `x * Φ(x)`, by the error function.
    Gelu,
    /// `x * Φ(x)`, by the tanh approximation.
    GeluTanh,
    /// `x * sigmoid(1.702 x)`, as in OpenAI's CLIP.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// Applies the function to each lane.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        match self {
            Self::None => x,
            Self::Silu => s.mul(x, sigmoid(s, x)),
            Self::Gelu => gelu(s, x),
            Self::GeluTanh => {
                // 0.5 (1 + tanh u) = sigmoid(2u), u = √(2/π) (x + 0.044715 x³)
                let cubic = s.fma(s.mul(x, x), s.splat(0.071_354_81), s.splat(1.595_769));
                s.mul(x, sigmoid(s, s.mul(x, cubic)))
            }
            Self::QuickGelu => s.mul(x, sigmoid(s, s.mul(x, s.splat(1.702)))),
            Self::Relu => s.max(s.zero(), x),
        }
    }
}

/// `e^x`; 0 below -104, infinity above 89.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    exps(s, [x])[0]
}

/// [`exp`] of some vectors side by side: each waits for its own operations only, and constants are read once for all.
#[inline(always)]
pub(crate) fn exps<S: Simd, const N: usize>(s: S, mut x: [S::V; N]) -> [S::V; N] {
    let (mut n, mut p) = ([s.zero(); N], [s.splat(1.987_569_1e-4); N]);
    for (x, n) in x.iter_mut().zip(&mut n) {
        *x = s.min(s.splat(89.5), s.max(s.splat(-104.5), *x));
        *n = s.round(s.mul(*x, s.splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts, the first exact in products with |n| < 2^8
        *x = s.nfma(*n, s.splat(0.693_359_4), *x);
        *x = s.nfma(*n, s.splat(-2.121_944_4e-4), *x);
    }
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        for (p, r) in p.iter_mut().zip(x) {
            *p = s.fma(*p, r, s.splat(c));
        }
    }
    for ((p, r), n) in p.iter_mut().zip(x).zip(n) {
        *p = s.scale2(s.add(s.fma(*p, s.mul(r, r), r), s.splat(1.0)), n);
    }
    p
}

/// `1 / (1 + e^-x)`, to a few units in the last place of the larger of it and 2⁻²⁴.
///
/// `e^-x` is taken as a power of two of a rounded exponent: what that loses for large `|x|` is far below the sum with 1, or the result.
#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    sigmoids(s, [x])[0]
}

/// The same of some vectors side by side, as in [`exps`].
#[inline(always)]
fn sigmoids<S: Simd, const N: usize>(s: S, x: [S::V; N]) -> [S::V; N] {
    let (mut n, mut f, mut p) = ([s.zero(); N], x, [s.splat(1.326_472_7e-3); N]);
    for (f, n) in f.iter_mut().zip(&mut n) {
        // Kept below 2^124, so that the reciprocal stays a normal number, and finite, so that the fraction is one.
        let y = s.mul(*f, s.splat(-std::f32::consts::LOG2_E));
        let y = s.min(s.splat(124.0), s.max(s.splat(-250.0), y));
        *n = s.round(y);
        *f = s.sub(y, *n);
    }
    // Coefficients of 2^f by least relative error; the linear one is near ln 2, not equal to it.
    #[allow(clippy::approx_constant)]
    let powers = [9.671_513e-3, 5.550_733_6e-2, 2.402_224_2e-1, 6.931_47e-1, 1.0];
    for c in powers {
        for (p, f) in p.iter_mut().zip(f) {
            *p = s.fma(*p, f, s.splat(c));
        }
    }
    for (p, n) in p.iter_mut().zip(n) {
        *p = s.recip(s.add(s.splat(1.0), s.scale2(*p, n)));
    }
    p
}

/// SiLU of some vectors, two side by side: four want more registers than AVX2 has.
#[inline(always)]
pub(crate) fn silus<S: Simd, const N: usize>(s: S, mut x: [S::V; N]) -> [S::V; N] {
    let (pairs, rest) = x.as_chunks_mut::<2>();
    for pair in pairs {
        let gates = sigmoids(s, *pair);
        for (x, gate) in pair.iter_mut().zip(gates) {
            *x = s.mul(*x, gate);
        }
    }
    for x in rest {
        *x = s.mul(*x, sigmoid(s, *x));
    }
    x
}

/// `x Φ(x)` with Φ(-|x|) = ½ erfc(|x|/√2) by Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7).
#[inline(always)]
fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let z = s.mul(s.where_negative(x, s.sub(s.zero(), x), x), s.splat(std::f32::consts::FRAC_1_SQRT_2));
    let z = s.min(s.splat(20.0), z);
    let t = s.recip(s.fma(z, s.splat(0.327_591_1), s.splat(1.0)));
    let mut p = s.splat(1.061_405_4);
    for c in [-1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6] {
        p = s.fma(p, t, s.splat(c));
    }
    let tail = s.mul(s.mul(p, t), s.mul(s.splat(0.5), exp(s, s.sub(s.zero(), s.mul(z, z)))));
    s.mul(x, s.where_negative(x, tail, s.sub(s.splat(1.0), tail)))
}
