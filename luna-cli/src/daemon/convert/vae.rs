//! Pictures and latents: options and reports of VAEs.

use super::{Defaults, precision};
use luna_core::{
    Call, Error, ErrorKind, Image, Latent, LatentScale, Result,
    protocol::{Message, Notice, TilingInfo, VaeDecode, VaeEncode, VaeInfo, VaeReport},
    vae::{DecodeOptions, EncodeOptions, Posterior, Report, SizeRule, TileChoice, Tiling, Vae},
};

/// Side of a tile where a request names none, in latent pixels.
const USUAL_TILE: usize = 64;

/// The pictures of a request.
pub fn image(message: &Message) -> Result<Image> {
    let pixels = message.tensor("pixels")?;
    Image::new(pixels.sides("[batch, height, width, channels]")?, pixels.values()?)
}

/// The latents of a request, with the factors that it states or else the model's.
pub fn latent(message: &Message, request: &VaeDecode, vae: &Vae) -> Result<Latent> {
    let latents = message.tensor("latents")?;
    let latent = Latent::new(latents.sides("[batch, channels, height, width]")?, latents.values()?)?;
    let stated =
        request.scale_factor.map(|scale| LatentScale { scale, shift: request.shift_factor.unwrap_or_default() });
    if stated.is_some_and(|factors| !factors.scale.is_normal() || !factors.shift.is_finite()) {
        return Err(Error::new(ErrorKind::InvalidInput, "the scale or shift factor cannot be used")
            .expected("finite numbers, the scale not 0")
            .found(format!("{stated:?}")));
    }
    Ok(latent.with_scale(stated.or(vae.latent_scale()), request.scaled))
}

pub fn encode_options(request: &VaeEncode, vae: &Vae, defaults: &Defaults, call: Call) -> Result<EncodeOptions> {
    let tile = request.tile_size.map_or(Ok(USUAL_TILE), |pixels| latent_pixels("tile_size", pixels, vae))?;
    let overlap = request.overlap.map(|pixels| latent_pixels("overlap", pixels, vae)).transpose()?;
    Ok(EncodeOptions {
        precision: precision(request.precision.as_deref(), defaults)?,
        tiles: tiles(request.tiled, request.never_tiled, tile, overlap)?,
        memory_limit: request.memory_limit,
        posterior: request.seed.map_or(Posterior::Mean, |seed| Posterior::Sample { seed }),
        sizes: size_rule(request.size_rule.as_deref())?,
        call,
    })
}

pub fn decode_options(request: &VaeDecode, vae: &Vae, defaults: &Defaults, call: Call) -> Result<DecodeOptions> {
    let side = |what, pixels| if request.picture_pixels { latent_pixels(what, pixels, vae) } else { Ok(pixels) };
    let tile = request.tile_size.map_or(Ok(USUAL_TILE), |pixels| side("tile_size", pixels))?;
    let overlap = request.overlap.map(|pixels| side("overlap", pixels)).transpose()?;
    Ok(DecodeOptions {
        precision: precision(request.precision.as_deref(), defaults)?,
        tiles: tiles(request.tiled, request.never_tiled, tile, overlap)?,
        memory_limit: request.memory_limit,
        call,
    })
}

fn latent_pixels(what: &str, pixels: usize, vae: &Vae) -> Result<usize> {
    let factor = vae.factor();
    if pixels.is_multiple_of(factor) {
        return Ok(pixels / factor);
    }
    Err(Error::new(ErrorKind::InvalidInput, format!("`{what}` does not fit this VAE"))
        .expected(format!("a multiple of {factor} picture pixels"))
        .found(pixels.to_string()))
}

fn tiles(tiled: bool, never: bool, tile: usize, overlap: Option<usize>) -> Result<TileChoice> {
    match (tiled, never) {
        (true, true) => Err(Error::new(ErrorKind::InvalidInput, "`tiled` and `never_tiled` exclude each other")),
        (true, false) => {
            let tiling = Tiling::with_tile(tile);
            Ok(TileChoice::Tiles(Tiling { overlap: overlap.unwrap_or(tiling.overlap), ..tiling }))
        }
        (false, true) => Ok(TileChoice::Never),
        (false, false) => Ok(TileChoice::Auto),
    }
}

fn size_rule(name: Option<&str>) -> Result<SizeRule> {
    match name {
        None | Some("crop") => Ok(SizeRule::Crop),
        Some("pad") => Ok(SizeRule::Pad),
        Some("refuse") => Ok(SizeRule::Refuse),
        Some(other) => Err(Error::new(ErrorKind::InvalidInput, "no such size rule")
            .expected("`crop`, `pad` or `refuse`")
            .found(format!("`{other}`"))),
    }
}

pub fn vae_info(name: &str, vae: &Vae) -> VaeInfo {
    VaeInfo {
        name: name.to_owned(),
        family: vae.family().name().to_owned(),
        latent_channels: vae.latent_channels(),
        factor: vae.factor(),
        scale_factor: vae.latent_scale().map(|factors| factors.scale),
        shift_factor: vae.latent_scale().map(|factors| factors.shift),
    }
}

pub fn vae_report(report: &Report) -> VaeReport {
    VaeReport {
        precision: report.precision.name().to_owned(),
        tiling: report.tiling.map(|(tiling, tiles)| TilingInfo { tile: tiling.tile, overlap: tiling.overlap, tiles }),
        seconds: report.elapsed.as_secs_f64(),
    }
}

pub fn vae_notices(report: &Report) -> impl Iterator<Item = Notice> + '_ {
    report.fallbacks.iter().map(|fallback| Notice { name: fallback.name().to_owned(), message: fallback.to_string() })
}
