//! Convolutions that follow each other a band of rows at a time.
//!
//! Where no norm wants the whole image, only a window of rows between one convolution and the next need be held: each band of the
//! last one's output asks those before it for the rows that they have not computed yet. Rows that the next band needs as well
//! are kept, so that none is computed twice.

use super::{
    Activation, Conv2d, Pass, ReluBlock, Tensor,
    bands::values,
    buffers::Buffer,
    conv::Packed,
    cpu::{Element, dispatch, into_buffer},
};
use crate::Result;
use luna_kernels::{ConvInput, ConvShape, Epilogue};
use std::ops::Range;

/// Bytes of a band, about. In smaller ones threads wait for each other more often, larger ones are more memory for the system to clear.
const BAND: usize = 12 << 20;
/// Bands have whole tiles of the convolutions, of 4 and of 6 rows.
const TILES: usize = 12;

/// Convolutions, each of what the one before makes. Image 0 is the input, image `i` what link `i - 1` makes.
#[derive(Default)]
pub(crate) struct Chain<'a> {
    links: Vec<Link<'a>>,
    /// A block has a layer that does not fit in.
    broken: bool,
}

/// `after(conv(upsample(x)) + image)`.
struct Link<'a> {
    conv: &'a Conv2d,
    upsample: bool,
    after: Activation,
    /// Which image is added.
    onto: Option<usize>,
}

impl<'a> Chain<'a> {
    /// About how many bytes lie between the links of a chain.
    pub(crate) const WINDOWS: u64 = 5 * BAND as u64;

    /// Adds a convolution, of the doubled image with `upsample`.
    pub(crate) fn conv(mut self, conv: &'a Conv2d, upsample: bool, after: Activation) -> Self {
        self.links.push(Link { conv, upsample, after, onto: None });
        self
    }

    /// Adds a block's convolutions.
    pub(crate) fn block(mut self, block: &'a ReluBlock) -> Self {
        let input = self.links.len();
        self.broken |= block.skip.is_some();
        for (conv, onto) in block.convs.iter().zip([None, None, Some(input)]) {
            self.links.push(Link { conv, upsample: false, after: Activation::Relu, onto });
        }
        self
    }

    /// Bytes of the largest image in it.
    pub(crate) fn largest_image(&self, x: &Tensor) -> Result<usize> {
        let (_, h, w, channels) = x.dims4()?;
        let images = images(self.links.iter().map(Link::geometry), [h, w, channels]);
        Ok(images.iter().map(|image| image.elements()).max().unwrap_or(0) * x.dtype().size_in_bytes())
    }

    /// `[b, h, w, inputs]` → `[b, h', w', outputs]`; gives `x` back where these layers are not the CPU's kernels' alone.
    /// Takes `x`, so that its memory serves the layers after it.
    pub(crate) fn forward(&self, x: Tensor, pass: &Pass) -> Result<Chained> {
        self.forward_by(BAND, x, pass)
    }

    pub(super) fn forward_by(&self, band: usize, x: Tensor, pass: &Pass) -> Result<Chained> {
        let packed: Option<Vec<_>> = self.links.iter().map(|link| link.conv.packed(pass)).collect();
        // A single convolution has nothing between it and the next.
        let fits = self.links.len() > 1 && !self.broken;
        let Some(packed) = packed.filter(|_| fits) else { return Ok(Chained::Unfit(x)) };
        let (batch, h, w, channels) = x.dims4()?;
        let stages = self.links.iter().zip(packed).map(|(link, packed)| {
            let bias = packed.bias.map(values).transpose()?;
            Ok(Stage { geometry: link.geometry(), after: link.after, onto: link.onto, packed, bias })
        });
        let stages = stages.collect::<Result<Vec<_>>>()?;
        let images = images(stages.iter().map(|stage| stage.geometry), [h, w, channels]);
        let last = images[stages.len()];
        // Of the largest image, which may have more rows than the last.
        let rows = band * last.h / self.largest_image(&x)?.max(1);
        let rolling = Rolling { bands: bands(&stages, &images, (rows / TILES).max(1) * TILES), stages, images, pass };
        let shape = (batch, last.h, last.w, last.channels);
        dispatch!(x, T => {
            let mut data = into_buffer::<T>(&x)?;
            // Before a small output, for which larger buffers that fit a window would be freed.
            let mut windows: Vec<Window<T>> = (1..rolling.stages.len()).map(|i| rolling.window(i)).collect();
            if rolling.in_place() {
                let images = data.chunks_exact_mut(last.elements());
                images.into_iter().try_for_each(|image| rolling.run(Place::Onto(image), &mut windows))?;
            } else {
                let mut outputs = pass.buffers().take::<T>(batch * last.elements());
                let images = data.chunks_exact(rolling.images[0].elements()).zip(outputs.chunks_exact_mut(last.elements()));
                images.into_iter().try_for_each(|(x, y)| rolling.run(Place::Apart(x, y), &mut windows))?;
                pass.buffers().give(std::mem::replace(&mut data, outputs));
            }
            windows.into_iter().for_each(|window| pass.buffers().give(window.data));
            Ok(Chained::Done(data.into_tensor(shape)?))
        })
    }
}

/// What became of a chain.
pub(crate) enum Chained {
    Done(Tensor),
    /// The input: these layers go one by one.
    Unfit(Tensor),
}

/// How rows of a convolution's output lie over those of its input.
#[derive(Clone, Copy)]
struct Geometry {
    shape: ConvShape,
    upsample: bool,
}

/// Sizes of an image.
#[derive(Clone, Copy)]
struct Image {
    h: usize,
    w: usize,
    channels: usize,
}

impl Image {
    /// Elements of a row.
    fn line(self) -> usize {
        self.w * self.channels
    }

    fn elements(self) -> usize {
        self.h * self.line()
    }
}

impl Link<'_> {
    fn geometry(&self) -> Geometry {
        Geometry { shape: self.conv.spec.shape(), upsample: self.upsample }
    }
}

/// All images of a chain.
fn images(links: impl Iterator<Item = Geometry>, [h, w, channels]: [usize; 3]) -> Vec<Image> {
    let mut images = vec![Image { h, w, channels }];
    for Geometry { shape, upsample } in links {
        let (Image { h, w, .. }, times) = (images[images.len() - 1], if upsample { 2 } else { 1 });
        let (h, w) = shape.output(times * h, times * w);
        images.push(Image { h, w, channels: shape.cout });
    }
    images
}

impl Geometry {
    /// Rows of an image of `height` that some rows of the output read. The first is one that an output row begins with.
    fn reads(self, rows: Range<usize>, height: usize) -> Range<usize> {
        let ConvShape { kh, stride, padding: [top, ..], .. } = self.shape;
        let first = (rows.start * stride).saturating_sub(top) / stride * stride;
        let end = ((rows.end - 1) * stride + kh).saturating_sub(top);
        if self.upsample { first / 2..end.div_ceil(2).min(height) } else { first..end.min(height) }
    }

    /// The output row that is the first where row `first` of the input is.
    fn begins(self, first: usize) -> usize {
        if self.upsample { 2 * first } else { first / self.shape.stride }
    }
}

/// What a band does to one image: it gives up the rows before `keep`, and has those of `rows` computed.
#[derive(Clone)]
struct Extent {
    keep: usize,
    rows: Range<usize>,
}

/// What each band of `step` rows of the last image does to each image, that one included.
fn bands(stages: &[Stage], images: &[Image], step: usize) -> Vec<Vec<Extent>> {
    let last = stages.len();
    // Rows of each image that have been computed.
    let mut ends: Vec<usize> = images.iter().map(|_| 0).collect();
    ends[0] = images[0].h;
    let mut bands = Vec::new();
    while ends[last] < images[last].h {
        let mut needed = vec![0; images.len()];
        needed[last] = images[last].h.min(ends[last] + step);
        let mut keep: Vec<usize> = images.iter().map(|image| image.h).collect();
        for (i, stage) in stages.iter().enumerate().rev() {
            let (done, height) = (ends[i + 1], images[i].h);
            // Tiles of a doubled image begin with an odd row.
            let odd = usize::from(stage.geometry.upsample);
            needed[i + 1] = (needed[i + 1].max(done) | odd).min(images[i + 1].h);
            if done < images[i + 1].h {
                keep[i] = keep[i].min(stage.geometry.reads(done..done + 1, height).start);
                needed[i] = needed[i].max(stage.geometry.reads(0..needed[i + 1], height).end);
                if let Some(onto) = stage.onto {
                    keep[onto] = keep[onto].min(done);
                    needed[onto] = needed[onto].max(needed[i + 1]);
                }
            }
        }
        let extent = |i: usize| Extent { keep: keep[i].min(ends[i]), rows: ends[i]..needed[i].max(ends[i]) };
        let band: Vec<Extent> = (0..images.len()).map(extent).collect();
        ends = band.iter().map(|extent| extent.rows.end).collect();
        bands.push(band);
    }
    bands
}

/// A link that is ready to be computed.
struct Stage<'a> {
    geometry: Geometry,
    after: Activation,
    onto: Option<usize>,
    packed: Packed<'a, luna_kernels::PackedConv>,
    bias: Option<Vec<f32>>,
}

/// A chain over images of a certain size.
struct Rolling<'a> {
    stages: Vec<Stage<'a>>,
    images: Vec<Image>,
    bands: Vec<Vec<Extent>>,
    pass: &'a Pass<'a>,
}

/// Where the first and the last image are.
enum Place<'a, T> {
    Apart(&'a [T], &'a mut [T]),
    /// The last one takes the first one's memory, and is added to it.
    Onto(&'a mut [T]),
}

/// Rows of an image between two links.
struct Window<T> {
    data: Buffer<T>,
    rows: Range<usize>,
}

/// The images that a link may read.
struct Held<'a, T> {
    /// The chain's input; `None` where the link writes to it.
    input: Option<&'a [T]>,
    windows: &'a [Window<T>],
}

impl<'a, T> Held<'a, T> {
    /// Some rows of image `i`, of `line` elements each.
    fn rows(&self, i: usize, rows: Range<usize>, line: usize) -> Option<&'a [T]> {
        let (data, top) = match i.checked_sub(1) {
            Some(i) => (&*self.windows[i].data, self.windows[i].rows.start),
            None => (self.input?, 0),
        };
        Some(&data[(rows.start - top) * line..(rows.end - top) * line])
    }
}

impl<T: Element> Window<T> {
    /// Gives up the rows before `keep` and gives the place of new ones.
    fn extend(&mut self, Extent { keep, rows }: &Extent, line: usize) -> &mut [T] {
        let gone = keep - self.rows.start;
        self.data.copy_within(gone * line..self.rows.len() * line, 0);
        self.rows = *keep..rows.end;
        &mut self.data[(rows.start - keep) * line..(rows.end - keep) * line]
    }
}

impl Rolling<'_> {
    /// Whether the last image takes the first one's memory: it is added to it, and rows that are written are never read again.
    fn in_place(&self) -> bool {
        let last = self.stages.len();
        let written = self.bands.iter().map(|band| band[last].rows.end);
        last > 1
            && self.stages[last - 1].onto == Some(0)
            && written.zip(&self.bands[1..]).all(|(written, next)| next[0].keep >= written)
    }

    /// One image, band by band.
    fn run<T: Element>(&self, mut place: Place<T>, windows: &mut [Window<T>]) -> Result<()> {
        let last = self.stages.len() - 1;
        let line = |i: usize| self.images[i].line();
        windows.iter_mut().for_each(|window| window.rows = 0..0);
        for band in &self.bands {
            for i in 0..last {
                let (windows, window) = windows.split_at_mut(i);
                let input = match &place {
                    Place::Apart(x, _) => *x,
                    Place::Onto(x) => &**x,
                };
                let out = window[0].extend(&band[i + 1], line(i + 1));
                self.compute(i, &Held { input: Some(input), windows }, &band[i + 1].rows, out)?;
            }
            let (rows, windows) = (&band[last + 1].rows, &*windows);
            let (input, out) = match &mut place {
                Place::Apart(x, y) => (Some(*x), &mut **y),
                Place::Onto(x) => (None, &mut **x),
            };
            let out = &mut out[rows.start * line(last + 1)..rows.end * line(last + 1)];
            self.compute(last, &Held { input, windows }, rows, out)?;
        }
        Ok(())
    }

    /// Room for the most rows of image `i` that are held at a time.
    fn window<T: Element>(&self, i: usize) -> Window<T> {
        let most = self.bands.iter().map(|band| band[i].rows.end - band[i].keep).max().unwrap_or(0);
        Window { data: self.pass.buffers().take(most * self.images[i].line()), rows: 0..0 }
    }

    /// Rows of what link `i` makes.
    fn compute<T: Element>(&self, i: usize, held: &Held<T>, rows: &Range<usize>, out: &mut [T]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let (stage, from, to) = (&self.stages[i], self.images[i], self.images[i + 1]);
        let read = stage.geometry.reads(rows.clone(), from.h);
        let data = held.rows(i, read.clone(), from.line()).expect("only what is added is written to");
        let input = ConvInput {
            upsample: stage.geometry.upsample,
            rows: Some((rows.start - stage.geometry.begins(read.start), rows.len())),
            ..ConvInput::new(data, 1, read.len(), from.w)
        };
        let residual = stage.onto.and_then(|onto| held.rows(onto, rows.clone(), to.line()));
        let epilogue = Epilogue {
            bias: stage.bias.as_deref(),
            activation: stage.after,
            activation_last: true,
            residual,
            accumulate: stage.onto.is_some() && residual.is_none(),
            ..Epilogue::default()
        };
        self.pass.timed(stage.packed.layer, rows.len() * to.w, || {
            luna_kernels::conv2d(&input, stage.packed.weight, out, &epilogue, &self.pass.cx());
            self.pass.check()
        })
    }
}
