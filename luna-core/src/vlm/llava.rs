//! LLaVA 1.5's own parts: an inner layer of a CLIP or SigLIP, projected to the language model's width. Enters: patches of
//! one picture. Leaves: a token for each patch. Source: transformers' `LlavaForConditionalGeneration`.

use super::eyes::Seen;
use crate::{
    Error, ErrorKind, Image, Precision, Result,
    nn::{Activation, Linear, LinearCall, Pass, Tensor, Weights},
    vision::{PictureView, PixelValues, Preprocessing, Size, VisionTransformer},
};
use serde_json::Value;

/// Layers of the vision part.
pub(super) struct Llava {
    vision: VisionTransformer,
    /// Layers at the end that are left out.
    skipped: usize,
    /// Whether the class token is looked at too.
    full: bool,
    up: Linear,
    down: Linear,
    preprocessing: Preprocessing,
}

impl Llava {
    /// Loads it from `vision_tower.*` and `multi_modal_projector.*`.
    pub(super) fn load(weights: &Weights, config: Option<&Value>, processor: Option<&Value>) -> Result<Self> {
        let tower = weights.at("vision_tower");
        let size = Size::of(&tower, config, None)?;
        let stated = |name: &str| config.map(|config| &config[name]);
        let skipped = match stated("vision_feature_layer") {
            None | Some(Value::Null) => 1,
            Some(layer) => skipped(layer, size.layers)?,
        };
        let full = stated("vision_feature_select_strategy").and_then(Value::as_str) == Some("full");
        let projector = weights.at("multi_modal_projector");
        let (up, down) = (projector.at("linear_1"), projector.at("linear_2"));
        let [hidden, outputs] = [up.shape("weight")?[0], down.shape("weight")?[0]];
        let preprocessing = match processor {
            Some(config) => Preprocessing::stated(config, size.kind, size.side)?,
            None => Preprocessing::of(size.kind, size.side),
        };
        Ok(Self {
            up: Linear::load(&up, size.width, hidden)?,
            down: Linear::load(&down, hidden, outputs)?,
            vision: VisionTransformer::load(&tower, size)?,
            skipped,
            full,
            preprocessing,
        })
    }

    pub(super) fn layers(&self) -> usize {
        self.vision.size.layers - self.skipped
    }

    /// Values of one patch.
    pub(super) fn length(&self) -> usize {
        3 * self.vision.size.patch.pow(2)
    }

    /// The grid of every picture.
    pub(super) fn grid(&self) -> [usize; 3] {
        [1, self.vision.size.grid, self.vision.size.grid]
    }

    /// Tokens of every picture.
    pub(super) fn tokens(&self) -> usize {
        let size = &self.vision.size;
        if self.full { size.tokens() } else { size.grid * size.grid }
    }

    /// Appends the patches of all pictures of a batch.
    pub(super) fn prepare(&self, image: &Image, out: &mut Vec<f32>) -> Result<()> {
        self.cut(&self.preprocessing.prepare(&[PictureView::whole(image)])?, out)
    }

    /// Appends the patches of pictures that are prepared.
    pub(super) fn cut(&self, pixels: &PixelValues, out: &mut Vec<f32>) -> Result<()> {
        let size = &self.vision.size;
        if pixels.shape()[2..] != [size.side, size.side] {
            return Err(Error::new(ErrorKind::InvalidInput, "the pictures are not of the size this model takes")
                .expected(format!("{0}x{0}", size.side))
                .found(format!("{:?}", &pixels.shape()[2..]))
                .remedy("put the preprocessor_config.json of the model beside its weights"));
        }
        (0..pixels.shape()[0]).for_each(|index| pixels.patches(index, size.patch, out));
        Ok(())
    }

    /// What it sees in one picture.
    pub(super) fn look(
        &self,
        patches: &[f32],
        precision: Precision,
        pass: &Pass,
        device: &candle_core::Device,
    ) -> Result<Seen> {
        let length = self.length();
        let patches = Tensor::from_slice(patches, (1, patches.len() / length, length), device)?;
        let x = self.vision.inner(patches, self.skipped, precision, pass)?;
        let (class, all) = (self.vision.size.tokens() - self.vision.size.grid.pow(2), x.dim(1)?);
        let x = if self.full { x } else { x.narrow(1, class, all - class)?.contiguous()? };
        let call = LinearCall { activation: Activation::Gelu, residual: None };
        let hidden = self.up.forward_with(&x, call, pass)?;
        Ok(Seen { tokens: self.down.forward(&hidden, pass)?.squeeze(0)?, deep: Vec::new() })
    }
}

/// How many layers at the end `vision_feature_layer` leaves out: −1 none, −2 one; counted from the start otherwise.
fn skipped(layer: &Value, layers: usize) -> Result<usize> {
    let number = layer.as_i64().map(|layer| if layer < 0 { layer + layers as i64 + 1 } else { layer });
    match number {
        Some(run) if (1..=layers as i64).contains(&run) => Ok(layers - run as usize),
        _ => Err(Error::new(ErrorKind::Unsupported, "config.json names a vision layer that Luna cannot take")
            .expected(format!("one number from -{layers} to {layers}, such as -2"))
            .found(layer.to_string())),
    }
}
