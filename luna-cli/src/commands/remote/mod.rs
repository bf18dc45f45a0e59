//! What commands do with a daemon: connect, name models and LoRAs, wait. A file for each family of commands.

mod describe;
mod forward;
mod save;
mod text;
mod vision;

pub use describe::describe;
pub use forward::forward;
pub use save::save;
pub use text::{text, tokenize};
pub use vision::vision;

use super::outcome::{CallOutcome, FallbackOutcome, ScaleOutcome, TilingOutcome, VaeOutcome};
use crate::{
    args::LatentFormatArg,
    output::Output,
    settings::{DaemonAddress, LoraEntry, Model, Tiles},
    vaes::VaeChoice,
};
use luna_core::{
    CancelToken, Result,
    client::{Answer, CallOptions, Client, ClientSettings},
    lora::Coverage,
    protocol::{EventKind, LoraUse, Notice, VaeDecode, VaeEncode, VaeInfo, VaeReport},
};
use std::path::Path;

/// Connects to the daemon that was named.
pub fn connect(daemon: &DaemonAddress) -> Result<Client> {
    let mut settings = ClientSettings::default();
    settings.token = daemon.token.clone();
    Client::connect(daemon.address.clone(), settings)
}

/// A call that `token` cancels and whose progress is shown under this name.
pub fn watched(name: &'static str, token: &CancelToken, output: &Output) -> CallOptions {
    let show = output.progress(name);
    CallOptions::default().cancelled_by(token).on_event(move |event| {
        if let EventKind::Progress { done, total } = event.kind {
            show(luna_core::Progress { done: done as usize, total: total as usize });
        }
    })
}

/// What the daemon calls the VAE that was chosen: a file is registered by its path, or uploaded where the daemon may not
/// or cannot read it.
pub fn vae_name(client: &Client, choice: &VaeChoice) -> Result<String> {
    let VaeChoice::Path(path) = choice else { return Ok(choice.name()) };
    Ok(client.put_model(path, None)?.model_id)
}

/// What the daemon calls a model that was named: a file here is registered or sent, another name is the daemon's own.
/// `encoder` is the only text encoder that is wanted.
pub fn model_name(client: &Client, model: &Path, encoder: Option<&str>) -> Result<String> {
    match model.to_str() {
        Some(name) if !model.exists() => Ok(name.to_owned()),
        _ => Ok(client.put_model(model, encoder)?.model_id),
    }
}

/// LoRAs as a request names them, after the daemon has them.
pub fn loras(client: &Client, entries: &[LoraEntry]) -> Result<Vec<LoraUse>> {
    let put = |LoraEntry { file, model, clip }: &LoraEntry| {
        Ok(LoraUse { lora: client.put_lora(file)?.lora_id, model: *model, clip: *clip })
    };
    entries.iter().map(put).collect()
}

/// Calls the files of a report what they are called here: the daemon may know the same content by another name.
pub fn rename(coverage: &mut Coverage, entries: &[LoraEntry]) {
    for (file, entry) in coverage.files.iter_mut().zip(entries) {
        file.name = entry.file.file_stem().unwrap_or(entry.file.as_os_str()).to_string_lossy().into_owned();
    }
}

/// A file's name without its folder.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Fallbacks of a reply.
fn fallbacks(notices: &[Notice]) -> Vec<FallbackOutcome> {
    let fallback = |notice: &Notice| FallbackOutcome { name: notice.name.clone(), message: notice.message.clone() };
    notices.iter().map(fallback).collect()
}

/// Tiles as they were typed, for an encoder.
pub fn tile_encode(tiles: Tiles, request: VaeEncode) -> VaeEncode {
    match tiles {
        Tiles::Auto => request,
        Tiles::Never => VaeEncode { never_tiled: true, ..request },
        Tiles::Pixels { tile, overlap } => VaeEncode { tiled: true, tile_size: Some(tile), overlap, ..request },
    }
}

/// Tiles as they were typed, for a decoder.
pub fn tile_decode(tiles: Tiles, request: VaeDecode) -> VaeDecode {
    match tiles {
        Tiles::Auto => request,
        Tiles::Never => VaeDecode { never_tiled: true, ..request },
        Tiles::Pixels { tile, overlap } => {
            VaeDecode { tiled: true, tile_size: Some(tile), overlap, picture_pixels: true, ..request }
        }
    }
}

impl VaeOutcome {
    /// A daemon's VAE.
    pub fn of_daemon(model: &Model, info: &VaeInfo) -> Self {
        let stated = model.latent_format.map(LatentFormatArg::scale).map(ScaleOutcome::from);
        let own = info
            .scale_factor
            .map(|scale_factor| ScaleOutcome { scale_factor, shift_factor: info.shift_factor.unwrap_or_default() });
        Self {
            name: model.vae.name(),
            family: info.family.clone(),
            latent_channels: info.latent_channels,
            scale: stated.or(own),
            caution: model.vae.caution(),
        }
    }
}

impl CallOutcome {
    /// A daemon's call.
    pub fn of_daemon<R>(report: &VaeReport, factor: usize, answer: &Answer<R>) -> Self {
        Self {
            seconds: report.seconds,
            precision: report.precision.clone(),
            tiling: report.tiling.map(|tiling| TilingOutcome {
                tile: tiling.tile * factor,
                overlap: tiling.overlap * factor,
                tiles: tiling.tiles,
            }),
            fallbacks: fallbacks(&answer.head.fallbacks),
        }
    }
}
