//! A residual block of a doubled image that is not worth holding: `block(conv(up(x)))`, a band of rows at a time.
//!
//! At the picture's end of a decoder the doubled image is the largest tensor by far, and only two layers read it. So it
//! is made twice, band by band: once for its norm's statistics and the shortcut, once for the first convolution. The
//! second time goes upwards, and what lies below is given back as it goes.

use super::{
    Activation, Conv2d, Pass, ResnetBlock, Tensor,
    cpu::{Element, View, dispatch, into_buffer, optional},
};
use crate::Result;
use candle_core::Device;
use luna_kernels::{ConvInput, Epilogue, GroupMoments, GroupNorm, PackedConv, PackedMatrix};

/// Doubled images of fewer bytes are held: a second making costs more than their memory is worth.
const WORTH_BANDS: usize = 128 << 20;

/// Bytes of a band.
const BAND: usize = 16 << 20;

impl ResnetBlock {
    /// The block over what `doubling` makes of `x` `[b, h, w, channels]` doubled: `[b, 2·h, 2·w, outputs]`. Takes `x`,
    /// so that its memory serves the layers after it. Counts two steps.
    pub(crate) fn forward_doubled(&self, doubling: &Conv2d, x: Tensor, pass: &Pass) -> Result<Tensor> {
        let (b, h, w, _) = x.dims4()?;
        let bytes = 4 * h * w * doubling.spec.outputs * x.dtype().size_in_bytes();
        let weights = self.shortcut.as_ref().and_then(|shortcut| {
            Some((doubling.packed(pass)?, self.conv1.packed(pass)?, shortcut.packed_matrix(pass)?))
        });
        let Some((doubling_weight, conv1, shortcut)) = weights.filter(|_| b == 1 && bytes >= WORTH_BANDS) else {
            return self.forward(doubling.forward_doubled(x, pass)?, pass);
        };
        let (gamma, beta) = (self.norm1.gamma(pass)?, self.norm1.beta(pass)?);
        dispatch!(x, T => {
            let (gamma, beta) = (View::<f32>::of(&gamma)?, View::<f32>::of(&beta)?);
            let [doubling_bias, bias, shortcut_bias] =
                [doubling_weight.1, conv1.1, shortcut.1].map(|bias| optional::<f32>(bias));
            let (doubling_bias, bias, shortcut_bias) = (doubling_bias?, bias?, shortcut_bias?);
            let bands = Bands {
                h,
                w,
                doubling: doubling_weight.0,
                doubling_bias: doubling_bias.as_deref(),
                conv: conv1.0,
                bias: bias.as_deref(),
                shortcut: shortcut.0,
                shortcut_bias: shortcut_bias.as_deref(),
                norm: GroupNorm { groups: self.norm1.groups, eps: self.norm1.eps, gamma: &gamma, beta: &beta },
                pass,
            };
            let (residual, hidden) = bands.run(into_buffer::<T>(&x)?)?;
            let shape = (1, 2 * h, 2 * w, self.conv1.spec.outputs);
            let tensor = |data| Tensor::from_vec(data, shape, &Device::Cpu);
            self.second_half_onto(tensor(residual)?, tensor(hidden)?, pass)
        })
    }
}

/// The layers that see the doubled image.
struct Bands<'a> {
    /// Height and width of the image before it is doubled.
    h: usize,
    w: usize,
    doubling: &'a PackedConv,
    doubling_bias: Option<&'a [f32]>,
    conv: &'a PackedConv,
    bias: Option<&'a [f32]>,
    shortcut: &'a PackedMatrix,
    shortcut_bias: Option<&'a [f32]>,
    norm: GroupNorm<'a>,
    pass: &'a Pass<'a>,
}

impl Bands<'_> {
    /// The shortcut and the first convolution's output.
    fn run<T: Element>(&self, mut x: Vec<T>) -> Result<(Vec<T>, Vec<T>)> {
        let (rows, line) = (2 * self.h, 2 * self.w * self.doubling.shape().cout);
        let step = (BAND / (line * size_of::<T>())).max(2) / 2 * 2;
        let out_line = 2 * self.w * self.conv.shape().cout;
        // A row above and below for the convolution; the one above begins a pair.
        let mut band = vec![T::default(); (step + 3).min(rows) * line];
        let cx = self.pass.cx();

        let mut moments = GroupMoments::default();
        let mut residual = self.pass.buffers().take::<T>(rows * out_line);
        let epilogue = Epilogue { bias: self.shortcut_bias, ..Epilogue::default() };
        for first in (0..rows).step_by(step) {
            let end = rows.min(first + step);
            let band = &mut band[..(end - first) * line];
            self.double(&x, first..end, band);
            moments.add(band, self.doubling.shape().cout, &cx);
            let out = &mut residual[first * out_line..end * out_line];
            luna_kernels::linear(band, (end - first) * 2 * self.w, self.shortcut, out, &epilogue, &cx);
            self.pass.check()?;
        }
        self.pass.step()?;

        let affine = moments.affine(&self.norm);
        let mut hidden = self.pass.buffers().take::<T>(rows * out_line);
        let epilogue = Epilogue { bias: self.bias, ..Epilogue::default() };
        for first in (0..rows).step_by(step).rev() {
            let end = rows.min(first + step);
            let (top, bottom) = (first.saturating_sub(2), rows.min(end + 1));
            let band = &mut band[..(bottom - top) * line];
            self.double(&x, top..bottom, band);
            let input = ConvInput {
                norm: Some(&affine),
                activation: Activation::Silu,
                rows: Some((first - top, end - first)),
                ..ConvInput::new(band, 1, bottom - top, 2 * self.w)
            };
            luna_kernels::conv2d(&input, self.conv, &mut hidden[first * out_line..end * out_line], &epilogue, &cx);
            self.pass.check()?;
            // The bands above read one row more of `x` than half their rows, and one for the doubling's own surroundings.
            x.truncate((first / 2 + 2).min(self.h) * self.w * self.doubling.shape().cin);
            x.shrink_to_fit();
        }
        Ok((residual, hidden))
    }

    /// Rows of the doubled, convolved image; the first is even.
    fn double<T: Element>(&self, x: &[T], rows: std::ops::Range<usize>, out: &mut [T]) {
        let line = self.w * self.doubling.shape().cin;
        let (top, bottom) = ((rows.start / 2).saturating_sub(1), (rows.end.div_ceil(2) + 1).min(self.h));
        let input = ConvInput {
            upsample: true,
            rows: Some((rows.start - 2 * top, rows.len())),
            ..ConvInput::new(&x[top * line..bottom * line], 1, bottom - top, self.w)
        };
        let epilogue = Epilogue { bias: self.doubling_bias, ..Epilogue::default() };
        luna_kernels::conv2d(&input, self.doubling, out, &epilogue, &self.pass.cx());
    }
}
