//! `bench text`: how fast a text encoder answers, and in how much memory.

use super::{layers::LayersOutcome, shapes, text_shapes};
use crate::{commands::outcome::runtime, output::Output, settings};
use luna_core::{
    Call, CancelToken, Error, ErrorKind, LayerTimes, Limits, Precision, Result,
    checkpoint::Checkpoint,
    memory,
    text::{Conditioner, TextLoadOptions, TextModel, TextOptions, TokenIds},
};
use serde::Serialize;
use std::time::Instant;

/// CLIP's ids around every sequence.
const START: u32 = 49406;
const END: u32 = 49407;

/// What was measured.
#[derive(Serialize)]
pub struct TextBenchOutcome {
    pub model: String,
    /// The file's text encoders, with all of which each sequence is encoded.
    pub encoders: Vec<&'static str>,
    pub weight_bytes: u64,
    pub tokens: usize,
    pub precision: &'static str,
    pub device: String,
    pub threads: usize,
    pub load_seconds: f64,
    /// The first call, in which memory is touched for the first time.
    pub first_seconds: f64,
    /// The fastest counted call.
    pub best_seconds: f64,
    pub median_seconds: f64,
    /// Floating-point operations of one call, in units of 10⁹: products with weights, and attention.
    pub gflop: f64,
    pub gflops: f64,
    /// What this machine's threads reach at most in f32; `None` on other devices.
    pub peak_gflops: Option<f64>,
    pub share_of_peak: Option<f64>,
    pub peak_memory_bytes: Option<u64>,
    pub layers: Option<LayersOutcome>,
}

/// Runs the encoder on one full sequence of tokens.
pub fn run(settings: &settings::TextBench, token: &CancelToken, output: &Output) -> Result<TextBenchOutcome> {
    let runtime = runtime(&settings.compute)?;
    let precision = settings.compute.precision;
    let start = Instant::now();
    let checkpoint = open(&settings.model, precision)?;
    let model = TextModel::load(&checkpoint, &runtime, &TextLoadOptions::default())?;
    drop(checkpoint);
    let load_seconds = start.elapsed().as_secs_f64();
    let conditioner = Conditioner::new(&[&model])?;
    let tokens = [sequence()];
    let call = output.watched_call("encoding", token);
    let run = |call: &Call| -> Result<f64> {
        let options = TextOptions { precision, call: call.clone(), ..TextOptions::default() };
        let start = Instant::now();
        conditioner.encode_ids(&tokens, &options)?;
        Ok(start.elapsed().as_secs_f64())
    };
    let (first, layers) = (LayerTimes::new(), LayerTimes::new());
    let first_seconds = run(&call.clone().timed_by(&first))?;
    let mut times = (0..settings.runs).map(|_| run(&call)).collect::<Result<Vec<_>>>()?;
    let layered = settings.layers.then(|| run(&call.clone().timed_by(&layers))).transpose()?;
    output.finish_progress();
    times.sort_by(f64::total_cmp);
    // Before the rate is measured, which takes memory of its own.
    let peak_memory_bytes = memory::peak_resident();
    let peak_gflops = runtime.measure_peak().map(|rate| rate / 1e9);
    let gflop = first.operations() as f64 / 1e9;
    let gflops = gflop / times[0];
    Ok(TextBenchOutcome {
        model: settings.model.name(),
        encoders: conditioner.encoders().map(|kind| kind.name()).collect(),
        weight_bytes: model.weight_bytes(),
        tokens: text_shapes::TOKENS,
        precision: precision.name(),
        device: runtime.device().to_string(),
        threads: runtime.threads(),
        load_seconds,
        first_seconds,
        best_seconds: times[0],
        median_seconds: times[times.len() / 2],
        gflop,
        gflops,
        peak_gflops,
        share_of_peak: peak_gflops.map(|peak| gflops / peak),
        peak_memory_bytes,
        layers: layered.map(|seconds| LayersOutcome::of(&layers, seconds, peak_gflops)),
    })
}

/// The file of a real model, or one of the real names and shapes, in f16 where activations are not f32.
fn open(model: &settings::TextBenchModel, precision: Precision) -> Result<Checkpoint> {
    match model {
        settings::TextBenchModel::Existing(path) => Checkpoint::open(path, &Limits::default()),
        settings::TextBenchModel::Random(shape) => {
            let tensors = text_shapes::tensors(*shape).ok_or_else(|| {
                Error::new(ErrorKind::InvalidInput, format!("{} has no text encoder of its own", shapes::name(*shape)))
                    .expected("--shape clip-l or clip-g")
            })?;
            let file = match precision {
                Precision::F32 => shapes::random_file(&tensors),
                _ => shapes::random_half_file(&tensors),
            };
            Checkpoint::from_bytes(shapes::name(*shape), file, &Limits::default())
        }
    }
}

/// One full sequence of any words.
fn sequence() -> TokenIds {
    let words = (1..text_shapes::TOKENS as u32 - 1).map(|i| i * 613 % START);
    TokenIds { ids: std::iter::once(START).chain(words).chain([END]).collect(), mask: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::ShapeArg;
    use luna_core::Runtime;

    /// Counted by hand: 12 layers of 12 · 768² weights, and attention over 768 channels.
    #[test]
    fn operations_are_those_of_the_layers() {
        let checkpoint = open(&settings::TextBenchModel::Random(ShapeArg::ClipL), Precision::F16).unwrap();
        let model = TextModel::load(&checkpoint, &Runtime::cpu().unwrap(), &TextLoadOptions::default()).unwrap();
        let times = LayerTimes::new();
        let options = TextOptions { call: Call::new().timed_by(&times), ..TextOptions::default() };
        Conditioner::new(&[&model]).unwrap().encode_ids(&[sequence()], &options).unwrap();
        assert_eq!(times.operations(), 12 * (2 * 77 * 12 * 768 * 768 + 4 * 77 * 77 * 768));
    }

    #[test]
    fn a_sequence_is_a_full_one() {
        let ids = sequence().ids;
        assert_eq!((ids.len(), ids[0], ids[76]), (77, START, END));
        assert!(ids[1..76].iter().all(|id| *id < START));
    }
}
