//! A residual block of a doubled image that is not worth holding: `block(conv(up(x)))`, a band of rows at a time.
//!
//! At the picture's end of a decoder the doubled image is the largest tensor by far, and only two layers read it. So it
//! is made twice, band by band: once for its norm's statistics and the shortcut, once for the first convolution. The
//! second time goes upwards, and what lies below is given back as it goes. Where even the shortcut is too large beside what
//! the first convolution makes, the doubled image is made a third time, for the shortcut, and the block ends in the memory of
//! what the first convolution has made.

use super::{
    Conv2d, Pass, ResnetBlock, Tensor,
    bands::{Band, BandSizes, Stage, values},
    buffers::Buffer,
    cpu::{Element, dispatch, into_buffer},
    frozen::FrozenLayer,
};
use crate::Result;
use luna_kernels::{ChannelAffine, Epilogue, GroupMoments, PackedMatrix};
use std::ops::Range;

impl ResnetBlock {
    /// The block over what `doubling` makes of `x` `[b, h, w, channels]` doubled: `[b, 2·h, 2·w, outputs]`. Takes `x`,
    /// so that its memory serves the layers after it. Counts two steps.
    pub(crate) fn forward_doubled(&self, doubling: &Conv2d, x: Tensor, pass: &Pass) -> Result<Tensor> {
        self.forward_doubled_by(pass.bands(), doubling, x, pass)
    }

    pub(super) fn forward_doubled_by(
        &self,
        sizes: &BandSizes,
        doubling: &Conv2d,
        x: Tensor,
        pass: &Pass,
    ) -> Result<Tensor> {
        let (b, h, w, _) = x.dims4()?;
        let bytes = |channels: usize| 4 * h * w * channels * x.dtype().size_in_bytes();
        let packed = self.shortcut.as_ref().and_then(|shortcut| {
            Some((
                doubling.packed(pass)?,
                shortcut.packed_matrix(pass)?,
                self.conv1.packed(pass)?,
                self.conv2.packed(pass)?,
            ))
        });
        let wanted = b == 1 && bytes(doubling.spec.outputs) >= sizes.doubled;
        let Some((doubling_packed, shortcut, conv1, conv2)) = packed.filter(|_| wanted) else {
            return self.forward(doubling.forward_doubled(x, pass)?, pass);
        };
        let line = 2 * w * doubling.spec.outputs * x.dtype().size_in_bytes();
        let bands = Bands {
            h,
            w,
            doubling: Stage::of(doubling_packed, None, pass)?,
            stages: [Stage::of(conv1, Some(&self.norm1), pass)?, Stage::of(conv2, Some(&self.norm2), pass)?],
            shortcut: (shortcut.layer, shortcut.weight, shortcut.bias.map(values).transpose()?),
            step: ((sizes.band / line + 2) / TILE).max(1) * TILE - 2,
            pass,
        };
        let outputs = self.conv1.spec.outputs;
        dispatch!(x, T => {
            let tensor = |data: Buffer<T>| data.into_tensor((1, 2 * h, 2 * w, outputs));
            let data = into_buffer::<T>(&x)?;
            if bytes(outputs) >= sizes.spared {
                return tensor(bands.run_spared(data)?);
            }
            let (residual, hidden) = bands.run(data)?;
            self.second_half_onto(tensor(residual)?, tensor(hidden)?, pass)
        })
    }
}

/// Rows of a tile of a convolution that doubles; the first ones begin a row above the image.
const TILE: usize = 6;

/// The layers that see the doubled image.
struct Bands<'a> {
    /// Height and width of the image before it is doubled.
    h: usize,
    w: usize,
    doubling: Stage<'a>,
    stages: [Stage<'a>; 2],
    shortcut: (&'a FrozenLayer, &'a PackedMatrix, Option<Vec<f32>>),
    /// Rows of a band: with the one above and the one below, whole tiles of the doubling.
    step: usize,
    pass: &'a Pass<'a>,
}

impl Bands<'_> {
    /// The shortcut and the first convolution's output.
    fn run<T: Element>(&self, x: Buffer<T>) -> Result<(Buffer<T>, Buffer<T>)> {
        let mut residual = self.pass.buffers().take::<T>(self.rows() * self.out_line());
        let affine = self.statistics(&x, Some(&mut residual))?;
        self.pass.step()?;
        let mut hidden = self.pass.buffers().take::<T>(self.rows() * self.out_line());
        let mut x = x;
        self.hidden(&affine, &mut hidden, |band, rows, first| {
            self.double(&x, rows, band)?;
            // The bands above read one row more of `x` than half their rows, and one for the doubling's surroundings.
            x.shorten((first / 2 + 2).min(self.h) * self.w * self.doubling.conv.shape().cin);
            Ok(())
        })?;
        Ok((residual, hidden))
    }

    /// The block's output.
    fn run_spared<T: Element>(&self, x: Buffer<T>) -> Result<Buffer<T>> {
        let affine = self.statistics(&x, None)?;
        self.pass.step()?;
        let mut hidden = self.pass.buffers().take::<T>(self.rows() * self.out_line());
        let moments = self.hidden(&affine, &mut hidden, |band, rows, _| self.double(&x, rows, band))?;
        self.second(&x, &moments.affine(&self.stages[1].norm()), &mut hidden)?;
        self.pass.buffers().give(x);
        self.pass.step()?;
        Ok(hidden)
    }

    /// The first norm; and the shortcut, where it is wanted.
    fn statistics<T: Element>(&self, x: &[T], mut residual: Option<&mut [T]>) -> Result<ChannelAffine> {
        let mut band = vec![T::default(); self.step.min(self.rows()) * self.line()];
        let mut moments = GroupMoments::default();
        for first in (0..self.rows()).step_by(self.step) {
            let rows = first..self.rows().min(first + self.step);
            let band = &mut band[..rows.len() * self.line()];
            self.double(x, rows.clone(), band)?;
            moments.add(band, self.doubling.conv.shape().cout, &self.pass.cx());
            if let Some(residual) = &mut residual {
                self.shortcut(band, &mut residual[rows.start * self.out_line()..rows.end * self.out_line()])?;
            }
        }
        Ok(moments.affine(&self.stages[0].norm()))
    }

    /// The first convolution, from the last band to the first; `double` fills a band with rows of the doubled image, of which
    /// nothing from two rows beyond the given first one on is asked for again.
    fn hidden<T: Element>(
        &self,
        affine: &ChannelAffine,
        hidden: &mut [T],
        mut double: impl FnMut(&mut [T], Range<usize>, usize) -> Result<()>,
    ) -> Result<GroupMoments> {
        // A row above and below for the convolution.
        let mut band = vec![T::default(); (self.step + 2).min(self.rows()) * self.line()];
        let mut moments = GroupMoments::default();
        for first in (0..self.rows()).step_by(self.step).rev() {
            let end = self.rows().min(first + self.step);
            let (top, bottom) = (first.saturating_sub(1), self.rows().min(end + 1));
            let band = &mut band[..(bottom - top) * self.line()];
            double(band, top..bottom, first)?;
            let band = Band { data: band, width: 2 * self.w, affine: Some(affine), rows: first - top..end - top };
            let out = &mut hidden[first * self.out_line()..end * self.out_line()];
            self.stages[0].write(band, out, false, self.pass)?;
            moments.add(out, self.stages[0].conv.shape().cout, &self.pass.cx());
        }
        Ok(moments)
    }

    /// The shortcut and the second convolution, in the memory of what the first one has made.
    fn second<T: Element>(&self, x: &[T], affine: &ChannelAffine, hidden: &mut [T]) -> Result<()> {
        let line = self.out_line();
        let mut band = vec![T::default(); self.step.min(self.rows()) * self.line()];
        let mut window = vec![T::default(); (self.step + 2).min(self.rows()) * line];
        let mut held = 0;
        for first in (0..self.rows()).step_by(self.step) {
            let (end, above) = (self.rows().min(first + self.step), first.saturating_sub(1));
            let below = self.rows().min(end + 1);
            // The row above has been overwritten, but the window before holds it as its last but one.
            if above < first {
                window.copy_within((held - 2) * line..(held - 1) * line, 0);
            }
            held = below - above;
            window[(first - above) * line..held * line].copy_from_slice(&hidden[first * line..below * line]);
            let band = &mut band[..(end - first) * self.line()];
            self.double(x, first..end, band)?;
            let out = &mut hidden[first * line..end * line];
            self.shortcut(band, out)?;
            let rows = first - above..end - above;
            let window = Band { data: &window[..held * line], width: 2 * self.w, affine: Some(affine), rows };
            self.stages[1].write(window, out, true, self.pass)?;
        }
        Ok(())
    }

    /// Rows of the doubled, convolved image.
    fn double<T: Element>(&self, x: &[T], rows: Range<usize>, out: &mut [T]) -> Result<()> {
        let line = self.w * self.doubling.conv.shape().cin;
        let (top, bottom) = ((rows.start / 2).saturating_sub(1), (rows.end.div_ceil(2) + 1).min(self.h));
        let rows = rows.start - 2 * top..rows.end - 2 * top;
        let band = Band { data: &x[top * line..bottom * line], width: self.w, affine: None, rows };
        self.doubling.write(band, out, false, self.pass)
    }

    fn shortcut<T: Element>(&self, band: &[T], out: &mut [T]) -> Result<()> {
        let (layer, weight, bias) = &self.shortcut;
        let (epilogue, pixels) = (Epilogue { bias: bias.as_deref(), ..Epilogue::default() }, band.len() / weight.k());
        self.pass.timed(layer, pixels, || {
            luna_kernels::linear(band, pixels, weight, out, &epilogue, &self.pass.cx());
            self.pass.check()
        })
    }

    fn rows(&self) -> usize {
        2 * self.h
    }

    /// Elements of a row of the doubled image.
    fn line(&self) -> usize {
        2 * self.w * self.doubling.conv.shape().cout
    }

    /// Elements of a row of the block's output.
    fn out_line(&self) -> usize {
        2 * self.w * self.stages[0].conv.shape().cout
    }
}
