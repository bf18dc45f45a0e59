//! `encode`: pictures to a latent file.

use super::{
    outcome::{CallOutcome, VaeOutcome, call_memory, load, runtime, tile_choice},
    remote,
};
use crate::{
    output::Output,
    settings::{self, DaemonAddress},
    tensor_file::{is_tensor_file, read_image, write_latent},
};
use luna_core::{
    CancelToken, Error, ErrorKind, Image, Latent, Limits, Result, memory, picture,
    protocol::VaeEncode,
    vae::{EncodeOptions, Halves, Posterior, SizeRule},
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What `encode` did.
#[derive(Serialize)]
pub struct EncodeOutcome {
    pub inputs: Vec<PathBuf>,
    pub output: PathBuf,
    pub vae: VaeOutcome,
    /// `[height, width]` as read.
    pub picture_size: [usize; 2],
    /// `[height, width]` after the size rule.
    pub encoded_size: [usize; 2],
    /// `[batch, channels, height, width]`.
    pub latent_shape: [usize; 4],
    pub scaled: bool,
    pub call: CallOutcome,
    pub peak_memory_bytes: Option<u64>,
}

/// Encodes all inputs as one batch.
pub fn run(settings: &settings::Encode, token: &CancelToken, output: &Output) -> Result<EncodeOutcome> {
    settings.inputs.iter().try_for_each(|input| refuse_same_file(input, &settings.output))?;
    let image = read_batch(&settings.inputs)?;
    let made = match &settings.daemon {
        None => here(settings, &image, token, output)?,
        Some(daemon) => by_daemon(settings, daemon, &image, token, output)?,
    };
    output.finish_progress();
    let latent = if settings.scaled { made.latent.scaled()? } else { made.latent };
    refuse_if_cancelled(token)?;
    write_latent(&settings.output, &latent, &made.vae.name, settings.if_exists)?;
    Ok(EncodeOutcome {
        inputs: settings.inputs.clone(),
        output: settings.output.clone(),
        picture_size: [image.height(), image.width()],
        encoded_size: made.size,
        latent_shape: latent.shape(),
        scaled: latent.is_scaled(),
        call: made.call,
        vae: made.vae,
        peak_memory_bytes: memory::peak_resident(),
    })
}

/// A latent, wherever it was made.
struct Made {
    latent: Latent,
    size: [usize; 2],
    vae: VaeOutcome,
    call: CallOutcome,
}

fn here(settings: &settings::Encode, image: &Image, token: &CancelToken, output: &Output) -> Result<Made> {
    let runtime = runtime(&settings.compute)?;
    let named = load(&settings.model, &runtime, Halves::Encoder)?;
    let options = EncodeOptions {
        precision: settings.compute.precision,
        tiles: tile_choice(settings.memory.tiles, &named.vae)?,
        memory_limit: call_memory(&settings.memory, 0)?,
        posterior: settings.posterior,
        sizes: settings.sizes,
        call: output.watched_call("encoding", token),
    };
    let encoded = named.vae.encode(image, &options)?;
    let (vae, call) = (VaeOutcome::of(&named), CallOutcome::of(&encoded.report, &named.vae));
    Ok(Made { latent: encoded.latent, size: encoded.size, vae, call })
}

fn by_daemon(
    settings: &settings::Encode,
    daemon: &DaemonAddress,
    image: &Image,
    token: &CancelToken,
    output: &Output,
) -> Result<Made> {
    let client = remote::connect(daemon)?;
    let request = VaeEncode {
        vae: Some(remote::vae_name(&client, &settings.model.vae)?),
        seed: match settings.posterior {
            Posterior::Sample { seed } => Some(seed),
            _ => None,
        },
        size_rule: Some(size_rule(settings.sizes).to_owned()),
        precision: Some(settings.compute.precision.name().to_owned()),
        memory_limit: settings.memory.most,
        ..VaeEncode::default()
    };
    let request = remote::tile_encode(settings.memory.tiles, request);
    let options = remote::watched("encoding", token, output);
    let (mut latent, answer) = client.vae_encode(image, &request, &options)?;
    if let Some(format) = settings.model.latent_format {
        latent = latent.with_scale(Some(format.scale()), false);
    }
    Ok(Made {
        latent,
        size: answer.reply.encoded_size,
        vae: VaeOutcome::of_daemon(&settings.model, &answer.reply.vae),
        call: CallOutcome::of_daemon(&answer.reply.report, answer.reply.vae.factor, &answer),
    })
}

/// The rule as the wire names it.
fn size_rule(rule: SizeRule) -> &'static str {
    match rule {
        SizeRule::Pad => "pad",
        SizeRule::Refuse => "refuse",
        _ => "crop",
    }
}

/// Reads a picture file, or the pictures of a tensor file.
pub fn read_pictures(path: &Path) -> Result<Image> {
    if is_tensor_file(path) { read_image(path) } else { picture::read_picture(path, &Limits::default()) }
}

/// All pictures, one after the other. They must be of one size.
fn read_batch(paths: &[PathBuf]) -> Result<Image> {
    let [path] = paths else {
        let mut shape: Option<[usize; 4]> = None;
        let mut data = Vec::new();
        for path in paths {
            let image = read_pictures(path)?.to_rgb();
            let [batch, height, width, channels] = image.shape();
            match &mut shape {
                None => shape = Some(image.shape()),
                Some(first) if [height, width] == first[1..3] => first[0] += batch,
                Some(first) => {
                    return Err(Error::new(ErrorKind::InvalidInput, "pictures of one batch must be of one size")
                        .at(path.display())
                        .expected(format!("{}x{}, as {} is", first[2], first[1], paths[0].display()))
                        .found(format!("{width}x{height}"))
                        .remedy("encode them one by one"));
                }
            }
            debug_assert_eq!(channels, 3);
            data.extend(image.into_data());
        }
        return Image::new(shape.unwrap_or_default(), data);
    };
    read_pictures(path)
}

/// An output that would replace its own input is a slip.
pub fn refuse_same_file(input: &Path, output: &Path) -> Result<()> {
    match (input.canonicalize(), output.canonicalize()) {
        (Ok(a), Ok(b)) if a == b => Err(Error::new(ErrorKind::InvalidInput, "input and output are the same file")
            .found(output.display().to_string())
            .remedy("choose another name for the output")),
        _ => Ok(()),
    }
}

/// An interrupt that came after the last step still means that nothing shall be written.
pub fn refuse_if_cancelled(token: &CancelToken) -> Result<()> {
    if token.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
}
