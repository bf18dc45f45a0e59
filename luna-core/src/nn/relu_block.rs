//! The residual block of the tiny autoencoders: `y = relu(conv3(relu(conv2(relu(conv1(x))))) + skip(x))`.
//!
//! Without a norm, which would want the whole image, the three convolutions can follow each other a band of rows at a time, in
//! the memory of `x`: no whole image of what lies between them need be held. Rows that the next band needs as well are kept,
//! so that none is computed twice.

use super::{
    Activation, Conv2d, ConvCall, ConvSpec, Pass, Tensor, Weights,
    bands::values,
    conv::Packed,
    cpu::{Element, dispatch, into_buffer},
    frozen::FrozenLayer,
};
use crate::Result;
use candle_core::Device;
use luna_kernels::{ConvInput, Epilogue, PackedConv};
use std::ops::Range;

/// From which size of an image on a block is computed in bands, and of which size they are, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rolling {
    pub(super) least: usize,
    pub(super) band: usize,
}

impl Rolling {
    /// Large bands: a convolution transforms its weights for each, which shows in bands of 4 MiB.
    const USUAL: Self = Self { least: 32 << 20, band: 16 << 20 };
}

/// Three convolutions with a residual around them. Names: `conv.0`, `conv.2`, `conv.4`, `skip`.
pub(crate) struct ReluBlock {
    convs: [Conv2d; 3],
    skip: Option<Conv2d>,
}

impl ReluBlock {
    /// `inputs` is the number of channels that the layer before gives.
    pub(crate) fn load(weights: &Weights, mut inputs: usize) -> Result<Self> {
        let mut conv = |index: usize| {
            let weights = weights.at("conv").at(index);
            let outputs = weights.conv_shape("weight")?[0];
            let spec = ConvSpec::same(inputs, outputs);
            inputs = outputs;
            Conv2d::load(&weights, spec)
        };
        let convs = [conv(0)?, conv(2)?, conv(4)?];
        let skip = weights.at("skip");
        let spec = ConvSpec::pointwise(convs[0].spec.inputs, convs[2].spec.outputs);
        let needed = spec.inputs != spec.outputs || skip.has("weight");
        let skip = needed.then(|| Conv2d::load(&skip, spec)).transpose()?;
        Ok(Self { convs, skip })
    }

    /// Channels of what it makes.
    pub(crate) fn outputs(&self) -> usize {
        self.convs[2].spec.outputs
    }

    /// `[b, h, w, inputs]` → `[b, h, w, outputs]`. Takes `x`, so that its memory serves the layers after it.
    pub(crate) fn forward(&self, x: Tensor, pass: &Pass) -> Result<Tensor> {
        self.forward_by(Rolling::USUAL, x, pass)
    }

    pub(super) fn forward_by(&self, sizes: Rolling, x: Tensor, pass: &Pass) -> Result<Tensor> {
        if let Some(stages) = self.stages(&x, sizes, pass)? {
            return roll(&stages, x, sizes, pass);
        }
        let relu = ConvCall { after: Activation::Relu, ..ConvCall::default() };
        let first = self.convs[0].forward_with(&x, relu, pass)?;
        let second = self.convs[1].forward_with(&first, relu, pass)?;
        pass.recycle(first);
        let residual = match &self.skip {
            Some(skip) => skip.forward_consuming(x, pass)?,
            None => x,
        };
        let last = ConvCall { residual: Some(&residual), residual_first: true, ..relu };
        let y = self.convs[2].forward_with(&second, last, pass)?;
        pass.recycle(second);
        pass.recycle(residual);
        Ok(y)
    }

    /// The convolutions as the CPU's kernels take them, where they are to be computed in bands.
    fn stages(&self, x: &Tensor, sizes: Rolling, pass: &Pass) -> Result<Option<[Stage<'_>; 3]>> {
        let (batch, ..) = x.dims4()?;
        let bytes = x.elem_count() * x.dtype().size_in_bytes() / batch.max(1);
        let keeps_channels = |conv: &Conv2d| conv.spec.inputs == conv.spec.outputs;
        if bytes < sizes.least || self.skip.is_some() || !self.convs.iter().all(keeps_channels) {
            return Ok(None);
        }
        let [Some(first), Some(second), Some(third)] = self.convs.each_ref().map(|conv| conv.packed(pass)) else {
            return Ok(None);
        };
        Ok(Some([Stage::of(first)?, Stage::of(second)?, Stage::of(third)?]))
    }
}

/// One of the convolutions.
struct Stage<'a> {
    layer: &'a FrozenLayer,
    conv: &'a PackedConv,
    bias: Option<Vec<f32>>,
}

impl<'a> Stage<'a> {
    fn of(Packed { layer, weight, bias }: Packed<'a, PackedConv>) -> Result<Self> {
        Ok(Self { layer, conv: weight, bias: bias.map(values).transpose()? })
    }
}

/// The block of `x` `[b, h, w, channels]`, in its memory.
fn roll(stages: &[Stage; 3], x: Tensor, sizes: Rolling, pass: &Pass) -> Result<Tensor> {
    let (batch, h, w, channels) = x.dims4()?;
    let line = w * channels;
    // Whole tiles of the convolution.
    let step = (sizes.band / (line * x.dtype().size_in_bytes())).max(4) / 4 * 4;
    dispatch!(x, T => {
        let mut data = into_buffer::<T>(&x)?;
        let rows = Rows { h, w, line, pass };
        data.chunks_exact_mut(h * line).try_for_each(|image| rows.block(stages, image, step))?;
        Ok(Tensor::from_vec(data, (batch, h, w, channels), &Device::Cpu)?)
    })
}

/// An image's rows and how they are computed.
#[derive(Clone, Copy)]
struct Rows<'a> {
    h: usize,
    w: usize,
    /// Elements of a row.
    line: usize,
    pass: &'a Pass<'a>,
}

/// Rows between two of the convolutions.
struct Window<T> {
    data: Vec<T>,
    rows: Range<usize>,
}

impl Rows<'_> {
    fn block<T: Element>(self, stages: &[Stage; 3], x: &mut [T], step: usize) -> Result<()> {
        let window =
            |rows: usize| Window { data: self.pass.buffers().take::<T>(rows.min(self.h) * self.line), rows: 0..0 };
        let (mut first, mut second) = (window(step + 4), window(step + 2));
        for start in (0..self.h).step_by(step) {
            let end = self.h.min(start + step);
            // Each convolution is a row ahead of the next. None reads rows of `x` that have been written: those end at `start`.
            first.forget(start.saturating_sub(2), self.line);
            self.extend(&stages[0], (&*x, 0), &mut first, end + 2)?;
            second.forget(start.saturating_sub(1), self.line);
            self.extend(&stages[1], (&first.data, first.rows.start), &mut second, end + 1)?;
            let onto = Epilogue { accumulate: true, activation_last: true, ..Epilogue::default() };
            let out = &mut x[start * self.line..end * self.line];
            self.convolve(&stages[2], (&second.data, second.rows.start), start..end, out, onto)?;
        }
        self.pass.buffers().give(first.data);
        self.pass.buffers().give(second.data);
        Ok(())
    }

    /// Adds the rows up to `end`, or to the image's.
    fn extend<T: Element>(&self, stage: &Stage, from: (&[T], usize), window: &mut Window<T>, end: usize) -> Result<()> {
        let rows = window.rows.end..end.min(self.h);
        let place = (rows.start - window.rows.start) * self.line..(rows.end - window.rows.start) * self.line;
        window.rows.end = rows.end;
        self.convolve(stage, from, rows, &mut window.data[place], Epilogue::default())
    }

    /// Computes some rows of a convolution and ReLU. `data` begins with row `top` of the image.
    fn convolve<T: Element>(
        &self,
        stage: &Stage,
        (data, top): (&[T], usize),
        rows: Range<usize>,
        out: &mut [T],
        epilogue: Epilogue<T>,
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let read = rows.start.saturating_sub(1)..self.h.min(rows.end + 1);
        let data = &data[(read.start - top) * self.line..(read.end - top) * self.line];
        let wanted = Some((rows.start - read.start, rows.len()));
        let input = ConvInput { rows: wanted, ..ConvInput::new(data, 1, read.len(), self.w) };
        let epilogue = Epilogue { bias: stage.bias.as_deref(), activation: Activation::Relu, ..epilogue };
        self.pass.timed(stage.layer, rows.len() * self.w, || {
            luna_kernels::conv2d(&input, stage.conv, out, &epilogue, &self.pass.cx());
            self.pass.check()
        })
    }
}

impl<T: Element> Window<T> {
    /// Gives up the rows before `start`.
    fn forget(&mut self, start: usize, line: usize) {
        let gone = start - self.rows.start;
        self.data.copy_within(gone * line..self.rows.len() * line, 0);
        self.rows.start = start;
    }
}
