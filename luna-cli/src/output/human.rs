//! Outcomes and errors in lines for a person.

mod bench;
mod lora;
mod text;
mod vision;

use super::{config, daemon, units};
use crate::commands::{
    CallOutcome, ComponentOutcome, DecodeOutcome, DemoOutcome, DenoiserOutcome, EncodeOutcome, ForwardOutcome,
    InspectOutcome, Outcome, SaveOutcome, VaeOutcome, lora_notes,
};
use luna_core::Error;
use std::{
    io::{self, Write},
    path::Path,
};

/// What was done.
pub fn outcome(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    match outcome {
        Outcome::Demo(outcome) => demo(out, outcome),
        Outcome::Encode(outcome) => encode(out, outcome),
        Outcome::Decode(outcome) => decode(out, outcome),
        Outcome::Forward(outcome) => forward(out, outcome),
        Outcome::Inspect(outcome) => inspect(out, outcome),
        Outcome::LoraInspect(outcome) => lora::inspect(out, outcome),
        Outcome::Save(outcome) => save(out, outcome),
        Outcome::Text(outcome) => text::text(out, outcome),
        Outcome::Tokenize(outcome) => text::tokenize(out, outcome),
        Outcome::Vision(outcome) => vision::vision(out, outcome),
        Outcome::Describe(outcome) => vision::describe(out, outcome),
        Outcome::Bench(outcome) => bench::vae(out, outcome),
        Outcome::BenchUnet(outcome) => bench::unet(out, outcome),
        Outcome::BenchText(outcome) => bench::text(out, outcome),
        Outcome::BenchLora(outcome) => lora::bench(out, outcome),
        Outcome::Serve(outcome) => daemon::served(out, outcome),
        Outcome::Start(outcome) => daemon::started(out, outcome),
        Outcome::Stop(outcome) => writeln!(out, "the daemon at {} has ended", outcome.address),
        Outcome::Status(outcome) => daemon::status(out, outcome),
        Outcome::Unload(outcome) => daemon::unloaded(out, outcome),
        Outcome::ConfigShow(outcome) => config::show(out, outcome),
        Outcome::ConfigCheck(outcome) => config::checked(out, outcome),
        Outcome::Script { text } => out.write_all(text.as_bytes()),
    }
}

/// What was done otherwise than asked for, and what a person should know about the model.
pub fn notes(outcome: &Outcome) -> Vec<String> {
    let (vae, calls): (Option<&VaeOutcome>, Vec<&CallOutcome>) = match outcome {
        Outcome::Demo(demo) => (None, vec![&demo.encode, &demo.decode]),
        Outcome::Encode(encode) => (Some(&encode.vae), vec![&encode.call]),
        Outcome::Decode(decode) => (Some(&decode.vae), vec![&decode.call]),
        Outcome::Bench(bench) => (None, bench.timings.iter().map(|timing| &timing.call).collect()),
        Outcome::Forward(forward) => return forward_notes(forward),
        Outcome::Save(save) => return save.notes.clone(),
        Outcome::Vision(outcome) => return vision::notes(outcome),
        Outcome::Describe(outcome) => return vision::describe_notes(outcome),
        Outcome::Text(outcome) => return text::notes(outcome),
        Outcome::Tokenize(outcome) => return text::tokenize_notes(outcome),
        _ => (None, Vec::new()),
    };
    let caution = vae.and_then(|vae| Some(format!("{} is {}", vae.name, vae.caution?)));
    let fallbacks = calls.iter().flat_map(|call| &call.fallbacks).map(|fallback| fallback.message.clone());
    caution.into_iter().chain(fallbacks).collect()
}

/// What went wrong: each part on a line of its own.
pub fn error(error: &Error) -> String {
    let mut text = format!("luna-cli: error: {}\n", error.message());
    let parts = [("expected", error.expectation()), ("found", error.finding()), ("remedy", error.advice())];
    for (name, part) in parts {
        if let Some(part) = part {
            text += &format!("  {name:<9} {part}\n");
        }
    }
    text
}

fn demo(out: &mut impl Write, demo: &DemoOutcome) -> io::Result<()> {
    writeln!(out, "Luna took a picture through a VAE to a latent and back.\n")?;
    let picture = demo.picture.as_deref().map_or("the bundled photograph".to_owned(), |p| p.display().to_string());
    line(out, "picture", format!("{picture}, {}", size(demo.picture_size)))?;
    line(out, "model", format!("{}, {}", demo.vae.name, demo.vae.caution.unwrap_or(&demo.vae.family)))?;
    line(out, "encode", how(&demo.encode))?;
    line(out, "latent", shape(&demo.latent_shape))?;
    line(out, "decode", how(&demo.decode))?;
    line(out, "PSNR", demo.psnr.map_or("without loss".to_owned(), |psnr| format!("{psnr:.1} dB")))?;
    peak(out, demo.peak_memory_bytes)?;
    writeln!(out)?;
    demo.outputs.iter().try_for_each(|path| writeln!(out, "{}", path.display()))
}

fn encode(out: &mut impl Write, encode: &EncodeOutcome) -> io::Result<()> {
    let of = match encode.inputs.as_slice() {
        [input] => input.display().to_string(),
        inputs => format!("{} files", inputs.len()),
    };
    writeln!(out, "{}: {}", encode.output.display(), if encode.scaled { "scaled latent" } else { "latent" })?;
    line(out, "shape", shape(&encode.latent_shape))?;
    let cut = if encode.encoded_size == encode.picture_size {
        String::new()
    } else {
        format!(", of which {} were encoded (see --size-rule)", size(encode.encoded_size))
    };
    line(out, "from", format!("{of}, {}{cut}", size(encode.picture_size)))?;
    line(out, "model", model(&encode.vae))?;
    line(out, "time", how(&encode.call))?;
    peak(out, encode.peak_memory_bytes)
}

fn decode(out: &mut impl Write, decode: &DecodeOutcome) -> io::Result<()> {
    let first = decode.outputs.first().map(|path| path.as_path()).unwrap_or(Path::new(""));
    match decode.outputs.len() {
        1 => writeln!(out, "{}: {}", first.display(), size(decode.picture_size))?,
        count => {
            let last = decode.outputs.last().map(|path| path.display().to_string()).unwrap_or_default();
            writeln!(out, "{} to {last}: {count} pictures, {}", first.display(), size(decode.picture_size))?;
        }
    }
    let made_by = decode.made_by.as_ref().map(|model| format!(", made by {model}")).unwrap_or_default();
    let scaled = if decode.scaled { ", scaled" } else { "" };
    let from =
        format!("`{}` of {}, {}{scaled}{made_by}", decode.tensor, decode.input.display(), shape(&decode.latent_shape));
    line(out, "from", from)?;
    line(out, "model", model(&decode.vae))?;
    line(out, "time", how(&decode.call))?;
    peak(out, decode.peak_memory_bytes)
}

fn forward(out: &mut impl Write, forward: &ForwardOutcome) -> io::Result<()> {
    writeln!(out, "{}: prediction", forward.output.display())?;
    for call in &forward.calls {
        line(out, "shape", format!("{}, {} context tokens", shape(&call.shape), call.context_tokens))?;
        line(out, "time", format!("{} in {}", units::seconds(call.seconds), call.precision))?;
        line(out, "attention", call.attention.to_owned())?;
    }
    if let Some(loras) = &forward.loras {
        let mut files = loras.coverage.files.iter();
        files.try_for_each(|file| line(out, "LoRA", format!("{file}, {}", loras.mode)))?;
    }
    line(out, "from", forward.input.display().to_string())?;
    let DenoiserOutcome { name, family, weight_bytes, load_seconds, .. } = &forward.model;
    let (bytes, seconds) = (units::bytes(*weight_bytes), units::seconds(*load_seconds));
    line(out, "model", format!("{name}, {family}, {bytes} of weights, loaded in {seconds}"))?;
    peak(out, forward.peak_memory_bytes)
}

fn forward_notes(forward: &ForwardOutcome) -> Vec<String> {
    let fallbacks = forward.calls.iter().flat_map(|call| &call.fallbacks).map(|fallback| fallback.message.clone());
    let ignored = match &forward.ignored[..] {
        [] => None,
        [one] => Some(format!("the input's tensor `{one}` was not used")),
        [first, ..] => Some(format!("{} tensors of the input such as `{first}` were not used", forward.ignored.len())),
    };
    let loras = forward.loras.iter().flat_map(|loras| lora_notes(&loras.coverage));
    fallbacks.chain(ignored).chain(loras).collect()
}

fn inspect(out: &mut impl Write, inspect: &InspectOutcome) -> io::Result<()> {
    let InspectOutcome { file, bytes, tensors, .. } = inspect;
    let plural = if *tensors == 1 { "" } else { "s" };
    writeln!(out, "{}: {}, {tensors} tensor{plural}", file.display(), units::bytes(*bytes))?;
    inspect.components.iter().try_for_each(|found| component(out, found))?;
    if let Some(latent) = &inspect.latent {
        writeln!(out, "\nlatent")?;
        line(out, "tensor", format!("`{}`, {}", latent.tensor, shape(&latent.shape)))?;
        line(out, "scaled", if latent.scaled { "yes" } else { "no" }.to_owned())?;
        if let Some(model) = &latent.model {
            line(out, "made by", model.clone())?;
        }
        return line(out, "Luna can", "decode it".to_owned());
    }
    if inspect.components.is_empty() {
        return unknown(out, inspect);
    }
    match inspect.unclaimed_tensors {
        0 => Ok(()),
        count => writeln!(out, "\n{count} tensors belong to none of these"),
    }
}

fn save(out: &mut impl Write, save: &SaveOutcome) -> io::Result<()> {
    for picture in &save.pictures {
        let from = picture.input.as_deref().map_or("an earlier run".to_owned(), |input| input.display().to_string());
        let score = match (picture.score, picture.threshold) {
            (Some(score), Some(threshold)) => format!(", score {score:.3} against {threshold}"),
            _ => String::new(),
        };
        match (&picture.path, picture.bytes, picture.milliseconds, &picture.error) {
            (Some(path), Some(bytes), Some(milliseconds), _) => {
                let rejected = if picture.state == "rejected" { "rejected, " } else { "" };
                let (bytes, took) = (units::bytes(bytes), units::seconds(milliseconds / 1e3));
                writeln!(out, "{}: {rejected}{bytes} in {took}, from {from}{score}", path.display())?;
            }
            (_, _, _, Some(error)) if error.starts_with(&from) => writeln!(out, "failed: {error}")?,
            (_, _, _, Some(error)) => writeln!(out, "failed: {from}: {error}")?,
            _ => writeln!(out, "{}: {from}{score}", picture.state)?,
        }
    }
    let SaveOutcome { written, rejected, failed, cancelled, seconds, .. } = save;
    let mut counts = format!("{written} written");
    for (count, name) in [(rejected, "rejected"), (failed, "failed"), (cancelled, "cancelled")] {
        if *count > 0 {
            counts += &format!(", {count} {name}");
        }
    }
    writeln!(out, "{counts} in {}", units::seconds(*seconds))
}

fn component(out: &mut impl Write, found: &ComponentOutcome) -> io::Result<()> {
    writeln!(out, "\n{}: {}", found.kind, found.family)?;
    let prefix = match found.prefix.as_str() {
        "" => "without a prefix".to_owned(),
        prefix => format!("under `{prefix}`"),
    };
    line(out, "names", format!("{}, {prefix}", found.dialect))?;
    let types: Vec<_> =
        found.element_types.iter().map(|(name, bytes)| format!("{name} ({})", units::bytes(*bytes))).collect();
    line(out, "stored as", types.join(", "))?;
    line(out, "size", format!("{} parameters in {} tensors", units::count(found.parameters), found.tensors))?;
    let can = if found.operations.is_empty() { "recognise it".to_owned() } else { found.operations.join(", ") };
    line(out, "Luna can", can)
}

fn unknown(out: &mut impl Write, inspect: &InspectOutcome) -> io::Result<()> {
    writeln!(out, "\nnothing that Luna knows")?;
    if let Some(nearest) = &inspect.nearest {
        line(out, "nearest", format!("{} with {} names", nearest.family, nearest.dialect))?;
        line(out, "lacks", format!("`{}`", nearest.missing.join("`, `")))?;
    }
    writeln!(out, "\nlooked for")?;
    inspect
        .looked_for
        .iter()
        .try_for_each(|looked| writeln!(out, "  {} ({}): `{}`", looked.family, looked.dialect, looked.marker))
}

fn line(out: &mut impl Write, name: &str, value: String) -> io::Result<()> {
    writeln!(out, "  {name:<10} {value}")
}

fn peak(out: &mut impl Write, bytes: Option<u64>) -> io::Result<()> {
    bytes.map_or(Ok(()), |bytes| line(out, "memory", format!("{} at its peak", units::bytes(bytes))))
}

fn model(vae: &VaeOutcome) -> String {
    let scale = vae.scale.as_ref().map(|scale| {
        let shift = if scale.shift_factor == 0.0 { String::new() } else { format!(", shift {}", scale.shift_factor) };
        format!(", scale {}{shift}", scale.scale_factor)
    });
    format!("{}, {}, {} latent channels{}", vae.name, vae.family, vae.latent_channels, scale.unwrap_or_default())
}

/// `1.21 s in f32, in 9 tiles of 512 pixels`.
fn how(call: &CallOutcome) -> String {
    let tiles = call.tiling.as_ref().map(|tiling| {
        let (tiles, tile, overlap) = (tiling.tiles, tiling.tile, tiling.overlap);
        format!(", in {tiles} tiles of {tile} pixels that overlap by {overlap}")
    });
    format!("{} in {}{}", units::seconds(call.seconds), call.precision, tiles.unwrap_or_default())
}

/// `width`×`height`, as picture programs say it.
fn size([height, width]: [usize; 2]) -> String {
    format!("{width}x{height}")
}

fn shape(shape: &[usize]) -> String {
    format!("{shape:?}")
}
