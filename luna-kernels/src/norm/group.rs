//! Group norm.
//!
//! Enters: channels-last activations. Leaves: one scale and shift per channel, which the next convolution applies as it reads, or the
//! activations with them applied.

use super::CHUNK;
use crate::isa::{Context, Kernel};
use crate::scalar::Scalar;
use crate::simd::Simd;
use crate::simd::math::Activation;
use rayon::prelude::*;

/// A scale and a shift per image and channel: `y = x · scale + shift`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelAffine {
    /// `[b, c]`.
    pub scale: Vec<f32>,
    /// `[b, c]`.
    pub shift: Vec<f32>,
}

/// Parameters of a group norm over `c` channels.
#[derive(Clone, Copy, Debug)]
pub struct GroupNorm<'a> {
    /// Groups; divides `c`.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// `[c]`.
    pub gamma: &'a [f32],
    /// `[c]`.
    pub beta: &'a [f32],
}

/// Computes a group norm over `x`, `[b, hw, c]`, as a scale and shift per channel.
///
/// Sums are taken of the differences to each channel's first value and combined in f64, so a mean that is large against the deviation
/// costs no accuracy.
///
/// # Panics
/// If a slice does not have the size its shape says, or `groups` does not divide `c`.
pub fn group_norm_affine<T: Scalar>(
    x: &[T],
    b: usize,
    hw: usize,
    norm: &GroupNorm<'_>,
    cx: &Context<'_>,
) -> ChannelAffine {
    T::group_norm_affine(x, b, hw, norm, cx)
}

/// [`group_norm_affine`], compiled once for each element type.
pub(crate) fn group_norm_affine_of<T: Scalar>(
    x: &[T],
    b: usize,
    hw: usize,
    norm: &GroupNorm<'_>,
    cx: &Context<'_>,
) -> ChannelAffine {
    let c = norm.gamma.len();
    assert_eq!(x.len(), b * hw * c, "input must be [b, hw, c] = [{b}, {hw}, {c}]");
    assert_eq!(norm.beta.len(), c, "gamma and beta must both hold c values");
    assert!(norm.groups > 0 && c.is_multiple_of(norm.groups), "{} groups do not divide {c} channels", norm.groups);
    let mut affine = ChannelAffine { scale: vec![0.0; b * c], shift: vec![0.0; b * c] };
    if x.is_empty() {
        return affine;
    }
    for image in 0..b {
        let mut moments = GroupMoments::default();
        add_moments_of(&mut moments, &x[image * hw * c..][..hw * c], c, cx);
        let (scale, shift) = (&mut affine.scale[image * c..][..c], &mut affine.shift[image * c..][..c]);
        moments.into_affine(norm, scale, shift);
    }
    affine
}

/// The statistics of a group norm over one image that is seen a band at a time.
///
/// ```
/// use luna_kernels::{Context, GroupMoments, GroupNorm, Workspace, group_norm_affine};
///
/// let (workspace, x) = (Workspace::new(), [1.0f32, 5.0, 3.0, 7.0, 8.0, 0.0]); // three pixels of two channels
/// let cx = Context::new(&workspace);
/// let norm = GroupNorm { groups: 1, eps: 1e-6, gamma: &[1.0, 2.0], beta: &[0.0, 0.5] };
/// let mut moments = GroupMoments::default();
/// x.chunks(4).for_each(|band| moments.add(band, 2, &cx));
/// let (bands, whole) = (moments.affine(&norm), group_norm_affine(&x, 1, 3, &norm, &cx));
/// assert!(bands.scale.iter().zip(&whole.scale).all(|(a, b)| (a - b).abs() < 1e-6));
/// ```
#[derive(Clone, Debug, Default)]
pub struct GroupMoments {
    pixels: usize,
    /// The first pixel; sums are taken of the differences to it.
    pilot: Vec<f32>,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl GroupMoments {
    /// Adds pixels of `c` channels, the same number each time.
    ///
    /// # Panics
    /// If `band` is not whole pixels, or an earlier band had another number of channels.
    pub fn add<T: Scalar>(&mut self, band: &[T], c: usize, cx: &Context<'_>) {
        T::add_moments(self, band, c, cx);
    }

    /// The norm of all that was added, as a scale and shift per channel.
    ///
    /// # Panics
    /// If nothing was added, or the norm is of another number of channels.
    pub fn affine(self, norm: &GroupNorm<'_>) -> ChannelAffine {
        let c = norm.gamma.len();
        assert!(self.pixels > 0 && self.pilot.len() == c && norm.beta.len() == c, "pixels of {c} channels");
        assert!(norm.groups > 0 && c.is_multiple_of(norm.groups), "{} groups do not divide {c} channels", norm.groups);
        let mut affine = ChannelAffine { scale: vec![0.0; c], shift: vec![0.0; c] };
        self.into_affine(norm, &mut affine.scale, &mut affine.shift);
        affine
    }
}

/// [`GroupMoments::add`], compiled once for each element type.
pub(crate) fn add_moments_of<T: Scalar>(moments: &mut GroupMoments, x: &[T], c: usize, cx: &Context<'_>) {
    assert!(c > 0 && x.len().is_multiple_of(c), "whole pixels of {c} channels");
    if x.is_empty() {
        return;
    }
    if moments.pixels == 0 {
        moments.pilot = x[..c].iter().map(|v| v.to_f32()).collect();
        (moments.sum, moments.squares) = (vec![0.0; c], vec![0.0; c]);
    }
    assert_eq!(moments.pilot.len(), c, "bands have the same number of channels");
    moments.pixels += x.len() / c;
    let (pilot, rows) = (&moments.pilot, (CHUNK / c).max(1));
    let zero = || (vec![0.0; c], vec![0.0; c]);
    let (sum, squares) = x
        .par_chunks(rows * c)
        .fold(zero, |(mut sum, mut squares), chunk| {
            if !cx.interrupted() {
                cx.isa().run(Sums { x: chunk, pilot, sum: &mut sum, squares: &mut squares });
            }
            (sum, squares)
        })
        .reduce(zero, |mut a, b| {
            a.0.iter_mut().zip(&b.0).for_each(|(a, b)| *a += b);
            a.1.iter_mut().zip(&b.1).for_each(|(a, b)| *a += b);
            a
        });
    moments.sum.iter_mut().zip(&sum).for_each(|(a, b)| *a += b);
    moments.squares.iter_mut().zip(&squares).for_each(|(a, b)| *a += b);
}

impl GroupMoments {
    fn into_affine(self, norm: &GroupNorm<'_>, scale: &mut [f32], shift: &mut [f32]) {
        let (width, n) = (scale.len() / norm.groups, self.pixels as f64);
        for group in 0..norm.groups {
            let channels = group * width..(group + 1) * width;
            let channel_mean = |i: usize| f64::from(self.pilot[i]) + self.sum[i] / n;
            let mean = channels.clone().map(channel_mean).sum::<f64>() / width as f64;
            // Spread within each channel about its own mean, plus that of the channel means.
            let within = |i: usize| (self.squares[i] - self.sum[i] * self.sum[i] / n).max(0.0);
            let spread = |i: usize| within(i) / n + (channel_mean(i) - mean).powi(2);
            let spread_nan = |i: usize| {
                if self.squares[i].is_finite() { spread(i) } else { f64::NAN }
            };
            let variance = channels.clone().map(spread_nan).sum::<f64>() / width as f64;
            let inverse = 1.0 / (variance + f64::from(norm.eps)).sqrt();
            for i in channels {
                let factor = inverse * f64::from(norm.gamma[i]);
                scale[i] = factor as f32;
                shift[i] = (f64::from(norm.beta[i]) - mean * factor) as f32;
            }
        }
    }
}

/// Adds a chunk's sums to `sum` and `squares`; short runs in f32, runs joined in f64.
struct Sums<'a, T> {
    x: &'a [T],
    pilot: &'a [f32],
    sum: &'a mut [f64],
    squares: &'a mut [f64],
}

impl<T: Scalar> Kernel for Sums<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let c = self.pilot.len();
        for run in self.x.chunks(64 * c) {
            let mut j = 0;
            while j < c {
                let lanes = S::LANES.min(c - j);
                // SAFETY: each row of the run and the pilot hold `lanes` values from `j` on; the arrays hold a whole vector.
                unsafe {
                    let pilot = s.load_head(self.pilot.as_ptr().add(j), lanes);
                    let (mut sum, mut squares) = (s.zero(), s.zero());
                    for row in 0..run.len() / c {
                        let at = run.as_ptr().add(row * c + j);
                        let v = if lanes == S::LANES { T::load(s, at) } else { T::load_head(s, at, lanes) };
                        let d = s.sub(v, pilot);
                        sum = s.add(sum, d);
                        squares = s.fma(d, d, squares);
                    }
                    let (mut a, mut b) = ([0.0f32; 16], [0.0f32; 16]);
                    s.store(a.as_mut_ptr(), sum);
                    s.store(b.as_mut_ptr(), squares);
                    for i in 0..lanes {
                        self.sum[j + i] += f64::from(a[i]);
                        self.squares[j + i] += f64::from(b[i]);
                    }
                }
                j += S::LANES;
            }
        }
    }
}

/// `out = activation(x · scale + shift)` over `[b, hw, c]`.
///
/// # Panics
/// If a slice does not have the size its shape says.
pub fn apply_affine<T: Scalar>(
    x: &[T],
    out: &mut [T],
    b: usize,
    affine: &ChannelAffine,
    activation: Activation,
    cx: &Context<'_>,
) {
    T::apply_affine(x, out, b, affine, activation, cx);
}

/// [`apply_affine`], compiled once for each element type.
pub(crate) fn apply_affine_of<T: Scalar>(
    x: &[T],
    out: &mut [T],
    b: usize,
    affine: &ChannelAffine,
    activation: Activation,
    cx: &Context<'_>,
) {
    assert_eq!(x.len(), out.len(), "input and output must have the same size");
    if x.is_empty() {
        return;
    }
    let c = affine.scale.len() / b;
    assert!(
        affine.scale.len() == b * c && affine.shift.len() == b * c && x.len().is_multiple_of(b * c),
        "affine must hold [b, c] values"
    );
    let (image_len, rows) = (x.len() / b, (CHUNK / c).max(1));
    out.par_chunks_mut(image_len).zip(x.par_chunks(image_len)).enumerate().for_each(|(image, (out, x))| {
        out.par_chunks_mut(rows * c).zip(x.par_chunks(rows * c)).for_each(|(out, x)| {
            if !cx.interrupted() {
                let (scale, shift) = (&affine.scale[image * c..][..c], &affine.shift[image * c..][..c]);
                cx.isa().run(Affine { x, out, scale, shift, activation });
            }
        });
    });
}

struct Affine<'a, T> {
    x: &'a [T],
    out: &'a mut [T],
    scale: &'a [f32],
    shift: &'a [f32],
    activation: Activation,
}

impl<T: Scalar> Kernel for Affine<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let c = self.scale.len();
        for (x, out) in self.x.chunks_exact(c).zip(self.out.chunks_exact_mut(c)) {
            let mut j = 0;
            while j < c {
                let lanes = S::LANES.min(c - j);
                // SAFETY: all four rows hold `lanes` values from `j` on.
                unsafe {
                    let (from, to) = (x.as_ptr().add(j), out.as_mut_ptr().add(j));
                    let (scale, shift) = (self.scale.as_ptr().add(j), self.shift.as_ptr().add(j));
                    if lanes == S::LANES {
                        let v = s.fma(T::load(s, from), s.load(scale), s.load(shift));
                        T::store(s, to, self.activation.apply(s, v));
                    } else {
                        let v =
                            s.fma(T::load_head(s, from, lanes), s.load_head(scale, lanes), s.load_head(shift, lanes));
                        T::store_head(s, to, self.activation.apply(s, v), lanes);
                    }
                }
                j += S::LANES;
            }
        }
    }
}
