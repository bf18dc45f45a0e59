//! Denoisers. Enters: a path; then one step of a sampler. Leaves: the network's raw prediction.

mod options;

use crate::{
    call::{Log, Watch, watched},
    daemon::RemoteModel,
    error::{Result, wrong},
    handle::{Caller, boundary, free, object},
    lora::stack_of,
    options::{LUNA_FALLBACK_WIDENED, attention, attention_number, luna_report, precision},
    session::{Place, Session},
    status::luna_status,
    table::{self, Object},
    tensor::Tensor,
    types::{luna_model, luna_session, luna_tensor},
    view::{Floats, Meaning, floats, luna_view, optional_floats},
};
use luna_core::{
    ArrayView, AttentionMode, Prediction,
    checkpoint::Family,
    diffusion::{
        CacheReport, Control, Denoiser, Fallback, FirstBlockCache, ForwardInput, ForwardOptions, LoadOptions, Predicted,
    },
    protocol::{ForwardCache, ModelForward},
    registry::Lease,
};
use options::Asked;
pub use options::*;
use std::{
    ffi::{CStr, c_char},
    num::NonZeroUsize,
    sync::Arc,
};

/// The most residuals of each kind: more than any network has blocks.
const MOST_RESIDUALS: u64 = 256;

/// The object behind `luna_model`.
pub(crate) struct LoadedModel {
    source: Source,
    /// As this handle was loaded with, whoever loaded the model first.
    attention: AttentionMode,
    log: Log,
}

/// Where its weights are.
enum Source {
    /// In this process, with the session's first-block cache.
    Here {
        denoiser: Lease<Denoiser>,
        steps: FirstBlockCache,
    },
    There(RemoteModel),
}

impl Object for LoadedModel {
    const NAME: &'static str = "luna_model";
}

impl LoadedModel {
    /// Its weights, where they are in this process.
    pub(crate) fn here(&self) -> Option<&Denoiser> {
        match &self.source {
            Source::Here { denoiser, .. } => Some(denoiser),
            Source::There(_) => None,
        }
    }
}

/// An architecture's name, which is valid for ever.
fn family_name(name: &str) -> &'static CStr {
    let known = [
        (Family::SdUnet, c"Stable Diffusion UNet"),
        (Family::Flux, c"Flux transformer"),
        (Family::ZImage, c"Z-Image transformer"),
    ];
    known.into_iter().find(|(family, _)| family.name() == name).map_or(c"denoiser", |(_, name)| name)
}

/// The caller's residuals of one side.
fn residuals<'a>(
    caller: &'a Caller,
    what: &str,
    list: *const *const luna_view,
    count: usize,
) -> Result<Vec<Option<Floats<'a>>>> {
    luna_core::limits::check_at_most("control residuals", count as u64, MOST_RESIDUALS)?;
    caller.slice(what, list, count)?.iter().map(|&view| optional_floats(caller, what, view)).collect()
}

fn array<'a>(floats: &'a Floats) -> Result<ArrayView<'a>> {
    Ok(ArrayView::new(&floats.shape, &floats.values)?)
}

fn arrays<'a>(list: &'a [Option<Floats>]) -> Result<Vec<Option<ArrayView<'a>>>> {
    list.iter().map(|floats| floats.as_ref().map(array).transpose()).collect()
}

/// Numbers of which there is one for each item of the batch.
fn one_each<'a>(what: &str, floats: &'a Floats) -> Result<&'a [f32]> {
    if floats.shape.len() == 1 {
        return Ok(&floats.values);
    }
    Err(wrong(format!("{what} has a wrong shape")).expected("[batch]").found(format!("{:?}", floats.shape)).into())
}

impl LoadedModel {
    fn load(session: &Session, path: &str, options: &luna_model_load_options) -> Result<Self> {
        let own = LoadOptions {
            attention: attention(options.attention)?.unwrap_or_default(),
            precision: precision(options.precision)?,
        };
        let source = match session.place() {
            Place::Here(embedded) => Source::Here {
                denoiser: embedded
                    .acquire_file(path, |checkpoint, runtime| Denoiser::load(checkpoint, runtime, &own))?,
                steps: embedded.steps.clone(),
            },
            Place::There(daemon) => Source::There(RemoteModel::load(daemon, path)?),
        };
        Ok(Self { source, attention: own.attention, log: session.log })
    }

    fn info(&self) -> Result<luna_model_info> {
        Ok(match &self.source {
            Source::Here { denoiser, .. } => {
                let facts = denoiser.facts();
                luna_model_info {
                    size: 0,
                    family: family_name(denoiser.family().name()).as_ptr(),
                    input_channels: facts.input_channels as u64,
                    output_channels: facts.output_channels as u64,
                    context_width: facts.context_width as u64,
                    y_width: facts.y_width.map_or(0, NonZeroUsize::get) as u64,
                    takes_guidance: facts.takes_guidance.into(),
                    size_multiple: facts.size_multiple as u32,
                    last_timestep: facts.last_timestep,
                    reserved: 0,
                    weight_bytes: denoiser.weight_bytes(),
                }
            }
            Source::There(remote) => {
                let info = remote.info()?;
                luna_model_info {
                    size: 0,
                    family: family_name(&info.family).as_ptr(),
                    input_channels: info.input_channels as u64,
                    output_channels: info.output_channels as u64,
                    context_width: info.context_width as u64,
                    y_width: info.y_width.unwrap_or_default() as u64,
                    takes_guidance: info.takes_guidance.into(),
                    size_multiple: info.size_multiple as u32,
                    last_timestep: info.last_timestep,
                    reserved: 0,
                    weight_bytes: info.weight_bytes,
                }
            }
        })
    }

    /// One step, here or there.
    fn step(
        self: &Arc<Self>,
        step: &ForwardInput,
        asked: &Asked,
        options: &luna_forward_options,
        watch: &Watch,
    ) -> Result<(Prediction, luna_report)> {
        let stack = stack_of(options.loras)?;
        match &self.source {
            Source::Here { denoiser, steps } => {
                let fitted = stack.map(|stack| stack.for_denoiser(self, denoiser, &watch.call)).transpose()?;
                let own = ForwardOptions {
                    precision: asked.precision,
                    attention: Some(asked.attention),
                    patches: fitted.as_ref().and_then(|fitted| fitted.ready.model()),
                    cache: asked.sequence.as_ref().map(|(name, options)| steps.sequence(name, *options)),
                    call: watch.call.clone(),
                };
                let predicted = denoiser.forward(step, &own)?;
                let mut told = told(&predicted, watch);
                fitted.inspect(|fitted| fitted.fates.tell(&mut told));
                Ok((predicted.prediction, told))
            }
            Source::There(remote) => {
                let request =
                    stack.as_ref().map_or_else(|| Ok(ModelForward::default()), |stack| stack.asked_of_denoiser())?;
                let request = ModelForward {
                    precision: Some(asked.precision.name().to_owned()),
                    attention: Some(asked.attention.name().to_owned()),
                    cache: asked.sequence.as_ref().map(|(name, options)| ForwardCache {
                        sequence: name.clone(),
                        threshold: Some(options.threshold),
                        start_percent: Some(options.start_percent),
                        end_percent: Some(options.end_percent),
                        max_consecutive_hits: options.max_consecutive_hits,
                    }),
                    ..request
                };
                let (prediction, mut told, fate) = remote.forward(step, request, watch)?;
                if let (Some(stack), Some(fate)) = (stack, fate) {
                    stack.told(self, vec![fate]).tell(&mut told);
                }
                Ok((prediction, told))
            }
        }
    }

    fn forward(
        self: &Arc<Self>,
        caller: &Caller,
        input: &luna_forward_input,
        options: &luna_forward_options,
        watch: &Watch,
    ) -> Result<(Tensor, luna_report)> {
        let needed = |what, view| floats(caller, what, view, Meaning::Numbers);
        let (x, timesteps) = (needed("x", input.x)?, needed("timesteps", input.timesteps)?);
        let context = needed("context", input.context)?;
        let (y, guidance) =
            (optional_floats(caller, "y", input.y)?, optional_floats(caller, "guidance", input.guidance)?);
        let side = |what, list, count| residuals(caller, what, list, count);
        let added = [
            side("control_input", input.control_input, input.control_input_count)?,
            side("control_middle", input.control_middle, input.control_middle_count)?,
            side("control_output", input.control_output, input.control_output_count)?,
        ];
        let [input, middle, output] = added.each_ref().map(|list| arrays(list));
        let step = ForwardInput {
            y: y.as_ref().map(array).transpose()?,
            guidance: guidance.as_ref().map(|guidance| one_each("guidance", guidance)).transpose()?,
            control: Control { input: input?, middle: middle?, output: output? },
            ..ForwardInput::new(array(&x)?, one_each("timesteps", &timesteps)?, array(&context)?)
        };
        let asked = Asked::new(caller, options, self.attention)?;
        let (prediction, mut told) = self.step(&step, &asked, options, watch)?;
        let single = [Some(&x), Some(&timesteps), Some(&context), y.as_ref(), guidance.as_ref()];
        let all = single.into_iter().flatten().chain(added.iter().flatten().flatten());
        told.copied_bytes = all.map(|floats| floats.copied).sum();
        Ok((Tensor::Prediction(Arc::new(prediction)), told))
    }
}

fn told(predicted: &Predicted, watch: &Watch) -> luna_report {
    let report = &predicted.report;
    let mut told = luna_report::new(report.precision, report.elapsed);
    told.attention = attention_number(report.attention);
    told.ran(&report.patched);
    if let Some(CacheReport { hit, consecutive_hits, difference, .. }) = report.cache {
        told.cached_steps(hit, consecutive_hits, difference);
    }
    for fallback in &report.fallbacks {
        watch.warn("denoiser", fallback);
        if let Fallback::Widened { non_finite, .. } = fallback {
            told.fallbacks |= LUNA_FALLBACK_WIDENED;
            told.non_finite = *non_finite as u64;
        }
    }
    told
}

/// Loads a denoiser (a Stable Diffusion UNet, a Flux or a Z-Image transformer), or shares the one in memory. `path` is a
/// file, a checkpoint, a `.safetensors.index.json` or a diffusers folder. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_model_load(
    session: luna_session,
    path: *const c_char,
    options: *const luna_model_load_options,
    model: *mut luna_model,
) -> luna_status {
    boundary(|caller| {
        let place = caller.output("model", model)?;
        let session = object::<Session>(session)?;
        let (path, options) = (caller.text("path", path)?, caller.options(options)?);
        place.put(table::insert(LoadedModel::load(&session, crate::session::not_empty("path", path)?, &options)?));
        Ok(())
    })
}

/// Tells what a denoiser takes and gives. A daemon's tells with its first call, and is `LUNA_STATUS_UNSUPPORTED` before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_model_get_info(model: luna_model, info: *mut luna_model_info) -> luna_status {
    boundary(|caller| {
        caller.output("info", info)?;
        let mut place = caller.report(info)?;
        place.put(object::<LoadedModel>(model)?.info()?);
        Ok(())
    })
}

/// One forward step: the network's raw prediction, `[batch, channels, height, width]`. `options` and `report` may be
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_model_forward(
    model: luna_model,
    input: *const luna_forward_input,
    options: *const luna_forward_options,
    prediction: *mut luna_tensor,
    report: *mut luna_report,
) -> luna_status {
    boundary(|caller| {
        let (place, mut report) = (caller.output("prediction", prediction)?, caller.report(report)?);
        caller.value("input", input.cast::<usize>())?;
        let (input, options) = (caller.options(input)?, caller.options(options)?);
        let model = object::<LoadedModel>(model)?;
        let (tensor, told) = watched(options.call, model.log, |watch| model.forward(caller, &input, &options, watch))?;
        place.put(tensor.open());
        report.put(told);
        Ok(())
    })
}

/// Frees a denoiser's handle. The model stays in memory for the next one, as the session's budget allows.
#[unsafe(no_mangle)]
pub extern "C" fn luna_model_free(model: luna_model) -> luna_status {
    free::<LoadedModel>(model)
}
