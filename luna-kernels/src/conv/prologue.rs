//! What is done to a pixel as it is read: norm and activation.
//!
//! Enters: an input image with its norm. Leaves: lanes of prepared channels. The two combinations are types of their own, so that the
//! inner loops hold the norm in registers and decide nothing.

use super::ConvInput;
use crate::scalar::Scalar;
use crate::simd::Simd;
use crate::simd::math::{Activation, silus};
use std::marker::PhantomData;

/// Prepares `LANES` channels of one image, the same channels for every pixel.
pub(super) trait Prologue<S: Simd>: Copy {
    /// For channels `c..c + lanes` of image `image`.
    fn new<T: Scalar>(s: S, x: &ConvInput<'_, T>, image: usize, c: usize, lanes: usize) -> Self;
    /// Applies norm and activation to the channels of some pixels.
    fn apply<const N: usize>(self, s: S, v: [S::V; N]) -> [S::V; N];
}

/// Nothing.
#[derive(Clone, Copy)]
pub(super) struct Plain<S>(PhantomData<S>);

impl<S: Simd> Prologue<S> for Plain<S> {
    #[inline(always)]
    fn new<T: Scalar>(_: S, _: &ConvInput<'_, T>, _: usize, _: usize, _: usize) -> Self {
        Self(PhantomData)
    }
    #[inline(always)]
    fn apply<const N: usize>(self, _: S, v: [S::V; N]) -> [S::V; N] {
        v
    }
}

/// A norm, if there is one, and SiLU.
pub(super) struct NormSilu<S: Simd> {
    scale: S::V,
    shift: S::V,
}

impl<S: Simd> Clone for NormSilu<S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Simd> Copy for NormSilu<S> {}

impl<S: Simd> Prologue<S> for NormSilu<S> {
    #[inline(always)]
    fn new<T: Scalar>(s: S, x: &ConvInput<'_, T>, image: usize, c: usize, lanes: usize) -> Self {
        let (scale, shift) = affine(s, x, image, c, lanes);
        Self { scale, shift }
    }
    #[inline(always)]
    fn apply<const N: usize>(self, s: S, mut v: [S::V; N]) -> [S::V; N] {
        for v in &mut v {
            *v = s.fma(*v, self.scale, self.shift);
        }
        silus(s, v)
    }
}

/// Scale and shift of some channels; 1 and 0 without a norm.
#[inline(always)]
fn affine<S: Simd, T: Scalar>(s: S, x: &ConvInput<'_, T>, image: usize, c: usize, lanes: usize) -> (S::V, S::V) {
    let Some(norm) = x.norm else { return (s.splat(1.0), s.zero()) };
    let at = image * (norm.scale.len() / x.b) + c;
    let (scale, shift) = (&norm.scale[at..at + lanes], &norm.shift[at..at + lanes]);
    // SAFETY: both slices hold `lanes` values.
    unsafe { (s.load_head(scale.as_ptr(), lanes), s.load_head(shift.as_ptr(), lanes)) }
}

impl<T> ConvInput<'_, T> {
    /// Whether pixels are prepared as they are read: not at all, or by a norm (if there is one) and SiLU. Every other combination, which no
    /// model uses at speed, is prepared in a copy beforehand, lest the inner loops carry code for all of them.
    pub(crate) fn prepared_while_read(&self) -> bool {
        self.activation == Activation::Silu || (self.norm.is_none() && self.activation == Activation::None)
    }
}

impl<T: Scalar> ConvInput<'_, T> {
    /// Reads `lanes` channels from `c` on of pixel number `pixel`, prepared by `prologue`.
    ///
    /// # Safety
    /// `prologue` belongs to these channels, the pixel lies in the data, and `c + lanes <= cin`, `lanes <= LANES`.
    #[inline(always)]
    pub(super) unsafe fn prepared<S: Simd, P: Prologue<S>>(
        &self,
        s: S,
        prologue: P,
        pixel: usize,
        cin: usize,
        c: usize,
        lanes: usize,
    ) -> S::V {
        debug_assert!(pixel * cin + c + lanes <= self.data.len());
        // SAFETY: the caller's promise.
        unsafe {
            let at = self.data.as_ptr().add(pixel * cin + c);
            let v = if lanes == S::LANES { T::load(s, at) } else { T::load_head(s, at, lanes) };
            prologue.apply(s, [v])[0]
        }
    }
}
