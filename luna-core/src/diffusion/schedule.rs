//! The noise that UNets of Stable Diffusion were trained with. Enters: a number of steps. Leaves: timesteps and their noise
//! levels, for the caller's sampler.

/// Timesteps that the models know, from least noise to most.
const TIMESTEPS: usize = 1000;
/// Variance that the first and the last timestep add; between them its root grows evenly.
const VARIANCE: [f64; 2] = [0.00085, 0.012];

/// A timestep of Stable Diffusion 1.x, 2.x and SDXL, and how much noise stands in the latent there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseLevel {
    /// What `forward` takes, 0 to 999.
    pub timestep: f32,
    /// Standard deviation of the noise, where that of the latent is 1.
    pub sigma: f32,
}

impl NoiseLevel {
    /// As many levels, evenly from timestep 999 to 0, and behind them the end without noise: ComfyUI's schedule "normal".
    ///
    /// ```
    /// let levels = luna_core::diffusion::NoiseLevel::schedule(20);
    /// assert_eq!((levels.len(), levels[0].timestep, levels[20].sigma), (21, 999.0, 0.0));
    /// ```
    pub fn schedule(steps: usize) -> Vec<Self> {
        let logarithms = logarithms();
        let level = |step: usize| {
            let time = (TIMESTEPS - 1) as f64 * (1.0 - step as f64 / (steps.max(2) - 1) as f64);
            let (low, part) = (time as usize, time.fract());
            let high = logarithms[(low + 1).min(TIMESTEPS - 1)];
            let sigma = (logarithms[low] * (1.0 - part) + high * part).exp();
            Self { timestep: time.round() as f32, sigma: sigma as f32 }
        };
        (0..steps).map(level).chain([Self { timestep: 0.0, sigma: 0.0 }]).collect()
    }

    /// What a latent with this noise is divided by before the network sees it, so that its variance is 1 again.
    pub fn input_scale(self) -> f32 {
        (1.0 + self.sigma * self.sigma).sqrt()
    }
}

/// ln σ at each timestep.
fn logarithms() -> Vec<f64> {
    let [first, last] = VARIANCE.map(f64::sqrt);
    let kept = (0..TIMESTEPS).scan(1.0, |kept, timestep| {
        let root = first + (last - first) * timestep as f64 / (TIMESTEPS - 1) as f64;
        *kept *= 1.0 - root * root;
        Some(*kept)
    });
    kept.map(|kept| ((1.0 - kept) / kept).sqrt().ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of ComfyUI's `calculate_sigmas(ModelSamplingDiscrete(), "normal", 5)`.
    #[test]
    fn levels_are_comfyuis() {
        let expected = [14.614_64, 4.086_081, 1.615_580_3, 0.695_149_54, 0.029_167_16, 0.0f32];
        let levels = NoiseLevel::schedule(5);
        for (level, sigma) in levels.iter().zip(expected) {
            assert!((level.sigma - sigma).abs() <= 2e-6 * sigma, "{levels:?}");
        }
        assert_eq!(levels.len(), expected.len());
        assert_eq!(
            levels.iter().map(|level| level.timestep).collect::<Vec<_>>(),
            [999.0, 749.0, 500.0, 250.0, 0.0, 0.0]
        );
    }
}
