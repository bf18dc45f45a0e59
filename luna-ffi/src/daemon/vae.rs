//! A daemon's VAEs.

use super::{Daemon, report};
use crate::{call::Watch, error::Result, options::luna_report};
use luna_core::{
    Image, Latent, LatentScale, Precision,
    protocol::{VaeDecode, VaeEncode, VaeInfo, VaeReport},
    vae::{DecodeOptions, EncodeOptions, Posterior, SizeRule, TileChoice},
};
use std::sync::Arc;

/// Side of the picture that is encoded to learn what a VAE is.
const TRIAL_SIDE: usize = 32;

/// A VAE of a daemon.
pub(crate) struct RemoteVae {
    daemon: Arc<Daemon>,
    name: String,
    pub(crate) info: VaeInfo,
    pub(crate) bytes: u64,
}

/// Tiles as the wire has them, in picture pixels.
struct Tiles {
    tiled: bool,
    never_tiled: bool,
    tile_size: Option<usize>,
    overlap: Option<usize>,
}

fn tiles(choice: TileChoice, factor: usize) -> Tiles {
    let (tile_size, overlap) = match choice {
        TileChoice::Tiles(tiling) => (Some(tiling.tile * factor), Some(tiling.overlap * factor)),
        _ => (None, None),
    };
    Tiles { tiled: tile_size.is_some(), never_tiled: choice == TileChoice::Never, tile_size, overlap }
}

fn name(precision: Precision) -> Option<String> {
    Some(precision.name().to_owned())
}

impl RemoteVae {
    pub(crate) fn load(daemon: &Arc<Daemon>, path: &str) -> Result<Self> {
        let name = daemon.model(path)?;
        // A daemon tells of a VAE with a call's answer.
        let grey = Image::new([1, TRIAL_SIDE, TRIAL_SIDE, 3], vec![0.5; TRIAL_SIDE * TRIAL_SIDE * 3])?;
        let trial = VaeEncode { vae: Some(name.clone()), ..VaeEncode::default() };
        let (_, answer) = daemon.client.vae_encode(&grey, &trial, &Default::default())?;
        let bytes = daemon.bytes(&name)?;
        Ok(Self { daemon: daemon.clone(), name, info: answer.reply.vae, bytes })
    }

    /// The factors of its latents, where its file tells.
    pub(crate) fn scale(&self) -> Option<LatentScale> {
        let shift = self.info.shift_factor.unwrap_or(0.0);
        self.info.scale_factor.map(|scale| LatentScale { scale, shift })
    }

    pub(crate) fn encode(
        &self,
        image: &Image,
        options: &EncodeOptions,
        watch: &Watch,
    ) -> Result<(Latent, luna_report)> {
        let Tiles { tiled, never_tiled, tile_size, overlap } = tiles(options.tiles, self.info.factor);
        let size_rule = match options.sizes {
            SizeRule::Crop => "crop",
            SizeRule::Pad => "pad",
            _ => "refuse",
        };
        let request = VaeEncode {
            vae: Some(self.name.clone()),
            tiled,
            tile_size,
            overlap,
            never_tiled,
            seed: match options.posterior {
                Posterior::Sample { seed } => Some(seed),
                _ => None,
            },
            size_rule: Some(size_rule.to_owned()),
            precision: name(options.precision),
            memory_limit: options.memory_limit,
        };
        let (latent, answer) = self.daemon.client.vae_encode(image, &request, &watch.request())?;
        let told = &answer.reply.report;
        Ok((latent, tiled_report(told, report(&answer.head, &told.precision, told.seconds, watch))))
    }

    pub(crate) fn decode(
        &self,
        latent: &Latent,
        options: &DecodeOptions,
        watch: &Watch,
    ) -> Result<(Image, luna_report)> {
        let Tiles { tiled, never_tiled, tile_size, overlap } = tiles(options.tiles, self.info.factor);
        let request = VaeDecode {
            vae: Some(self.name.clone()),
            tiled,
            tile_size,
            overlap,
            picture_pixels: tiled,
            never_tiled,
            precision: name(options.precision),
            memory_limit: options.memory_limit,
            ..VaeDecode::default()
        };
        let (image, answer) = self.daemon.client.vae_decode(latent, &request, &watch.request())?;
        let told = &answer.reply.report;
        Ok((image, tiled_report(told, report(&answer.head, &told.precision, told.seconds, watch))))
    }
}

fn tiled_report(told: &VaeReport, mut report: luna_report) -> luna_report {
    if let Some(tiling) = told.tiling {
        (report.tile, report.tile_overlap) = (tiling.tile as u32, tiling.overlap as u32);
        report.tiles = tiling.tiles as u32;
    }
    report
}
