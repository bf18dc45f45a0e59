//! What commands do with a daemon: connect, name a model, wait.

use super::outcome::{CallOutcome, FallbackOutcome, ScaleOutcome, TilingOutcome, VaeOutcome};
use crate::{
    args::LatentFormatArg,
    output::Output,
    settings::{DaemonAddress, Model, Tiles},
    vaes::VaeChoice,
};
use luna_core::{
    CancelToken, Result,
    client::{Answer, CallOptions, Client, ClientSettings},
    protocol::{EventKind, Notice, VaeDecode, VaeEncode, VaeInfo, VaeReport},
};

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
        let fallback = |notice: &Notice| FallbackOutcome { name: notice.name.clone(), message: notice.message.clone() };
        Self {
            seconds: report.seconds,
            precision: report.precision.clone(),
            tiling: report.tiling.map(|tiling| TilingOutcome {
                tile: tiling.tile * factor,
                overlap: tiling.overlap * factor,
                tiles: tiling.tiles,
            }),
            fallbacks: answer.head.fallbacks.iter().map(fallback).collect(),
        }
    }
}
