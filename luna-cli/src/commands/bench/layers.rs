//! What each layer of a model takes.

use luna_core::LayerTimes;
use serde::Serialize;

/// One run, layer by layer.
#[derive(Serialize)]
pub struct LayersOutcome {
    /// The run, measured in itself: it is not one of the counted runs.
    pub seconds: f64,
    /// What no layer took: activations, sums, copies.
    pub rest_seconds: f64,
    /// In the order in which they ran first.
    pub layers: Vec<LayerOutcome>,
}

/// One layer.
#[derive(Serialize)]
pub struct LayerOutcome {
    pub layer: String,
    /// How often it ran: once for each tile, band or batch.
    pub calls: u64,
    /// In all.
    pub seconds: f64,
    /// Floating-point operations of the direct algorithm, in all, in units of 10⁹; 0 for norms.
    pub gflop: f64,
    pub gflops: f64,
    pub share_of_peak: Option<f64>,
}

impl LayersOutcome {
    /// What was noted in a run of `seconds`.
    pub fn of(times: &LayerTimes, seconds: f64, peak_gflops: Option<f64>) -> Self {
        let layers: Vec<_> = times
            .layers()
            .into_iter()
            .map(|layer| {
                let (seconds, gflop) = (layer.elapsed.as_secs_f64(), layer.operations as f64 / 1e9);
                let gflops = if seconds > 0.0 { gflop / seconds } else { 0.0 };
                LayerOutcome {
                    layer: layer.name,
                    calls: layer.calls,
                    seconds,
                    gflop,
                    gflops,
                    share_of_peak: peak_gflops.map(|peak| gflops / peak),
                }
            })
            .collect();
        let rest = seconds - layers.iter().map(|layer| layer.seconds).sum::<f64>();
        Self { seconds, rest_seconds: rest.max(0.0), layers }
    }
}
