//! One step: checks, precision, the pass through the network, and what came out.

use super::{
    Denoiser, Fallback, ForwardInput, ForwardOptions, Report,
    cache::FirstBlock,
    input::{refuse_non_finite, wrong},
    network::Step,
    timestep::Place,
};
use crate::{
    Precision, Prediction, Result,
    nn::{Pass, Tensor},
};
use candle_core::{DType, Device};
use std::time::Instant;

/// A prediction and how it was made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Predicted {
    /// The raw output, `[batch, channels, height, width]`.
    pub prediction: Prediction,
    /// How it was done.
    pub report: Report,
}

impl Denoiser {
    /// One forward step: the raw network prediction, as ComfyUI's `diffusion_model(x, timesteps, context, y=…)` gives it.
    /// Items of a batch may have different timesteps. Z-Image's timesteps and sign are ComfyUI's, too: 1 is pure
    /// noise, and the prediction is noise minus picture.
    ///
    /// # Errors
    /// `InvalidInput` for shapes and counts that do not fit the model, with what would fit; `NonFinite` for NaN or
    /// infinity in the input or, in f32, in the result; `OutOfMemory`, `Cancelled`.
    pub fn forward(&self, input: &ForwardInput, options: &ForwardOptions) -> Result<Predicted> {
        let start = Instant::now();
        let [batch, _, height, width] = input.check(&self.facts)?;
        self.check_precision(options.precision)?;
        let attention = options.attention.unwrap_or(self.attention);
        let patches = options.patches.as_deref();
        patches.map_or(Ok(()), |patches| patches.check(&self.frozen))?;
        let maker = (&self.frozen, patches);
        let cache = options.cache.as_ref().map(|cached| cached.start(input, &self.facts, maker)).transpose()?;
        let mut fallbacks = Vec::new();
        let mut precision = options.precision;
        let run = |precision, cache: Option<&FirstBlock>| {
            let pass = Pass::new(&self.runtime, &options.call, self.network.steps()).with_attention(attention);
            let pass = pass.with_patches(patches);
            let values = self.runtime.run(|| self.run(input, precision, cache, &pass))?;
            Ok::<_, crate::Error>((values, pass.patched_runs(&self.frozen)))
        };
        let (mut values, mut patched) = run(precision, cache.as_ref())?;
        let non_finite = values.iter().filter(|value| !value.is_finite()).count();
        if non_finite > 0 {
            // What the cache kept of this step would spoil the next ones.
            cache.as_ref().inspect(|cache| cache.forget());
            if precision != Precision::F32 && self.runtime.handle().is_cpu() {
                fallbacks.push(Fallback::Widened { from: precision, non_finite });
                precision = Precision::F32;
                (values, patched) = run(precision, None)?;
            }
        }
        refuse_non_finite("the prediction", &values)?;
        let prediction = Prediction::new([batch, self.facts.output_channels, height, width], values);
        let cache = cache.map(|cache| cache.report());
        let report = Report { precision, attention, cache, patched, fallbacks, elapsed: start.elapsed() };
        Ok(Predicted { prediction, report })
    }

    /// On devices other than the CPU weights take part in the activations' precision.
    fn check_precision(&self, asked: Precision) -> Result<()> {
        if asked == self.precision || self.runtime.handle().is_cpu() {
            return Ok(());
        }
        Err(wrong("the model was loaded in another precision")
            .expected(self.precision.name())
            .found(asked.name())
            .remedy("load it in the precision that it is called with"))
    }

    /// `[batch, channels, height, width]` in f32.
    fn run(
        &self,
        input: &ForwardInput,
        precision: Precision,
        cache: Option<&FirstBlock>,
        pass: &Pass,
    ) -> Result<Vec<f32>> {
        let device = self.runtime.handle();
        let on_device = |values: &[f32], shape: &[usize]| -> Result<Tensor> {
            Ok(Tensor::from_slice(values, shape, &Device::Cpu)?.to_dtype(precision.dtype())?.to_device(device)?)
        };
        let planes = on_device(input.x.data(), input.x.shape())?;
        let step = Step {
            x: planes.permute((0, 2, 3, 1))?.contiguous()?,
            timesteps: input.timesteps,
            context: on_device(input.context.data(), input.context.shape())?,
            y: input.y.map(|y| y.data()),
            guidance: input.guidance,
            control: &input.control,
            cache,
            place: Place {
                device: device.clone(),
                dtype: if device.is_cpu() { DType::F32 } else { precision.dtype() },
            },
        };
        let predicted = self.network.forward(&step, pass)?;
        Ok(predicted.permute((0, 3, 1, 2))?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
    }
}
