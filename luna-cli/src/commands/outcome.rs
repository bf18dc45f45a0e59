//! What several outcomes tell: the VAE, its scale, how a call was done. Also what several commands do: start a
//! runtime, turn what was meant into a call's options.

use crate::{
    settings::{Compute, Memory, Model, Tiles},
    vaes::NamedVae,
};
use luna_core::{
    Error, ErrorKind, LatentScale, Result, Runtime, diffusion, memory,
    vae::{Fallback, Halves, Report, TileChoice, Tiling, Vae},
};
use serde::Serialize;

/// Which VAE did it.
#[derive(Serialize)]
pub struct VaeOutcome {
    pub name: String,
    pub family: String,
    pub latent_channels: usize,
    pub scale: Option<ScaleOutcome>,
    /// Set for a model that is not for real work.
    pub caution: Option<&'static str>,
}

impl VaeOutcome {
    pub fn of(named: &NamedVae) -> Self {
        Self {
            name: named.name.clone(),
            family: named.vae.family().name().to_owned(),
            latent_channels: named.vae.latent_channels(),
            scale: named.vae.latent_scale().map(ScaleOutcome::from),
            caution: named.caution,
        }
    }
}

/// A model's factors.
#[derive(Serialize)]
pub struct ScaleOutcome {
    pub scale_factor: f32,
    pub shift_factor: f32,
}

impl From<LatentScale> for ScaleOutcome {
    fn from(LatentScale { scale, shift }: LatentScale) -> Self {
        Self { scale_factor: scale, shift_factor: shift }
    }
}

/// How a call was done.
#[derive(Serialize)]
pub struct CallOutcome {
    pub seconds: f64,
    pub precision: String,
    /// `None` for one piece.
    pub tiling: Option<TilingOutcome>,
    /// What was done otherwise than asked for.
    pub fallbacks: Vec<FallbackOutcome>,
}

/// Tiles, in picture pixels.
#[derive(Serialize)]
pub struct TilingOutcome {
    pub tile: usize,
    pub overlap: usize,
    /// For each picture.
    pub tiles: usize,
}

/// Something done otherwise than asked for.
#[derive(Serialize)]
pub struct FallbackOutcome {
    pub name: String,
    pub message: String,
}

impl From<&Fallback> for FallbackOutcome {
    fn from(fallback: &Fallback) -> Self {
        Self { name: fallback.name().to_owned(), message: fallback.to_string() }
    }
}

impl From<&luna_core::vision::Fallback> for FallbackOutcome {
    fn from(fallback: &luna_core::vision::Fallback) -> Self {
        Self { name: fallback.name().to_owned(), message: fallback.to_string() }
    }
}

impl From<&luna_core::vlm::Fallback> for FallbackOutcome {
    fn from(fallback: &luna_core::vlm::Fallback) -> Self {
        Self { name: fallback.name().to_owned(), message: fallback.to_string() }
    }
}

impl From<&diffusion::Fallback> for FallbackOutcome {
    fn from(fallback: &diffusion::Fallback) -> Self {
        Self { name: fallback.name().to_owned(), message: fallback.to_string() }
    }
}

impl CallOutcome {
    pub fn of(report: &Report, vae: &Vae) -> Self {
        let factor = vae.factor();
        Self {
            seconds: report.elapsed.as_secs_f64(),
            precision: report.precision.name().to_owned(),
            tiling: report.tiling.map(|(tiling, tiles)| TilingOutcome {
                tile: tiling.tile * factor,
                overlap: tiling.overlap * factor,
                tiles,
            }),
            fallbacks: report.fallbacks.iter().map(FallbackOutcome::from).collect(),
        }
    }
}

/// The runtime that the settings ask for.
pub fn runtime(compute: &Compute) -> Result<Runtime> {
    Runtime::new(compute.device, compute.threads)
}

/// Loads the VAE that the settings ask for.
pub fn load(model: &Model, runtime: &Runtime, halves: Halves) -> Result<NamedVae> {
    let mut named = model.vae.load(runtime, halves)?;
    if let Some(format) = model.latent_format {
        named.vae = named.vae.with_latent_scale(format.scale());
    }
    Ok(named)
}

/// Picture pixels as they were typed become the latent pixels that tiles are laid out in.
pub fn tile_choice(tiles: Tiles, vae: &Vae) -> Result<TileChoice> {
    let factor = vae.factor();
    let latent_pixels = |option: &str, pixels: usize| {
        if pixels.is_multiple_of(factor) {
            return Ok(pixels / factor);
        }
        Err(Error::new(ErrorKind::InvalidInput, format!("{option} does not fit this VAE"))
            .expected(format!("a multiple of {factor}"))
            .found(pixels.to_string()))
    };
    Ok(match tiles {
        Tiles::Auto => TileChoice::Auto,
        Tiles::Never => TileChoice::Never,
        Tiles::Pixels { tile, overlap } => {
            let tiling = Tiling::with_tile(latent_pixels("--tile", tile)?);
            let overlap = overlap.map(|overlap| latent_pixels("--overlap", overlap)).transpose()?;
            TileChoice::Tiles(Tiling { overlap: overlap.unwrap_or(tiling.overlap), ..tiling })
        }
    })
}

/// What a call may use of the budget for the whole process, now that the model and the input are in memory.
/// `result` is the number of bytes that the call's result will hold.
pub fn call_memory(budget: &Memory, result: u64) -> Result<Option<u64>> {
    let Some(most) = budget.most else { return Ok(None) };
    let held = memory::resident().unwrap_or(0) + result;
    let rest = most.saturating_sub(held);
    if rest > 0 {
        return Ok(Some(rest));
    }
    let mib = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
    Err(Error::new(ErrorKind::OutOfMemory, "--max-memory leaves nothing to compute with")
        .expected(format!("more than the {} that program, model, input and result hold", mib(held)))
        .found(mib(most)))
}
