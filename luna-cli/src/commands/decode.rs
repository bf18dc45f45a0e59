//! `decode`: a latent file to pictures.

use super::{
    encode::{refuse_if_cancelled, refuse_same_file},
    outcome::{CallOutcome, VaeOutcome, call_memory, load, runtime, tile_choice},
    remote,
};
use crate::{
    output::Output,
    settings::{self, DaemonAddress},
    tensor_file::{LatentFile, is_tensor_file, read_latent, write_image},
};
use luna_core::{
    CancelToken, Image, Result,
    files::IfExists,
    memory,
    picture::{Format, Metadata, Pixels, write_picture},
    protocol::VaeDecode,
    vae::{DecodeOptions, Halves},
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What `decode` did.
#[derive(Serialize)]
pub struct DecodeOutcome {
    pub input: PathBuf,
    /// The tensor that was read.
    pub tensor: &'static str,
    pub latent_shape: [usize; 4],
    /// Whether the file's latent had scale and shift applied.
    pub scaled: bool,
    /// The VAE that made the latent, where the file tells.
    pub made_by: Option<String>,
    pub outputs: Vec<PathBuf>,
    /// `[height, width]`.
    pub picture_size: [usize; 2],
    pub vae: VaeOutcome,
    pub call: CallOutcome,
    pub peak_memory_bytes: Option<u64>,
}

/// Decodes all latents of the file.
pub fn run(settings: &settings::Decode, token: &CancelToken, output: &Output) -> Result<DecodeOutcome> {
    refuse_same_file(&settings.input, &settings.output)?;
    let sink = Sink::of(&settings.output)?;
    let mut file = read_latent(&settings.input)?;
    let made = match &settings.daemon {
        None => here(settings, &mut file, token, output)?,
        Some(daemon) => by_daemon(settings, daemon, &mut file, token, output)?,
    };
    output.finish_progress();
    refuse_if_cancelled(token)?;
    let outputs = sink.write(&settings.output, &made.image, &made.vae.name, settings.if_exists)?;
    Ok(DecodeOutcome {
        input: settings.input.clone(),
        tensor: file.source.tensor,
        latent_shape: file.latent.shape(),
        scaled: file.source.scaled,
        made_by: file.source.model,
        outputs,
        picture_size: [made.image.height(), made.image.width()],
        call: made.call,
        vae: made.vae,
        peak_memory_bytes: memory::peak_resident(),
    })
}

/// Pictures, wherever they were made.
struct Made {
    image: Image,
    vae: VaeOutcome,
    call: CallOutcome,
}

fn here(settings: &settings::Decode, file: &mut LatentFile, token: &CancelToken, output: &Output) -> Result<Made> {
    let runtime = runtime(&settings.compute)?;
    let named = load(&settings.model, &runtime, Halves::Decoder)?;
    if file.source.scale.is_none() || settings.model.latent_format.is_some() {
        file.rescale(named.vae.latent_scale());
    }
    let [batch, _, height, width] = file.latent.shape();
    let picture_bytes = (batch * height * width * named.vae.factor().pow(2) * named.vae.picture_channels() * 4) as u64;
    let options = DecodeOptions {
        precision: settings.compute.precision,
        tiles: tile_choice(settings.memory.tiles, &named.vae)?,
        memory_limit: call_memory(&settings.memory, picture_bytes)?,
        call: output.watched_call("decoding", token),
    };
    let decoded = named.vae.decode(&file.latent, &options)?;
    let (vae, call) = (VaeOutcome::of(&named), CallOutcome::of(&decoded.report, &named.vae));
    // The process ends soon, when the system takes all of it back at once.
    std::mem::forget(named);
    Ok(Made { image: decoded.image, vae, call })
}

fn by_daemon(
    settings: &settings::Decode,
    daemon: &DaemonAddress,
    file: &mut LatentFile,
    token: &CancelToken,
    output: &Output,
) -> Result<Made> {
    let client = remote::connect(daemon)?;
    if let Some(format) = settings.model.latent_format {
        file.rescale(Some(format.scale()));
    }
    let request = VaeDecode {
        vae: Some(remote::vae_name(&client, &settings.model.vae)?),
        precision: Some(settings.compute.precision.name().to_owned()),
        memory_limit: settings.memory.most,
        ..VaeDecode::default()
    };
    let request = remote::tile_decode(settings.memory.tiles, request);
    let options = remote::watched("decoding", token, output);
    let (image, answer) = client.vae_decode(&file.latent, &request, &options)?;
    Ok(Made {
        image,
        vae: VaeOutcome::of_daemon(&settings.model, &answer.reply.vae),
        call: CallOutcome::of_daemon(&answer.reply.report, answer.reply.vae.factor, &answer),
    })
}

/// What is to be written. Decided before anything is computed, so that a wrong name costs no wait.
enum Sink {
    Tensors,
    Pictures(Format),
}

impl Sink {
    fn of(output: &Path) -> Result<Self> {
        if is_tensor_file(output) { Ok(Self::Tensors) } else { Format::from_path(output).map(Self::Pictures) }
    }

    fn write(&self, output: &Path, image: &Image, model: &str, if_exists: IfExists) -> Result<Vec<PathBuf>> {
        match self {
            Self::Tensors => {
                write_image(output, image, model, if_exists)?;
                Ok(vec![output.to_owned()])
            }
            Self::Pictures(format) => (0..image.batch())
                .map(|index| {
                    let path = if image.batch() == 1 { output.to_owned() } else { numbered(output, index + 1) };
                    write_picture(&path, &Pixels::of(image, index), *format, &Metadata::none(), if_exists)?;
                    Ok(path)
                })
                .collect(),
        }
    }
}

/// `a/out.png` → `a/out_00007.png`.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("_{number:05}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_a_batch_are_numbered_from_1() {
        assert_eq!(numbered(Path::new("a/out.png"), 1), Path::new("a/out_00001.png"));
        assert_eq!(numbered(Path::new("two.dots.webp"), 12), Path::new("two.dots_00012.webp"));
    }
}
