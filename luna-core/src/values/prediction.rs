//! Predictions: what a denoiser answers to one step of a sampler.

/// A denoiser's raw output: f32, `[batch, channels, height, width]` in row-major order. Noise, velocity or flow,
/// whichever the model was trained to predict; a sampler turns it into the next latent.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    shape: [usize; 4],
    data: Vec<f32>,
}

impl Prediction {
    /// The caller has counted the values.
    pub(crate) fn new(shape: [usize; 4], data: Vec<f32>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Self { shape, data }
    }

    /// `[batch, channels, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The values, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values, row-major, without a copy.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }
}
