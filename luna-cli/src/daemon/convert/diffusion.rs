//! Denoisers: tensors of a step, options and reports.

use super::notice;
use luna_core::{
    ArrayView, Error, ErrorKind, Result,
    diffusion::{CacheOptions, CachedSequence, Control, Denoiser, FirstBlockCache, ForwardInput, Report},
    lora::ApplyMode,
    protocol::{CacheOutcome, DenoiserInfo, Dtype, ForwardCache, ForwardReport, Message, Notice, Tensor},
};
use std::num::NonZeroUsize;

/// The most residuals in a control list: more than any known UNet has skip connections.
const RESIDUALS: usize = 256;
const SIDES: [&str; 3] = ["input", "middle", "output"];

/// The tensors of a step, in f32.
pub struct StepTensors {
    x: Array,
    timesteps: Vec<f32>,
    context: Array,
    y: Option<Array>,
    guidance: Option<Vec<f32>>,
    control: [Vec<Option<Array>>; 3],
}

struct Array {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Array {
    fn read(tensor: Tensor) -> Result<Self> {
        Ok(Self { shape: tensor.shape().to_vec(), values: numbers(tensor)? })
    }

    fn view(&self) -> Result<ArrayView<'_>> {
        ArrayView::new(&self.shape, &self.values)
    }
}

/// Floats widened; whole numbers, as which timesteps are often sent, converted.
fn numbers(tensor: Tensor) -> Result<Vec<f32>> {
    let bytes = tensor.view().bytes;
    Ok(match tensor.dtype() {
        Dtype::I64 => bytes.as_chunks().0.iter().map(|&eight| i64::from_le_bytes(eight) as f32).collect(),
        Dtype::I32 => bytes.as_chunks().0.iter().map(|&four| i32::from_le_bytes(four) as f32).collect(),
        _ => tensor.values()?,
    })
}

impl StepTensors {
    /// # Errors
    /// `InvalidInput` for a tensor that is missing or that means nothing here, `Unsupported` for an element type.
    pub fn read(message: &Message) -> Result<Self> {
        let mut control = [const { Vec::new() }; 3];
        for tensor in message.tensors() {
            match tensor.name() {
                "x" | "timesteps" | "context" | "y" | "guidance" => {}
                name => add_residual(&mut control, name, tensor)?,
            }
        }
        let optional = |name: &str| message.tensors().find(|tensor| tensor.name() == name);
        Ok(Self {
            x: Array::read(message.tensor("x")?)?,
            timesteps: numbers(message.tensor("timesteps")?)?,
            context: Array::read(message.tensor("context")?)?,
            y: optional("y").map(Array::read).transpose()?,
            guidance: optional("guidance").map(numbers).transpose()?,
            control,
        })
    }

    /// As the denoiser takes it.
    pub fn input(&self) -> Result<ForwardInput<'_>> {
        let [input, middle, output] = &self.control;
        Ok(ForwardInput {
            y: self.y.as_ref().map(Array::view).transpose()?,
            guidance: self.guidance.as_deref(),
            control: Control { input: views(input)?, middle: views(middle)?, output: views(output)? },
            ..ForwardInput::new(self.x.view()?, &self.timesteps, self.context.view()?)
        })
    }
}

fn views(list: &[Option<Array>]) -> Result<Vec<Option<ArrayView<'_>>>> {
    list.iter().map(|array| array.as_ref().map(Array::view).transpose()).collect()
}

/// `control/SIDE/INDEX`; what is missing between two is an empty place.
fn add_residual(control: &mut [Vec<Option<Array>>; 3], name: &str, tensor: Tensor) -> Result<()> {
    let parts = name.strip_prefix("control/").and_then(|rest| rest.split_once('/'));
    let place = parts.and_then(|(side, index)| {
        let side = SIDES.iter().position(|known| *known == side)?;
        Some((side, index.parse::<usize>().ok().filter(|index| *index < RESIDUALS)?))
    });
    let Some((side, index)) = place else {
        return Err(Error::new(ErrorKind::InvalidInput, "a tensor means nothing to `model_forward`")
            .expected(format!(
                "`x`, `timesteps`, `context`, `y`, `guidance`, or `control/{}/0` to `/{}`",
                SIDES.join("|"),
                RESIDUALS - 1
            ))
            .found(format!("`{name}`")));
    };
    let list = &mut control[side];
    if list.len() <= index {
        list.resize_with(index + 1, || None);
    }
    list[index] = Some(Array::read(tensor)?);
    Ok(())
}

/// How a request wants its LoRAs applied, and how many calls will come.
pub fn apply_mode(mode: Option<&str>, forwards: Option<usize>) -> Result<ApplyMode> {
    match mode {
        None | Some("functional") => Ok(ApplyMode::Functional),
        Some("merged") => Ok(ApplyMode::Merged),
        Some("auto") => Ok(ApplyMode::Auto { forwards: forwards.and_then(NonZeroUsize::new) }),
        Some(other) => Err(Error::new(ErrorKind::InvalidInput, "no such `lora_mode`")
            .expected("`functional`, `merged` or `auto`")
            .found(format!("`{other}`"))),
    }
}

/// A sampling's place in the cache, under a name that no other client's or model's meets.
pub fn cached_sequence(cache: &FirstBlockCache, owner: &str, wish: &ForwardCache) -> CachedSequence {
    let mut options = CacheOptions::default();
    options.threshold = wish.threshold.unwrap_or(options.threshold);
    options.start_percent = wish.start_percent.unwrap_or(options.start_percent);
    options.end_percent = wish.end_percent.unwrap_or(options.end_percent);
    options.max_consecutive_hits = wish.max_consecutive_hits;
    cache.sequence(format!("{owner}{}", wish.sequence), options)
}

pub fn denoiser_info(name: &str, denoiser: &Denoiser) -> DenoiserInfo {
    let facts = denoiser.facts();
    DenoiserInfo {
        name: name.to_owned(),
        family: denoiser.family().name().to_owned(),
        weight_bytes: denoiser.weight_bytes(),
        input_channels: facts.input_channels,
        output_channels: facts.output_channels,
        context_width: facts.context_width,
        y_width: facts.y_width.map(NonZeroUsize::get),
        takes_guidance: facts.takes_guidance,
        size_multiple: facts.size_multiple,
        last_timestep: facts.last_timestep,
    }
}

pub fn forward_report(report: &Report) -> ForwardReport {
    ForwardReport {
        precision: report.precision.name().to_owned(),
        attention: report.attention.name().to_owned(),
        cache: report.cache.map(|cache| CacheOutcome {
            hit: cache.hit,
            consecutive_hits: cache.consecutive_hits,
            difference: cache.difference.filter(|difference| difference.is_finite()),
        }),
        seconds: report.elapsed.as_secs_f64(),
    }
}

pub fn forward_notices(report: &Report) -> Vec<Notice> {
    report.fallbacks.iter().map(|fallback| notice(fallback.name(), fallback)).collect()
}
