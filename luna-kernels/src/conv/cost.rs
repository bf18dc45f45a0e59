//! Which algorithm a convolution takes.
//!
//! Enters: the shapes of a layer. Leaves: the cheaper algorithm, by counts of work with measured weights.

use super::narrow::Narrow;
use super::winograd::{Winograd, keeps_weights};
use super::{ConvInput, PackedConv};
use crate::panel::NR;
use crate::scalar::Scalar;

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// A matrix product over patches gathered as it goes.
    Implicit,
    /// Minimal filtering of 3×3 kernels, in tiles of 4×4 outputs.
    Winograd,
    /// The same in tiles of 6×6.
    LargeWinograd,
    /// A dot product for each output, of which there are few to a pixel.
    Narrow,
}

/// The cheaper algorithm for a layer.
pub(super) fn choose<T: Scalar>(x: &ConvInput<'_, T>, w: &PackedConv) -> Algorithm {
    if Narrow::<T>::applies(w.shape) {
        return Algorithm::Narrow;
    }
    if !Winograd::applies(x, w.shape, w.dtype()) {
        return Algorithm::Implicit;
    }
    let (_, ho, wo) = x.output(w.shape);
    let (channels, panels) = (w.shape.cin as f64, w.shape.cout.div_ceil(NR) as f64);
    // In units of one row of a panel (32 multiply-adds); transforms as measured on AVX-512 and AVX2.
    let pixels = (x.b * ho * wo) as f64;
    let implicit = pixels * 9.0 * channels * (panels + 0.5);
    let (tiles, positions) = if x.upsample {
        ((x.b * (ho + 1).div_ceil(6) * (wo + 1).div_ceil(6)) as f64, 49.0)
    } else {
        ((x.b * ho.div_ceil(4) * wo.div_ceil(4)) as f64, 36.0)
    };
    let transforms = tiles * (channels * 25.0 + panels * 200.0) + (tiles / 84.0).ceil() * panels * channels * 150.0;
    let winograd = tiles * positions * channels * panels + transforms;
    if winograd > implicit {
        return Algorithm::Implicit;
    }
    // Where weights are transformed again and again, the large tiles' work on those is what they save.
    let large_tiles = x.b * ho.div_ceil(6) * wo.div_ceil(6);
    let large = Winograd::has_large(x)
        && keeps_weights(w.shape, 64, large_tiles)
        && (large_tiles * 64) as f64 <= 0.95 * tiles * positions;
    if large { Algorithm::LargeWinograd } else { Algorithm::Winograd }
}
