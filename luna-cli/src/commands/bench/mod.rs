//! `bench`: how fast a model runs on this machine, and in how much memory.

mod denoiser;
mod layers;
mod lora;
mod lora_model;
mod shapes;
mod text;
mod text_shapes;
mod unet_shapes;

pub use denoiser::{DenoiserBenchOutcome, run as run_denoiser};
pub use layers::LayersOutcome;
pub use lora::{LoraBenchOutcome, run as run_lora};
pub use text::{TextBenchOutcome, run as run_text};

use super::outcome::{CallOutcome, VaeOutcome, call_memory, runtime, tile_choice};
use crate::{
    args::Direction,
    output::Output,
    settings::{self, BenchModel},
    vaes::NamedVae,
};
use luna_core::{
    Call, CancelToken, Error, ErrorKind, Image, Latent, LayerTimes, Limits, Result, Runtime,
    checkpoint::{Checkpoint, ComponentKind},
    files::{IfExists, write_atomically},
    limits::check_at_most,
    memory,
    vae::{DecodeOptions, EncodeOptions, Halves, Report, TileChoice, Vae},
};
use serde::Serialize;

/// What `bench` measured.
#[derive(Serialize)]
pub struct BenchOutcome {
    pub vae: VaeOutcome,
    pub parameters: u64,
    /// Of the square picture.
    pub size: usize,
    pub precision: &'static str,
    pub device: String,
    pub threads: usize,
    /// What this machine's threads reach at most in f32, in which all sums are made; `None` on other devices.
    pub peak_gflops: Option<f64>,
    pub timings: Vec<Timing>,
    pub peak_memory_bytes: Option<u64>,
}

/// One direction.
#[derive(Serialize)]
pub struct Timing {
    pub direction: &'static str,
    /// The fastest counted run.
    pub best_seconds: f64,
    pub median_seconds: f64,
    /// Floating-point operations of the direct algorithm, those of overlapping tiles included, in units of 10⁹.
    pub gflop: f64,
    pub gflops: f64,
    /// `gflops` over `peak_gflops`. May exceed 1: an algorithm may need fewer operations than the direct one.
    pub share_of_peak: Option<f64>,
    /// How the fastest run was done.
    pub call: CallOutcome,
    pub layers: Option<LayersOutcome>,
}

/// Runs each direction, warm.
pub fn run(settings: &settings::VaeBench, token: &CancelToken, output: &Output) -> Result<BenchOutcome> {
    let runtime = runtime(&settings.compute)?;
    let (named, parameters) = load(settings, &runtime)?;
    let bench = Bench { named, settings, token, output };
    bench.check_size()?;
    let measured = settings.directions.iter().map(|&direction| bench.time(direction)).collect::<Result<Vec<_>>>()?;
    output.finish_progress();
    // Before the rate is measured, which takes memory of its own.
    let peak_memory_bytes = memory::peak_resident();
    let peak_gflops = runtime.measure_peak().map(|rate| rate / 1e9);
    let timings = measured.into_iter().map(|measured| bench.timing(measured, peak_gflops)).collect();
    Ok(BenchOutcome {
        vae: VaeOutcome::of(&bench.named),
        parameters,
        size: settings.size,
        precision: settings.compute.precision.name(),
        device: runtime.device().to_string(),
        threads: runtime.threads(),
        peak_gflops,
        timings,
        peak_memory_bytes,
    })
}

/// The model, and its parameters; the file is closed before anything is measured.
fn load(settings: &settings::VaeBench, runtime: &Runtime) -> Result<(NamedVae, u64)> {
    let model = &settings.model;
    let checkpoint = match model {
        BenchModel::Random(shape) => {
            let file = shapes::random_file(&shapes::tensors(*shape));
            if let Some(path) = &settings.keep {
                write_atomically(path, &file, IfExists::Replace)?;
            }
            Checkpoint::from_bytes(shapes::name(*shape), file, &Limits::default())?
        }
        BenchModel::Existing(choice) => choice.open()?,
    };
    let halves = match settings.directions[..] {
        [Direction::Encode] => Halves::Encoder,
        [Direction::Decode] => Halves::Decoder,
        _ => Halves::Both,
    };
    let named = match model {
        BenchModel::Random(shape) => NamedVae {
            vae: Vae::load_halves(&checkpoint, runtime, halves)?,
            name: format!("{} shape", shapes::name(*shape)),
            caution: Some("random weights"),
        },
        BenchModel::Existing(choice) => choice.load_opened(&checkpoint, runtime, halves)?,
    };
    let found = checkpoint.recognise();
    let component = found
        .component(ComponentKind::Vae)
        .ok_or_else(|| Error::new(ErrorKind::Internal, "a VAE was loaded from a file in which none was recognised"))?;
    Ok((named, component.parameters))
}

/// Runs the model.
type Runs<'a> = Box<dyn Fn(Call) -> Result<Report> + 'a>;

/// One direction, run.
struct Measured {
    name: &'static str,
    operations: u64,
    /// The fastest first.
    reports: Vec<Report>,
    /// One more run, layer by layer, and its seconds.
    layers: Option<(LayerTimes, f64)>,
}

/// One model in one set of circumstances.
struct Bench<'a> {
    named: NamedVae,
    settings: &'a settings::VaeBench,
    token: &'a CancelToken,
    output: &'a Output,
}

impl Bench<'_> {
    fn check_size(&self) -> Result<()> {
        let (size, factor) = (self.settings.size, self.named.vae.factor());
        if size == 0 || size % factor != 0 {
            return Err(Error::new(ErrorKind::InvalidInput, "--size does not fit the VAE")
                .expected(format!("a multiple of {factor}"))
                .found(size.to_string()));
        }
        check_at_most("pixels along a side", size as u64, Limits::default().image_side as u64)
    }

    fn time(&self, direction: Direction) -> Result<Measured> {
        let (name, run) = self.prepare(direction)?;
        let call = self.output.watched_call(name, self.token);
        let (first, layers) = (LayerTimes::new(), LayerTimes::new());
        run(call.clone().timed_by(&first))?;
        let mut reports = (0..self.settings.runs).map(|_| run(call.clone())).collect::<Result<Vec<_>>>()?;
        reports.sort_by_key(|report| report.elapsed);
        let layered = self.settings.layers.then(|| run(call.timed_by(&layers))).transpose()?;
        let layers = layered.map(|report| (layers, report.elapsed.as_secs_f64()));
        Ok(Measured { name, operations: first.operations(), reports, layers })
    }

    fn timing(&self, measured: Measured, peak_gflops: Option<f64>) -> Timing {
        let Measured { name, operations, reports, layers } = measured;
        let best = &reports[0];
        let (seconds, gflop) = (best.elapsed.as_secs_f64(), operations as f64 / 1e9);
        let gflops = gflop / seconds;
        Timing {
            direction: name,
            best_seconds: seconds,
            median_seconds: reports[reports.len() / 2].elapsed.as_secs_f64(),
            gflop,
            gflops,
            share_of_peak: peak_gflops.map(|peak| gflops / peak),
            call: CallOutcome::of(best, &self.named.vae),
            layers: layers.map(|(times, seconds)| LayersOutcome::of(&times, seconds, peak_gflops)),
        }
    }

    /// Makes a random input and gives back the direction's name and what runs the model on it.
    fn prepare(&self, direction: Direction) -> Result<(&'static str, Runs<'_>)> {
        let Self { named: NamedVae { vae, .. }, settings, .. } = self;
        let (size, side) = (settings.size, settings.size / vae.factor());
        let precision = settings.compute.precision;
        let tiles: TileChoice = tile_choice(settings.memory.tiles, vae)?;
        let memory_limit = call_memory(&settings.memory, (size * size * 3 * 4) as u64)?;
        Ok(match direction {
            Direction::Decode => {
                let shape = [1, vae.latent_channels(), side, side];
                let latent = Latent::new(shape, shapes::random_values(1, shape.iter().product(), 1.7))?;
                let run = move |call| {
                    Ok(vae.decode(&latent, &DecodeOptions { precision, tiles, memory_limit, call })?.report)
                };
                ("decode", Box::new(run))
            }
            Direction::Encode => {
                let shape = [1, size, size, 3];
                let values = shapes::random_values(2, shape.iter().product(), 0.5);
                let image = Image::new(shape, values.into_iter().map(|value| value + 0.5).collect())?;
                let run = move |call| {
                    let options = EncodeOptions { precision, tiles, memory_limit, call, ..Default::default() };
                    Ok(vae.encode(&image, &options)?.report)
                };
                ("encode", Box::new(run))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::ShapeArg;

    /// Operations of a latent of 8×8 pixels through the decoder, and of its picture through the encoder.
    fn operations(shape: ShapeArg) -> [u64; 2] {
        let file = shapes::random_file(&shapes::tensors(shape));
        let checkpoint = Checkpoint::from_bytes("random", file, &Limits::default()).unwrap();
        let vae = Vae::load(&checkpoint, &Runtime::cpu().unwrap()).unwrap();
        let [decoding, encoding] = [LayerTimes::new(), LayerTimes::new()];
        let timed = |times| Call::new().timed_by(times);
        let latent = Latent::new([1, vae.latent_channels(), 8, 8], vec![0.0; vae.latent_channels() * 64]).unwrap();
        let image = vae.decode(&latent, &DecodeOptions { call: timed(&decoding), ..Default::default() }).unwrap();
        vae.encode(&image.image, &EncodeOptions { call: timed(&encoding), ..Default::default() }).unwrap();
        [decoding, encoding].map(|times| times.operations())
    }

    /// Counted by torch's FlopCounterMode over diffusers' models.
    #[test]
    fn operations_are_those_that_torch_counts() {
        assert_eq!(operations(ShapeArg::Sdxl), [38_760_876_032, 16_919_306_240]);
        assert_eq!(operations(ShapeArg::Taesd), [35_337_535_488 / 16, 30_581_194_752 / 16]);
    }
}
