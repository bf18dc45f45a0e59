//! TAESD, the tiny autoencoder (for SD, SDXL, SD3 and Flux latents). Canonical names are diffusers' `AutoencoderTiny`.
//!
//! Both halves are one list of layers, whose indices count what has no weights: `N.weight` is a convolution,
//! `N.conv.0.weight` a residual block, a missing N the ReLU after the first convolution or a doubling of the size.

use crate::{
    Error, ErrorKind, Result,
    limits::check_at_most,
    nn::{Activation, Chain, Chained, Conv2d, ConvCall, ConvSpec, Pass, ReluBlock, Tensor, Weights},
};

/// Each level halves the picture's sides; known ones have 3.
const MOST_LEVELS: u64 = 8;
/// Bytes of an image from which on layers are computed band by band: smaller ones are not much to hold, nor for the system to clear.
const CHAINED: usize = 32 << 20;

enum Layer {
    Conv(Conv2d),
    Upsample(Conv2d),
    Block(ReluBlock),
}

/// One half: pictures in 0..1 to latents, or latents to pictures in 0..1.
pub(super) struct Half {
    layers: Vec<Layer>,
    decoder: bool,
    /// Channels at the latent's end.
    pub(super) latent: usize,
    /// Channels inside.
    pub(super) channels: usize,
    /// Halvings or doublings of the size.
    pub(super) levels: usize,
}

impl Half {
    /// `weights` stands at `encoder` or `decoder`.
    pub(super) fn load(weights: &Weights, decoder: bool) -> Result<Self> {
        let weights = weights.at("layers");
        let mut layers = Vec::new();
        let mut gap = false;
        let mut width = None;
        // The longest known list has 19 layers; two missing indices in a row end it.
        for index in 0..64 {
            let place = weights.at(index);
            if place.has("conv.0.weight") {
                let block = ReluBlock::load(&place, width.unwrap_or(0))?;
                width = Some(block.outputs());
                layers.push(Layer::Block(block));
            } else if place.has("weight") {
                let [outputs, inputs, ..] = place.conv_shape("weight")?;
                let halve = !decoder && index > 0 && !place.has("bias");
                let spec = ConvSpec::same(width.unwrap_or(inputs), outputs);
                let conv = Conv2d::load(&place, ConvSpec { stride: if halve { 2 } else { 1 }, ..spec })?;
                width = Some(outputs);
                layers.push(if gap && decoder { Layer::Upsample(conv) } else { Layer::Conv(conv) });
            } else if gap {
                break;
            }
            gap = !place.has("weight") && !place.has("conv.0.weight");
        }
        let ends = match (layers.first(), layers.last()) {
            (Some(Layer::Conv(first)), Some(Layer::Conv(last))) if layers.len() > 2 => Some((first.spec, last.spec)),
            _ => None,
        };
        let (first, last) = ends.ok_or_else(|| {
            Error::new(ErrorKind::InvalidFile, "the TAESD file has no list of layers with a convolution at each end")
        })?;
        let resizes = |layer: &&Layer| match layer {
            Layer::Upsample(_) => true,
            Layer::Conv(conv) => conv.spec.stride == 2,
            Layer::Block(_) => false,
        };
        let (latent, channels) = if decoder { (first.inputs, first.outputs) } else { (last.outputs, first.outputs) };
        let picture = if decoder { last.outputs } else { first.inputs };
        if picture != 3 {
            return Err(Error::new(ErrorKind::InvalidFile, "the TAESD does not work on pictures")
                .expected("3 channels at the picture's end")
                .found(picture.to_string()));
        }
        let levels = layers.iter().filter(resizes).count();
        check_at_most("halvings in a TAESD", levels as u64, MOST_LEVELS)?;
        Ok(Self { levels, layers, decoder, latent, channels })
    }

    /// `[b, h, w, 3]` → `[b, h/8, w/8, latent]`, or back.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        // The decoder clamps softly to ±3, as it was trained.
        let mut x = if self.decoder { ((x / 3.0)?.tanh()? * 3.0)? } else { x.copy()? };
        let mut index = 0;
        while index < self.layers.len() {
            let (chain, count) = self.chain(index);
            let large = chain.largest_image(&x)? >= CHAINED;
            let chained = if large { chain.forward(x, pass)? } else { Chained::Unfit(x) };
            let (y, count) = match chained {
                Chained::Done(y) => (y, count),
                Chained::Unfit(x) => (self.layer(index, x, pass)?, 1),
            };
            x = y;
            (0..count).try_for_each(|_| pass.step())?;
            index += count;
        }
        Ok(x)
    }

    /// Layers from `index` on that are computed together where their images are large, and how many. At the picture's end these are all
    /// of its size, with the one that leads to it or away from it.
    fn chain(&self, index: usize) -> (Chain<'_>, usize) {
        let doubles = |layer: &Layer| matches!(layer, Layer::Upsample(_));
        let halves = |layer: &Layer| matches!(layer, Layer::Conv(conv) if conv.spec.stride == 2);
        let rest = &self.layers[index..];
        let count = if self.decoder && doubles(&rest[0]) && !rest[1..].iter().any(doubles) {
            rest.len()
        } else if !self.decoder && index == 0 {
            rest.iter().position(halves).map_or(1, |last| last + 1)
        } else {
            1
        };
        let chain = (index..).zip(&rest[..count]).fold(Chain::default(), |chain, (at, layer)| match layer {
            Layer::Conv(conv) => chain.conv(conv, false, self.after(at)),
            Layer::Upsample(conv) => chain.conv(conv, true, self.after(at)),
            Layer::Block(block) => chain.block(block),
        });
        (chain, count)
    }

    /// The activation of a convolution's output.
    fn after(&self, index: usize) -> Activation {
        if self.decoder && index == 0 { Activation::Relu } else { Activation::None }
    }

    fn layer(&self, index: usize, x: Tensor, pass: &Pass) -> Result<Tensor> {
        match &self.layers[index] {
            Layer::Block(block) => block.forward(x, pass),
            layer @ (Layer::Conv(conv) | Layer::Upsample(conv)) => {
                let upsample = matches!(layer, Layer::Upsample(_));
                let call = ConvCall { after: self.after(index), upsample, ..ConvCall::default() };
                let y = conv.forward_with(&x, call, pass)?;
                pass.recycle(x);
                Ok(y)
            }
        }
    }

    pub(super) fn steps(&self) -> usize {
        self.layers.len()
    }
}
