//! Rotary position embedding.
//!
//! Enters: heads of tokens and a table of cosines and sines. Leaves: the heads rotated in place. It must not know where the angles come from.

use crate::scalar::Scalar;
use rayon::prelude::*;

/// Which two elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotaryLayout {
    /// Elements `2i` and `2i + 1` (Flux, GPT-J).
    Interleaved,
    /// Elements `i` and `i + rotary/2` (Llama, NeoX, Qwen).
    HalfSplit,
}

/// Angles of a rotary embedding and how to apply them.
#[derive(Clone, Copy, Debug)]
pub struct Rotary<'a> {
    /// Cosines, `[tokens, rotary/2]`.
    pub cos: &'a [f32],
    /// Sines, `[tokens, rotary/2]`.
    pub sin: &'a [f32],
    /// Elements of each head that turn, from the first on; even.
    pub rotary: usize,
    /// Which elements pair up.
    pub layout: RotaryLayout,
}

/// Tokens to rotate: `b · tokens` rows, `stride` elements apart, with `heads` heads of `dim` elements at the front of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotaryShape {
    /// Tokens of a sequence; the angles repeat for each sequence.
    pub tokens: usize,
    /// Heads of a token.
    pub heads: usize,
    /// Width of a head.
    pub dim: usize,
    /// Elements from one token to the next.
    pub stride: usize,
}

/// Rotates the heads of `x` in place.
///
/// # Panics
/// If a slice does not have the size its shape says.
pub fn rotate<T: Scalar>(x: &mut [T], shape: RotaryShape, rotary: &Rotary<'_>) {
    T::rotate(x, shape, rotary);
}

/// [`rotate`], compiled once for each element type.
pub(crate) fn rotate_of<T: Scalar>(x: &mut [T], shape: RotaryShape, rotary: &Rotary<'_>) {
    let RotaryShape { tokens, heads, dim, stride } = shape;
    let half = rotary.rotary / 2;
    assert!(
        rotary.rotary.is_multiple_of(2) && rotary.rotary <= dim && heads * dim <= stride,
        "rotary {} of {dim}, stride {stride}",
        rotary.rotary
    );
    assert!(
        rotary.cos.len() == tokens * half && rotary.sin.len() == tokens * half,
        "angles must be [tokens, rotary/2] = [{tokens}, {half}]"
    );
    if stride == 0 || tokens == 0 {
        return;
    }
    x.par_chunks_mut(stride).with_min_len(16).enumerate().for_each(|(row, x)| {
        let at = row % tokens * half;
        let angles = rotary.cos[at..at + half].iter().zip(&rotary.sin[at..at + half]);
        for head in x[..heads * dim].chunks_exact_mut(dim) {
            for (i, (&cos, &sin)) in angles.clone().enumerate() {
                let (first, second) = match rotary.layout {
                    RotaryLayout::Interleaved => (2 * i, 2 * i + 1),
                    RotaryLayout::HalfSplit => (i, i + half),
                };
                let (a, b) = (head[first].to_f32(), head[second].to_f32());
                head[first] = T::from_f32(a * cos - b * sin);
                head[second] = T::from_f32(b * cos + a * sin);
            }
        }
    });
}
