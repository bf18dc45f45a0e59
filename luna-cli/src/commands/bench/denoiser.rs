//! `bench unet`: how fast a denoiser answers, to how many callers at once, and in how much memory.

use super::{layers::LayersOutcome, shapes, unet_shapes};
use crate::{
    commands::{forward::DenoiserOutcome, outcome::runtime},
    output::Output,
    settings,
};
use luna_core::{
    ArrayView, Call, CancelToken, Error, ErrorKind, LayerTimes, Limits, Result,
    checkpoint::{Checkpoint, ComponentKind},
    diffusion::{Denoiser, ForwardInput, ForwardOptions, LoadOptions, Report},
    limits::check_at_most,
    memory,
};
use serde::Serialize;
use std::time::Instant;

/// Context tokens of each item: one chunk of a CLIP.
const TOKENS: usize = 77;
/// Picture pixels along a side for each latent pixel.
const FACTOR: usize = 8;

/// What was measured.
#[derive(Serialize)]
pub struct DenoiserBenchOutcome {
    pub model: DenoiserOutcome,
    pub parameters: u64,
    /// `[batch, channels, height, width]` of each call.
    pub shape: [usize; 4],
    pub context_tokens: usize,
    pub precision: &'static str,
    pub attention: &'static str,
    pub device: String,
    pub threads: usize,
    /// How many called at the same time.
    pub callers: usize,
    /// From the first counted call to the last answer.
    pub seconds: f64,
    /// The fastest counted call.
    pub best_seconds: f64,
    pub median_seconds: f64,
    /// Answers in all over `seconds`.
    pub calls_per_second: f64,
    /// Floating-point operations of one call by the direct algorithm, in units of 10⁹.
    pub gflop: f64,
    /// Of all callers together.
    pub gflops: f64,
    /// What this machine's threads reach at most in f32; `None` on other devices.
    pub peak_gflops: Option<f64>,
    pub share_of_peak: Option<f64>,
    /// What the process held with the model loaded, before the first call.
    pub loaded_memory_bytes: Option<u64>,
    /// What it held at most while it answered.
    pub running_memory_bytes: Option<u64>,
    /// What it held at most ever, also while the model was loaded.
    pub peak_memory_bytes: Option<u64>,
    pub layers: Option<LayersOutcome>,
}

/// Runs the model, warm.
pub fn run(settings: &settings::DenoiserBench, token: &CancelToken, output: &Output) -> Result<DenoiserBenchOutcome> {
    let runtime = runtime(&settings.compute)?;
    let start = Instant::now();
    let checkpoint = open(&settings.model)?;
    let precision = settings.compute.precision;
    let load = LoadOptions { attention: settings.attention, precision };
    let denoiser = Denoiser::load(&checkpoint, &runtime, &load)?;
    let parameters = checkpoint.recognise().component(ComponentKind::Diffusion).map_or(0, |found| found.parameters);
    drop(checkpoint);
    let load_seconds = start.elapsed().as_secs_f64();
    let input = Input::new(&denoiser, settings.size, settings.batch.get())?;
    let loaded_memory_bytes = memory::resident();
    let watched = output.watched_call("denoising", token);
    let call = |call: &Call| -> Result<(Report, Option<u64>)> {
        let options = ForwardOptions { precision, call: call.clone(), ..Default::default() };
        let report = denoiser.forward(&input.view()?, &options)?.report;
        Ok((report, memory::resident()))
    };
    let (first, layers) = (LayerTimes::new(), LayerTimes::new());
    call(&watched.clone().timed_by(&first))?;
    let start = Instant::now();
    let answers = std::thread::scope(|scope| {
        let caller = || (0..settings.runs).map(|_| call(&watched)).collect::<Result<Vec<_>>>();
        let callers: Vec<_> = (0..settings.callers.get()).map(|_| scope.spawn(caller)).collect();
        let joined = callers.into_iter().map(|caller| caller.join().unwrap_or_else(|_| Err(broken())));
        joined.collect::<Result<Vec<_>>>()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let layered = settings.layers.then(|| call(&watched.clone().timed_by(&layers))).transpose()?;
    output.finish_progress();
    // Before the rate is measured, which takes memory of its own.
    let peak_memory_bytes = memory::peak_resident();
    let peak_gflops = runtime.measure_peak().map(|rate| rate / 1e9);
    let answers: Vec<_> = answers.into_iter().flatten().collect();
    let mut times: Vec<_> = answers.iter().map(|(report, _)| report.elapsed.as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    let (calls_per_second, gflop) = (times.len() as f64 / seconds, first.operations() as f64 / 1e9);
    Ok(DenoiserBenchOutcome {
        model: DenoiserOutcome::of(settings.model.name(), &denoiser, load_seconds),
        parameters,
        shape: input.shape,
        context_tokens: TOKENS,
        precision: precision.name(),
        attention: settings.attention.name(),
        device: runtime.device().to_string(),
        threads: runtime.threads(),
        callers: settings.callers.get(),
        seconds,
        best_seconds: times[0],
        median_seconds: times[times.len() / 2],
        calls_per_second,
        gflop,
        gflops: gflop * calls_per_second,
        peak_gflops,
        share_of_peak: peak_gflops.map(|peak| gflop * calls_per_second / peak),
        loaded_memory_bytes,
        running_memory_bytes: answers.iter().filter_map(|(_, bytes)| *bytes).max(),
        peak_memory_bytes,
        layers: layered.map(|(report, _)| LayersOutcome::of(&layers, report.elapsed.as_secs_f64(), peak_gflops)),
    })
}

fn broken() -> Error {
    Error::new(ErrorKind::Internal, "a caller's thread panicked")
}

/// The file of a real model, or one of the real names and shapes in f16, made in memory.
fn open(model: &settings::DenoiserModel) -> Result<Checkpoint> {
    match model {
        settings::DenoiserModel::Existing(path) => Checkpoint::open(path, &Limits::default()),
        settings::DenoiserModel::Random(shape) => {
            let tensors = unet_shapes::tensors(*shape).ok_or_else(|| {
                Error::new(ErrorKind::InvalidInput, format!("{} has no UNet that can be made up", shapes::name(*shape)))
                    .expected("--shape sd15 or sdxl")
            })?;
            Checkpoint::from_bytes(shapes::name(*shape), shapes::random_half_file(&tensors), &Limits::default())
        }
    }
}

/// Random numbers of the shapes that the model takes.
pub struct Input {
    shape: [usize; 4],
    context_shape: [usize; 3],
    x: Vec<f32>,
    timesteps: Vec<f32>,
    context: Vec<f32>,
    y: Option<([usize; 2], Vec<f32>)>,
    guidance: Option<Vec<f32>>,
}

impl Input {
    /// For square pictures of `size` pixels.
    pub fn new(denoiser: &Denoiser, size: usize, batch: usize) -> Result<Self> {
        let facts = denoiser.facts();
        let side = size / FACTOR;
        let multiple = FACTOR * facts.size_multiple;
        if size == 0 || !size.is_multiple_of(multiple) {
            return Err(Error::new(ErrorKind::InvalidInput, "--size does not fit the model")
                .expected(format!("a multiple of {multiple}"))
                .found(size.to_string()));
        }
        let limits = Limits::default();
        check_at_most("pixels along a side", size as u64, limits.image_side as u64)?;
        check_at_most("latents in a batch", batch as u64, limits.batch as u64)?;
        let shape = [batch, facts.input_channels, side, side];
        let context_shape = [batch, TOKENS, facts.context_width];
        let random = |seed, shape: &[usize]| shapes::random_values(seed, shape.iter().product(), 1.7);
        let y = facts.y_width.map(|width| [batch, width.get()]);
        Ok(Self {
            x: random(1, &shape),
            timesteps: vec![facts.last_timestep / 2.0; batch],
            context: random(2, &context_shape),
            y: y.map(|shape| (shape, random(3, &shape))),
            guidance: facts.takes_guidance.then(|| vec![3.5; batch]),
            shape,
            context_shape,
        })
    }

    /// `[batch, channels, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    pub fn view(&self) -> Result<ForwardInput<'_>> {
        let y = self.y.as_ref().map(|(shape, values)| ArrayView::new(shape, values)).transpose()?;
        let (x, context) = (ArrayView::new(&self.shape, &self.x)?, ArrayView::new(&self.context_shape, &self.context)?);
        Ok(ForwardInput { y, guidance: self.guidance.as_deref(), ..ForwardInput::new(x, &self.timesteps, context) })
    }
}
