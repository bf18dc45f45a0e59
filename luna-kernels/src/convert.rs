//! Conversions between element types.
//!
//! Enters: activations of one type, or stored weights. Leaves: activations of another, rounded to nearest even.

use crate::elementwise::{CHUNK, read, write};
use crate::isa::{Context, Kernel};
use crate::quantised::widen_blocks;
use crate::scalar::Scalar;
use crate::simd::Simd;
use crate::weight::WeightView;
use rayon::prelude::*;

/// Converts between activation types, rounding to nearest even.
///
/// # Panics
/// If the lengths differ.
pub fn convert<A: Scalar, B: Scalar>(from: &[A], to: &mut [B], cx: &Context<'_>) {
    assert_eq!(from.len(), to.len(), "source and target must have the same size");
    to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| cx.isa().run(Convert { from, to }));
}

struct Convert<'a, A, B> {
    from: &'a [A],
    to: &'a mut [B],
}

impl<A: Scalar, B: Scalar> Kernel for Convert<'_, A, B> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut j = 0;
        while j < self.to.len() {
            let lanes = S::LANES.min(self.to.len() - j);
            // SAFETY: both slices hold `lanes` elements from `j` on.
            unsafe { write(s, self.to, j, lanes, read(s, self.from, j, lanes)) };
            j += S::LANES;
        }
    }
}

/// Widens or rounds stored weights (any type, any alignment) to activations.
///
/// # Panics
/// If the lengths differ.
pub fn convert_weights<T: Scalar>(from: WeightView<'_>, to: &mut [T], cx: &Context<'_>) {
    T::convert_weights(from, to, cx);
}

/// [`convert_weights`], compiled once for each element type.
pub(crate) fn convert_weights_of<T: Scalar>(from: WeightView<'_>, to: &mut [T], cx: &Context<'_>) {
    assert_eq!(
        Some(from.bytes.len()),
        from.dtype.bytes(to.len()),
        "source and target must have the same number of elements"
    );
    if from.dtype.is_quantised() {
        let (block, size) = (from.dtype.block(), from.dtype.block_bytes());
        to.par_chunks_mut(block).zip(from.bytes.par_chunks(size)).for_each(|(to, bytes)| {
            let mut values = [0.0; 256];
            widen_blocks(from.dtype, bytes, &mut values[..block]);
            to.iter_mut().zip(values).for_each(|(to, value)| *to = T::from_f32(value));
        });
        return;
    }
    let size = from.dtype.size();
    to.par_chunks_mut(CHUNK).zip(from.bytes.par_chunks(CHUNK * size)).for_each(|(to, bytes)| {
        cx.isa().run(ConvertWeights { from: WeightView { dtype: from.dtype, bytes }, to });
    });
}

struct ConvertWeights<'a, T> {
    from: WeightView<'a>,
    to: &'a mut [T],
}

impl<T: Scalar> Kernel for ConvertWeights<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let WeightView { dtype, bytes } = self.from;
        let whole = self.to.len() / S::LANES * S::LANES;
        let mut j = 0;
        while j < whole {
            // SAFETY: `LANES` elements from `j` on are there in both; the reads need no alignment.
            unsafe {
                let at = bytes.as_ptr().add(j * dtype.size());
                let v = dtype.load(s, at);
                T::store(s, self.to.as_mut_ptr().add(j), v);
            }
            j += S::LANES;
        }
        for (to, bytes) in self.to[whole..].iter_mut().zip(bytes[whole * dtype.size()..].chunks_exact(dtype.size())) {
            *to = T::from_f32(dtype.widen(bytes));
        }
    }
}
