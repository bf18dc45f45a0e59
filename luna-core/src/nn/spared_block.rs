//! A residual block of an image that is too large to be held twice: `x + conv2(silu(norm2(conv1(silu(norm1(x))))))` in the
//! memory of `x`.
//!
//! What the first convolution makes is wanted as a whole for its norm's statistics only. Its lower half is held; the upper
//! half is made again, band by band, as the second convolution adds to `x`.

use super::{
    Pass, ResnetBlock, Tensor,
    bands::{Band, BandSizes, Stage},
    cpu::{Element, dispatch, into_buffer},
};
use crate::Result;
use luna_kernels::{ChannelAffine, GroupMoments};
use std::ops::Range;

impl ResnetBlock {
    /// The block's stages where it is to be computed in this way.
    pub(super) fn spared(&self, x: &Tensor, sizes: &BandSizes, pass: &Pass) -> Result<Option<[Stage<'_>; 2]>> {
        let bytes = x.elem_count() * x.dtype().size_in_bytes();
        if self.shortcut.is_some() || x.dim(0)? != 1 || bytes < sizes.spared {
            return Ok(None);
        }
        let (Some(first), Some(second)) = (self.conv1.packed(pass), self.conv2.packed(pass)) else { return Ok(None) };
        Ok(Some([Stage::of(first, Some(&self.norm1), pass)?, Stage::of(second, Some(&self.norm2), pass)?]))
    }
}

/// The block `stages` of `x` `[1, h, w, channels]`, in its memory.
pub(super) fn forward(stages: &[Stage; 2], x: Tensor, sizes: &BandSizes, pass: &Pass) -> Result<Tensor> {
    let (_, h, w, channels) = x.dims4()?;
    let line = w * channels;
    let step = (sizes.band / (line * x.dtype().size_in_bytes())).max(1);
    dispatch!(x, T => {
        let mut data = into_buffer::<T>(&x)?;
        InPlace { stages, h, w, line, step, pass }.run(&mut data)?;
        pass.step()?;
        data.into_tensor((1, h, w, channels))
    })
}

struct InPlace<'a> {
    stages: &'a [Stage<'a>; 2],
    h: usize,
    w: usize,
    /// Elements of a row.
    line: usize,
    /// Rows of a band.
    step: usize,
    pass: &'a Pass<'a>,
}

impl InPlace<'_> {
    fn run<T: Element>(&self, x: &mut [T]) -> Result<()> {
        let Self { h, w, line, step, pass, .. } = *self;
        let first = luna_kernels::group_norm_affine(x, 1, h * w, &self.stages[0].norm(), &pass.cx());
        // The first row that is held for good, and the one above it, which the convolution reads.
        let kept = h / 2 / step * step;
        let top = kept.saturating_sub(1);
        let mut held = pass.buffers().take::<T>((h - top) * line);
        let mut window = vec![T::default(); (step + 2).min(h) * line];
        let mut moments = GroupMoments::default();
        for start in (0..h).step_by(step) {
            let end = h.min(start + step);
            let out = if start < kept {
                &mut window[..(end - start) * line]
            } else {
                &mut held[(start - top) * line..(end - top) * line]
            };
            self.hidden(x, &first, start..end, out)?;
            moments.add(out, line / w, &pass.cx());
            if end == kept {
                held[..line].copy_from_slice(&window[(end - 1 - start) * line..][..line]);
            }
        }
        let second = moments.affine(&self.stages[1].norm());
        self.upper(x, &mut window, [&first, &second], kept)?;
        let band = Band { data: &held, width: w, affine: Some(&second), rows: kept - top..h - top };
        self.stages[1].write(band, &mut x[kept * line..], true, pass)?;
        pass.buffers().give(held);
        Ok(())
    }

    /// Rows `0..kept`, a whole number of bands. Rows below those that have been written are still what they were, so that
    /// each band but two rows that the last one has made can be made again from them.
    fn upper<T: Element>(
        &self,
        x: &mut [T],
        window: &mut [T],
        affines: [&ChannelAffine; 2],
        kept: usize,
    ) -> Result<()> {
        let Self { line, step, .. } = *self;
        let mut held = 0;
        for start in (0..kept).step_by(step) {
            let (above, end) = (start.saturating_sub(1), start + step);
            let known = if start == 0 { 0 } else { 2 };
            window.copy_within((held - known) * line..held * line, 0);
            held = end + 1 - above;
            self.hidden(x, affines[0], above + known..end + 1, &mut window[known * line..held * line])?;
            let rows = start - above..end - above;
            let band = Band { data: &window[..held * line], width: self.w, affine: Some(affines[1]), rows };
            self.stages[1].write(band, &mut x[start * line..end * line], true, self.pass)?;
        }
        Ok(())
    }

    /// Rows of what the first convolution makes.
    fn hidden<T: Element>(&self, x: &[T], affine: &ChannelAffine, rows: Range<usize>, out: &mut [T]) -> Result<()> {
        let (top, bottom) = (rows.start.saturating_sub(1), self.h.min(rows.end + 1));
        let data = &x[top * self.line..bottom * self.line];
        let band = Band { data, width: self.w, affine: Some(affine), rows: rows.start - top..rows.end - top };
        self.stages[0].write(band, out, false, self.pass)
    }
}
