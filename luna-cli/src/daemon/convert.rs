//! The only place between the protocol's types and the library's. Enters: fields of requests, results of the library.
//! Leaves: options of the library, fields of replies.

use luna_core::{
    Call, Error, ErrorKind, Image, Latent, LatentScale, PictureSizes, Precision, Result,
    protocol::{Message, Notice, TextWish, TilingInfo, TokenPlace, Tokens, VaeDecode, VaeEncode, VaeInfo, VaeReport},
    text::{Encoded, Recipe, TextOptions, Tokenized},
    tokenizer::{PromptOptions, TokenPiece, WeightedToken},
    vae::{DecodeOptions, EncodeOptions, Posterior, Report, SizeRule, TileChoice, Tiling, Vae},
};

/// Side of a tile where a request names none, in latent pixels.
const USUAL_TILE: usize = 64;

/// What a text encoder's call left out or did otherwise.
pub struct TextCall {
    pub problems: Vec<String>,
    pub notices: Vec<Notice>,
}

/// What several requests have in common.
pub struct Defaults {
    pub precision: Precision,
}

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

/// A precision by name.
pub fn precision(name: Option<&str>, defaults: &Defaults) -> Result<Precision> {
    name.map_or(Ok(defaults.precision), str::parse)
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

/// A recipe by name.
pub fn recipe(name: &str) -> Result<Recipe> {
    Recipe::ALL.into_iter().find(|recipe| recipe.name() == name).ok_or_else(|| {
        let names: Vec<_> = Recipe::ALL.iter().map(|recipe| recipe.name()).collect();
        Error::new(ErrorKind::InvalidInput, "no such recipe").expected(names.join(", ")).found(format!("`{name}`"))
    })
}

pub fn text_options(wish: &TextWish, defaults: &Defaults, call: Call) -> Result<TextOptions> {
    let number = |what: &str, number: Option<usize>| {
        let wrong = || Error::new(ErrorKind::InvalidInput, format!("`{what}` counts from 1")).found("0");
        number.map(|number| std::num::NonZeroUsize::new(number).ok_or_else(wrong)).transpose()
    };
    Ok(TextOptions {
        precision: precision(wish.precision.as_deref(), defaults)?,
        clip_skip: number("clip_skip", wish.clip_skip)?,
        syntax: PromptOptions { break_chunks: wish.break_chunks, square_brackets: wish.square_brackets },
        t5_mask: wish.t5_mask,
        t5_tokens: number("t5_tokens", wish.t5_tokens)?,
        call,
        ..TextOptions::default()
    })
}

pub fn text_call(encoded: &Encoded) -> TextCall {
    let problems = encoded.prompts.iter().flat_map(|prompt| &prompt.problems).map(ToString::to_string).collect();
    let notice = |fallback: &luna_core::text::Fallback| Notice {
        name: fallback.name().to_owned(),
        message: fallback.to_string(),
    };
    TextCall { problems, notices: encoded.fallbacks.iter().map(notice).collect() }
}

pub fn tokens(tokenized: &Tokenized) -> Tokens {
    let place = |token: &WeightedToken| TokenPlace {
        id: token.id(),
        embedding: match &token.piece {
            TokenPiece::Embedding { name, row } => Some((name.to_string(), *row)),
            _ => None,
        },
        weight: token.weight,
    };
    let chunks = |chunks: &[Vec<WeightedToken>]| chunks.iter().map(|chunk| chunk.iter().map(place).collect()).collect();
    Tokens {
        tokens: tokenized
            .encoders
            .iter()
            .map(|tokens| (tokens.encoder.name().to_owned(), chunks(&tokens.chunks)))
            .collect(),
        problems: tokenized.problems.iter().map(ToString::to_string).collect(),
    }
}

/// Width, height, crop at the left and top, width and height after cropping.
pub fn sizes(sizes: PictureSizes) -> [u32; 6] {
    [sizes.width, sizes.height, sizes.crop_w, sizes.crop_h, sizes.target_width, sizes.target_height]
}
