//! Steps of a sampler by a daemon's denoiser.

use super::{Answer, CallOptions, Client};
use crate::{
    ArrayView, AttentionMode, Prediction, Result,
    diffusion::ForwardInput,
    protocol::{AttentionModeSet, Forwarded, ModelForward, SetAttentionMode, TensorRef},
};

impl Client {
    /// One step, as [`crate::diffusion::Denoiser::forward`] does it.
    ///
    /// ```no_run
    /// use luna_core::{ArrayView, client::Client, diffusion::ForwardInput, protocol::{LoraUse, ModelForward}};
    /// let client = Client::connect("127.0.0.1:19283", Default::default())?;
    /// let (x, context) = (vec![0.0; 4 * 64 * 64], vec![0.0; 77 * 768]);
    /// let input = ForwardInput::new(
    ///     ArrayView::new(&[1, 4, 64, 64], &x)?,
    ///     &[999.0],
    ///     ArrayView::new(&[1, 77, 768], &context)?,
    /// );
    /// let ink = LoraUse { lora: "ink".to_owned(), model: 0.8, clip: 0.8 };
    /// let request = ModelForward { model: Some("sd15".to_owned()), loras: vec![ink], ..ModelForward::default() };
    /// let (prediction, answer) = client.model_forward(&input, &request, &Default::default())?;
    /// let coverage = &answer.reply.loras.as_ref().expect("a stack was given").coverage;
    /// println!("{:?}, {} adapters", prediction.shape(), coverage.applied());
    /// # Ok::<(), luna_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Client::call`], with the kinds of [`crate::diffusion::Denoiser::forward`].
    pub fn model_forward(
        &self,
        input: &ForwardInput,
        request: &ModelForward,
        options: &CallOptions,
    ) -> Result<(Prediction, Answer<Forwarded>)> {
        let (times, scales) = ([input.timesteps.len()], [input.guidance.map_or(0, <[f32]>::len)]);
        let residuals = residuals(input);
        let mut tensors = vec![
            TensorRef::f32("x", input.x.shape(), input.x.data()),
            TensorRef::f32("timesteps", &times, input.timesteps),
            TensorRef::f32("context", input.context.shape(), input.context.data()),
        ];
        tensors.extend(input.y.map(|y| TensorRef::f32("y", y.shape(), y.data())));
        tensors.extend(input.guidance.map(|guidance| TensorRef::f32("guidance", &scales, guidance)));
        tensors.extend(residuals.iter().map(|(name, view)| TensorRef::f32(name, view.shape(), view.data())));
        let answer = self.call_with(request, &tensors, options)?;
        let out = answer.message.tensor("out")?;
        let prediction = Prediction::new(out.sides("[batch, channels, height, width]")?, out.values()?);
        Ok((prediction, answer))
    }

    /// How this client's calls compute attention from now on, where they do not say it themselves. It is said again
    /// where the connection has to be made anew.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn set_attention_mode(&self, mode: AttentionMode) -> Result<AttentionModeSet> {
        let reply = self.call(&SetAttentionMode { mode: mode.name().to_owned() }, &[])?.reply;
        self.remember_attention(mode);
        Ok(reply)
    }
}

/// The control residuals by the names of the wire.
fn residuals<'a>(input: &ForwardInput<'a>) -> Vec<(String, ArrayView<'a>)> {
    let control = &input.control;
    let sides = [("input", &control.input), ("middle", &control.middle), ("output", &control.output)];
    let named = |(side, list): (&'static str, &Vec<Option<ArrayView<'a>>>)| {
        let places = list.iter().enumerate();
        places.filter_map(|(index, view)| Some((format!("control/{side}/{index}"), (*view)?))).collect::<Vec<_>>()
    };
    sides.into_iter().flat_map(named).collect()
}
