//! `bench text`: how fast a text encoder answers, and in how much memory.

use super::{shapes, text_shapes};
use crate::{commands::outcome::runtime, output::Output, settings};
use luna_core::{
    CancelToken, Error, ErrorKind, Limits, Precision, Result,
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
    /// Floating-point operations of one call, in units of 10⁹: products with weight matrices, and attention.
    pub gflop: f64,
    pub gflops: f64,
    /// What this machine's threads reach at most in f32; `None` on other devices.
    pub peak_gflops: Option<f64>,
    pub share_of_peak: Option<f64>,
    pub peak_memory_bytes: Option<u64>,
}

/// Runs the encoder on one full sequence of tokens.
pub fn run(settings: &settings::TextBench, token: &CancelToken, output: &Output) -> Result<TextBenchOutcome> {
    let runtime = runtime(&settings.compute)?;
    let precision = settings.compute.precision;
    let start = Instant::now();
    let checkpoint = open(&settings.model, precision)?;
    let gflop = operations(&checkpoint) as f64 / 1e9;
    let model = TextModel::load(&checkpoint, &runtime, &TextLoadOptions::default())?;
    drop(checkpoint);
    let load_seconds = start.elapsed().as_secs_f64();
    let conditioner = Conditioner::new(&[&model])?;
    let tokens = [sequence()];
    let call = output.watched_call("encoding", token);
    let options = TextOptions { precision, call, ..TextOptions::default() };
    let run = || -> Result<f64> {
        let start = Instant::now();
        conditioner.encode_ids(&tokens, &options)?;
        Ok(start.elapsed().as_secs_f64())
    };
    let first_seconds = run()?;
    let mut times = (0..settings.runs).map(|_| run()).collect::<Result<Vec<_>>>()?;
    output.finish_progress();
    times.sort_by(f64::total_cmp);
    // Before the rate is measured, which takes memory of its own.
    let peak_memory_bytes = memory::peak_resident();
    let peak_gflops = runtime.measure_peak().map(|rate| rate / 1e9);
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

/// Twice the weights of each layer for each token, and scores and sums of its attention. Embeddings are no product, and
/// the last projection is of one token only.
fn operations(checkpoint: &Checkpoint) -> u64 {
    let tokens = text_shapes::TOKENS as u64;
    let layers = checkpoint.tensors().filter(|tensor| tensor.shape.len() == 2 && tensor.name.contains(".layers."));
    layers
        .map(|tensor| {
            let attention =
                if tensor.name.contains("k_proj") { 4 * tokens * tokens * tensor.shape[0] as u64 } else { 0 };
            2 * tokens * tensor.shape.iter().product::<usize>() as u64 + attention
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::ShapeArg;

    /// Counted by hand: 12 layers of 12 · 768² weights, and attention over 768 channels.
    #[test]
    fn operations_are_those_of_the_layers() {
        let tensors = text_shapes::tensors(ShapeArg::ClipL).unwrap();
        let checkpoint = Checkpoint::from_bytes("x", shapes::random_half_file(&tensors), &Limits::default()).unwrap();
        assert_eq!(operations(&checkpoint), 12 * (2 * 77 * 12 * 768 * 768 + 4 * 77 * 77 * 768));
        let ids = sequence().ids;
        assert_eq!((ids.len(), ids[0], ids[76]), (77, START, END));
        assert!(ids[1..76].iter().all(|id| *id < START));
    }
}
