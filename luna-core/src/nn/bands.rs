//! Layers of residual blocks over a band of rows at a time, so that whole images of them need not be held.

use super::{
    Activation, GroupNorm, Pass, Tensor,
    conv::Packed,
    cpu::{Element, View},
    frozen::FrozenLayer,
};
use crate::Result;
use luna_kernels::{ChannelAffine, ConvInput, Epilogue, PackedConv};
use std::ops::Range;

/// From which sizes on images are not held whole, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BandSizes {
    /// Doubled images that are made twice instead of held.
    pub(crate) doubled: usize,
    /// Images of which a block holds no second one: what it lacks of it is made twice.
    pub(crate) spared: usize,
    /// A band.
    pub(crate) band: usize,
}

impl BandSizes {
    /// From the fastest to the one that needs the least memory.
    pub(crate) const ALL: [Self; 3] = [Self::WHOLE, Self::DOUBLED, Self::SPARED];
    /// Every image is held.
    pub(crate) const WHOLE: Self = Self { doubled: usize::MAX, spared: usize::MAX, band: BAND };
    /// Large doubled images are made twice: about a tenth more work for a decoder.
    const DOUBLED: Self = Self { doubled: 128 << 20, ..Self::WHOLE };
    /// No second image is held beside a large one: about a third more work.
    pub(crate) const SPARED: Self = Self { spared: 256 << 20, ..Self::DOUBLED };
}

const BAND: usize = 16 << 20;

/// A convolution after a norm and SiLU, or of the doubled image as it is.
pub(super) struct Stage<'a> {
    layer: &'a FrozenLayer,
    pub(super) conv: &'a PackedConv,
    bias: Option<Vec<f32>>,
    norm: Option<Norm>,
}

struct Norm {
    groups: usize,
    eps: f32,
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

/// Rows of an image, of which some are computed. Padding stands at the ends of `data` only.
pub(super) struct Band<'a, T> {
    pub(super) data: &'a [T],
    /// Of an input row.
    pub(super) width: usize,
    pub(super) affine: Option<&'a ChannelAffine>,
    /// Which output rows, counted from that of the first row of `data`.
    pub(super) rows: Range<usize>,
}

impl<'a> Stage<'a> {
    pub(super) fn of(packed: Packed<'a, PackedConv>, norm: Option<&GroupNorm>, pass: &Pass) -> Result<Self> {
        let Packed { layer, weight: conv, bias } = packed;
        let norm = norm.map(|norm| -> Result<Norm> {
            let [gamma, beta] = [values(&norm.gamma(pass)?)?, values(&norm.beta(pass)?)?];
            Ok(Norm { groups: norm.groups, eps: norm.eps, gamma, beta })
        });
        Ok(Self { layer, conv, bias: bias.map(values).transpose()?, norm: norm.transpose()? })
    }

    /// The norm before the convolution.
    pub(super) fn norm(&self) -> luna_kernels::GroupNorm<'_> {
        let Norm { groups, eps, gamma, beta } = self.norm.as_ref().expect("asked only where there is one");
        luna_kernels::GroupNorm { groups: *groups, eps: *eps, gamma, beta }
    }

    /// Writes the rows to `out`, or adds them to it.
    pub(super) fn write<T: Element>(&self, band: Band<T>, out: &mut [T], onto: bool, pass: &Pass) -> Result<()> {
        let height = band.data.len() / (band.width * self.conv.shape().cin);
        let input = ConvInput {
            norm: band.affine,
            activation: if self.norm.is_some() { Activation::Silu } else { Activation::None },
            upsample: self.norm.is_none(),
            rows: Some((band.rows.start, band.rows.len())),
            ..ConvInput::new(band.data, 1, height, band.width)
        };
        let epilogue = Epilogue { bias: self.bias.as_deref(), accumulate: onto, ..Epilogue::default() };
        pass.timed(self.layer, out.len() / self.conv.shape().cout, || {
            luna_kernels::conv2d(&input, self.conv, out, &epilogue, &pass.cx());
            pass.check()
        })
    }
}

/// A small f32 tensor's elements.
pub(super) fn values(x: &Tensor) -> Result<Vec<f32>> {
    Ok(View::<f32>::of(x)?.to_vec())
}
