//! The arithmetic of Winograd tiles, in one dimension.
//!
//! Enters: lanes of inputs, weights or products. Leaves: lanes of their transforms. A tile of `M` outputs needs `Q` products instead of
//! `M` times the taps; the transforms are applied along rows, then along columns.

use crate::simd::Simd;

/// Transforms of a tile with `A` inputs, `Q` products and `M` outputs per dimension.
pub(super) trait Tile<const A: usize, const Q: usize, const M: usize>: Copy + Send + Sync {
    /// Input pixels from one tile to the next.
    const STEP: usize = M;
    /// From `A` neighbouring inputs.
    fn input<S: Simd>(s: S, d: [S::V; A]) -> [S::V; A];
    /// From the three taps of the convolution.
    fn weights<S: Simd>(s: S, g: [S::V; 3]) -> [S::V; Q];
    /// Which of the transformed inputs is a factor of a product.
    #[inline(always)]
    fn factor(product: usize) -> usize {
        product
    }
    /// To `M` neighbouring outputs.
    fn output<S: Simd>(s: S, m: [S::V; Q]) -> [S::V; M];
}

/// F(4, 3): 36 products give 4×4 outputs of a 3×3 convolution, a quarter of the direct 144.
///
/// The points 0, ±√½, ±√2, ∞ leave half the rounding error of the usual 0, ±1, ±2, ∞.
#[derive(Clone, Copy)]
pub(super) struct Same;

const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;

impl Tile<6, 6, 4> for Same {
    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; 6]) -> [S::V; 6] {
        let (a, b, two, half, mid) = (s.splat(A), s.splat(B), s.splat(2.0), s.splat(0.5), s.splat(2.5));
        let even_a = s.nfma(two, d[2], d[4]);
        let odd_a = s.nfma(two, d[1], d[3]);
        let even_b = s.nfma(half, d[2], d[4]);
        let odd_b = s.nfma(half, d[1], d[3]);
        [
            s.nfma(mid, d[2], s.add(d[0], d[4])),
            s.fma(a, odd_a, even_a),
            s.nfma(a, odd_a, even_a),
            s.fma(b, odd_b, even_b),
            s.nfma(b, odd_b, even_b),
            s.nfma(mid, d[3], s.add(d[1], d[5])),
        ]
    }

    #[inline(always)]
    fn weights<S: Simd>(s: S, g: [S::V; 3]) -> [S::V; 6] {
        let even_a = s.fma(g[2], s.splat(-1.0 / 3.0), s.mul(g[0], s.splat(-2.0 / 3.0)));
        let odd_a = s.mul(g[1], s.splat(-A / 1.5));
        let even_b = s.fma(g[2], s.splat(1.0 / 3.0), s.mul(g[0], s.splat(1.0 / 6.0)));
        let odd_b = s.mul(g[1], s.splat(B / 6.0));
        [g[0], s.add(even_a, odd_a), s.sub(even_a, odd_a), s.add(even_b, odd_b), s.sub(even_b, odd_b), g[2]]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 6]) -> [S::V; 4] {
        let (even_a, odd_a) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
        let (even_b, odd_b) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
        [
            s.add(m[0], s.add(even_a, even_b)),
            s.fma(odd_a, s.splat(A), s.mul(odd_b, s.splat(B))),
            s.fma(even_a, s.splat(0.5), s.mul(even_b, s.splat(2.0))),
            s.fma(odd_a, s.splat(A * 0.5), s.fma(odd_b, s.splat(B * 2.0), m[5])),
        ]
    }
}

/// F(6, 3): 64 products give 6×6 outputs of a 3×3 convolution, where F(4, 3) takes 81 and the direct way 324.
///
/// Points 0, ±1, ±2, ±½, ∞; none of 300 others tried left a smaller rounding error, which is four times that of F(4, 3).
#[derive(Clone, Copy)]
pub(super) struct Large;

impl Tile<8, 8, 6> for Large {
    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; 8]) -> [S::V; 8] {
        let (two, half, four, quarter) = (s.splat(2.0), s.splat(0.5), s.splat(4.0), s.splat(0.25));
        let (ends, at_1, at_2, at_half) = (s.splat(5.25), s.splat(4.25), s.splat(1.25), s.splat(5.0));
        let even_1 = s.nfma(at_1, d[4], s.add(d[2], d[6]));
        let odd_1 = s.nfma(at_1, d[3], s.add(d[1], d[5]));
        let even_2 = s.nfma(at_2, d[4], s.fma(quarter, d[2], d[6]));
        let odd_2 = s.nfma(at_2, d[3], s.fma(quarter, d[1], d[5]));
        let even_half = s.nfma(at_half, d[4], s.fma(four, d[2], d[6]));
        let odd_half = s.nfma(at_half, d[3], s.fma(four, d[1], d[5]));
        [
            s.fma(ends, s.sub(d[2], d[4]), s.sub(d[6], d[0])),
            s.add(even_1, odd_1),
            s.sub(even_1, odd_1),
            s.fma(two, odd_2, even_2),
            s.nfma(two, odd_2, even_2),
            s.fma(half, odd_half, even_half),
            s.nfma(half, odd_half, even_half),
            s.fma(ends, s.sub(d[3], d[5]), s.sub(d[7], d[1])),
        ]
    }

    #[inline(always)]
    fn weights<S: Simd>(s: S, g: [S::V; 3]) -> [S::V; 8] {
        let (plus_1, minus_1) = at_both(s, g, 1.0, -4.5);
        let (plus_2, minus_2) = at_both(s, g, 2.0, 90.0);
        let (plus_half, minus_half) = at_both(s, g, 0.5, 1.40625);
        [s.sub(s.zero(), g[0]), plus_1, minus_1, plus_2, minus_2, plus_half, minus_half, g[2]]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 8]) -> [S::V; 6] {
        let (even_1, odd_1) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
        let (even_2, odd_2) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
        let (even_half, odd_half) = (s.add(m[5], m[6]), s.sub(m[5], m[6]));
        [
            s.add(s.add(m[0], even_1), s.add(even_2, even_half)),
            s.fma(odd_2, s.splat(2.0), s.fma(odd_half, s.splat(0.5), odd_1)),
            s.fma(even_2, s.splat(4.0), s.fma(even_half, s.splat(0.25), even_1)),
            s.fma(odd_2, s.splat(8.0), s.fma(odd_half, s.splat(0.125), odd_1)),
            s.fma(even_2, s.splat(16.0), s.fma(even_half, s.splat(0.0625), even_1)),
            s.add(m[7], s.fma(odd_2, s.splat(32.0), s.fma(odd_half, s.splat(0.03125), odd_1))),
        ]
    }
}

/// `(g₀ ± p·g₁ + p²·g₂) / size`.
#[inline(always)]
fn at_both<S: Simd>(s: S, g: [S::V; 3], p: f32, size: f32) -> (S::V, S::V) {
    let even = s.fma(g[2], s.splat(p * p / size), s.mul(g[0], s.splat(1.0 / size)));
    let odd = s.mul(g[1], s.splat(p / size));
    (s.add(even, odd), s.sub(even, odd))
}

/// A 3×3 convolution of an image doubled by nearest neighbour: 49 products give 6×6 outputs, where F(6, 3) on the doubled image takes 64 and
/// the direct way 324.
///
/// Each output sees two source pixels per dimension only: even outputs `w₀ x₋₁ + (w₁+w₂) x₀`, odd ones `(w₀+w₁) x₀ + w₂ x₁`, so that three
/// neighbours of each kind are F(3, 2) of the same four pixels, if those that begin with an odd one are taken together. The two kinds
/// share the inputs' transforms and the product at the point 1, where both have the weight `w₀+w₁+w₂`. Points 0, ±1, ∞.
#[derive(Clone, Copy)]
pub(super) struct Doubled;

impl Tile<4, 7, 6> for Doubled {
    const STEP: usize = 3;

    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; 4]) -> [S::V; 4] {
        [s.sub(d[0], d[2]), s.add(d[1], d[2]), s.sub(d[2], d[1]), s.sub(d[3], d[1])]
    }

    #[inline(always)]
    fn weights<S: Simd>(s: S, g: [S::V; 3]) -> [S::V; 7] {
        let (odd, even) = ([s.add(g[0], g[1]), g[2]], [g[0], s.add(g[1], g[2])]);
        let half = |v: S::V| s.mul(v, s.splat(0.5));
        let both = half(s.add(even[0], even[1]));
        let [odd_less, even_less] = [odd, even].map(|[low, high]| half(s.sub(low, high)));
        [odd[0], even[0], both, odd_less, even_less, odd[1], even[1]]
    }

    #[inline(always)]
    fn factor(product: usize) -> usize {
        [0, 0, 1, 2, 2, 3, 3][product]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 7]) -> [S::V; 6] {
        let kind = |low: S::V, less: S::V, high: S::V| {
            let sum = s.add(m[2], less);
            [s.add(low, sum), s.sub(m[2], less), s.add(high, sum)]
        };
        let (odd, even) = (kind(m[0], m[3], m[5]), kind(m[1], m[4], m[6]));
        [odd[0], even[0], odd[1], even[1], odd[2], even[2]]
    }
}
