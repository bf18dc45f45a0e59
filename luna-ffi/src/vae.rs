//! VAEs. Enters: a path; then pictures or latents of the caller's. Leaves: latents or pictures of Luna's.

use crate::{
    call::{Log, Watch, watched},
    daemon::{RemoteVae, not_remote},
    error::{Result, wrong},
    handle::{Caller, boundary, free, object},
    options::{LUNA_FALLBACK_TILED, LUNA_FALLBACK_WIDENED, choose, luna_report, precision, yes},
    session::{Place, Session, not_empty},
    status::luna_status,
    table::{self, Object},
    tensor::Tensor,
    types::{luna_call, luna_session, luna_tensor, luna_vae},
    view::{Floats, Meaning, floats, luna_view},
};
use luna_core::{
    Image, ImageView, Latent, LatentScale, LatentView, Runtime,
    checkpoint::Checkpoint,
    registry::Lease,
    vae::{DecodeOptions, EncodeOptions, Fallback, Halves, Posterior, Report, SizeRule, TileChoice, Tiling, Vae},
};
use std::{ffi::c_char, ptr, sync::Arc};

crate::handle::records!(luna_vae_load_options, luna_vae_info, luna_encode_options, luna_decode_options);

/// The name that stands for the VAE that the library carries, in `luna_vae_load`.
const MOONLET: &str = "moonlet";

/// Which halves of a VAE are loaded.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_halves {
    /// Encoder and decoder.
    Both = 0,
    /// Only the encoder: decoding is refused.
    Encoder = 1,
    /// Only the decoder: encoding is refused.
    Decoder = 2,
}

/// Options of `luna_vae_load_with`. All zeros but `size` is what `luna_vae_load` takes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_vae_load_options {
    /// `sizeof(luna_vae_load_options)`.
    pub size: usize,
    /// Which halves are wanted: a `luna_halves`. One half takes half the memory, and is another model than the whole.
    pub halves: i32,
    /// 0.
    pub reserved: u32,
}

/// What is known of a VAE.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_vae_info {
    /// `sizeof(luna_vae_info)`, set by the caller.
    pub size: usize,
    /// Channels of its latents.
    pub latent_channels: u32,
    /// Channels of its pictures.
    pub picture_channels: u32,
    /// Picture pixels along a side for each latent pixel.
    pub factor: u32,
    /// Whether `scale` and `shift` are known: 0 or 1.
    pub has_scale: u32,
    /// A sampler's latent is `(latent - shift) * scale`.
    pub scale: f32,
    /// See `scale`.
    pub shift: f32,
    /// Bytes of its weights.
    pub weight_bytes: u64,
}

/// Whether a picture is worked on in tiles.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_tiling {
    /// In one piece if the memory suffices, else in the largest tiles that fit.
    Auto = 0,
    /// In one piece, or not at all.
    Never = 1,
    /// In tiles of the given size.
    Always = 2,
}

/// What becomes of picture sides that the VAE's factor does not divide.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_size_rule {
    /// Crops to the next smaller multiple, about the centre.
    Crop = 0,
    /// Repeats the last row and column up to the next larger multiple.
    Pad = 1,
    /// Answers `LUNA_STATUS_INVALID_INPUT`.
    Refuse = 2,
}

/// Options of `luna_vae_encode`. All zeros but `size` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_encode_options {
    /// `sizeof(luna_encode_options)`.
    pub size: usize,
    /// A `luna_precision`.
    pub precision: i32,
    /// A `luna_tiling`.
    pub tiling: i32,
    /// Side of a tile in latent pixels, at least 16; 0 for 64. Only with `LUNA_TILING_ALWAYS`.
    pub tile: u32,
    /// How far tiles overlap at least, in latent pixels; 0 for a quarter of the tile, but no more than 16.
    pub tile_overlap: u32,
    /// A `luna_size_rule`.
    pub sizes: i32,
    /// Whether a sample of the encoder's distribution is wanted instead of its mean: 0 or 1.
    pub sample: u32,
    /// The sample's seed: equal seeds give equal noise on every machine.
    pub seed: u64,
    /// Whether the latent is wanted as a sampler sees it: 0 or 1. Fails if the file does not tell the factors.
    pub scaled: u32,
    /// 0.
    pub reserved: u32,
    /// Bytes that the call may use beyond the model; 0 for what the system has.
    pub memory_limit: u64,
    /// Cancellation, progress and log; all zero for none.
    pub call: luna_call,
}

/// Options of `luna_vae_decode`. All zeros but `size` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_decode_options {
    /// `sizeof(luna_decode_options)`.
    pub size: usize,
    /// A `luna_precision`.
    pub precision: i32,
    /// A `luna_tiling`.
    pub tiling: i32,
    /// Side of a tile in latent pixels, at least 16; 0 for 64. Only with `LUNA_TILING_ALWAYS`.
    pub tile: u32,
    /// How far tiles overlap at least, in latent pixels; 0 for a quarter of the tile, but no more than 16.
    pub tile_overlap: u32,
    /// Whether the latent is as a sampler sees it: 0 or 1. Fails if the file does not tell the factors.
    pub scaled: u32,
    /// 0.
    pub reserved: u32,
    /// Bytes that the call may use beyond the model; 0 for what the system has.
    pub memory_limit: u64,
    /// Cancellation, progress and log; all zero for none.
    pub call: luna_call,
}

/// The object behind `luna_vae`.
pub(crate) struct LoadedVae {
    vae: Source,
    info: luna_vae_info,
    log: Log,
}

/// Where its weights are.
enum Source {
    Here(Lease<Vae>),
    There(RemoteVae),
}

impl Object for LoadedVae {
    const NAME: &'static str = "luna_vae";
}

fn tile_choice(number: i32, tile: u32, overlap: u32) -> Result<TileChoice> {
    let usual = Tiling::with_tile(if tile == 0 { 64 } else { tile as usize });
    let overlap = if overlap == 0 { usual.overlap } else { overlap as usize };
    let tiles = TileChoice::Tiles(Tiling { overlap, ..usual });
    let choice = choose("tiling", number, &[TileChoice::Auto, TileChoice::Never, tiles])?;
    if (tile, overlap) != (0, usual.overlap) && choice != tiles {
        return Err(wrong("a tile size is set, but no tiles are asked for")
            .remedy("set `tiling` to LUNA_TILING_ALWAYS, or leave the tile at 0")
            .into());
    }
    Ok(choice)
}

fn encode_options(options: &luna_encode_options, watch: &Watch) -> Result<EncodeOptions> {
    Ok(EncodeOptions {
        precision: precision(options.precision)?,
        tiles: tile_choice(options.tiling, options.tile, options.tile_overlap)?,
        memory_limit: Some(options.memory_limit).filter(|&bytes| bytes > 0),
        posterior: if yes(options.sample) { Posterior::Sample { seed: options.seed } } else { Posterior::Mean },
        sizes: choose("size rule", options.sizes, &[SizeRule::Crop, SizeRule::Pad, SizeRule::Refuse])?,
        call: watch.call.clone(),
    })
}

fn decode_options(options: &luna_decode_options, watch: &Watch) -> Result<DecodeOptions> {
    Ok(DecodeOptions {
        precision: precision(options.precision)?,
        tiles: tile_choice(options.tiling, options.tile, options.tile_overlap)?,
        memory_limit: Some(options.memory_limit).filter(|&bytes| bytes > 0),
        call: watch.call.clone(),
    })
}

/// What a VAE's report says, in the header's form; fallbacks go to the log, too.
fn told(report: &Report, copied: u64, watch: &Watch) -> luna_report {
    let mut told = luna_report::new(report.precision, report.elapsed);
    told.copied_bytes = copied;
    if let Some((tiling, tiles)) = report.tiling {
        (told.tile, told.tile_overlap) = (tiling.tile as u32, tiling.overlap as u32);
        told.tiles = tiles as u32;
    }
    for fallback in &report.fallbacks {
        watch.warn("VAE", fallback);
        match fallback {
            Fallback::Tiled { needed, available, .. } => {
                told.fallbacks |= LUNA_FALLBACK_TILED;
                (told.memory_needed, told.memory_available) = (*needed, *available);
            }
            Fallback::Widened { non_finite, .. } => {
                told.fallbacks |= LUNA_FALLBACK_WIDENED;
                told.non_finite = *non_finite as u64;
            }
            _ => {}
        }
    }
    told
}

/// The four sides of an array, or what is wrong with it.
fn four(what: &str, meaning: &str, floats: &Floats) -> Result<[usize; 4]> {
    floats.shape[..].try_into().map_err(|_| {
        wrong(format!("{what} has a wrong number of dimensions"))
            .expected(meaning)
            .found(format!("{:?}", floats.shape))
            .into()
    })
}

fn info(vae: &Vae) -> luna_vae_info {
    let scale = vae.latent_scale();
    luna_vae_info {
        size: 0,
        latent_channels: vae.latent_channels() as u32,
        picture_channels: vae.picture_channels() as u32,
        factor: vae.factor() as u32,
        has_scale: scale.is_some().into(),
        scale: scale.map_or(0.0, |scale| scale.scale),
        shift: scale.map_or(0.0, |scale| scale.shift),
        weight_bytes: vae.weight_bytes(),
    }
}

fn remote_info(vae: &RemoteVae) -> luna_vae_info {
    let scale = vae.scale();
    luna_vae_info {
        size: 0,
        latent_channels: vae.info.latent_channels as u32,
        picture_channels: 3,
        factor: vae.info.factor as u32,
        has_scale: scale.is_some().into(),
        scale: scale.map_or(0.0, |scale| scale.scale),
        shift: scale.map_or(0.0, |scale| scale.shift),
        weight_bytes: vae.bytes,
    }
}

impl LoadedVae {
    fn load(session: &Session, path: &str, options: &luna_vae_load_options) -> Result<Self> {
        let halves = choose("half of a VAE", options.halves, &[Halves::Both, Halves::Encoder, Halves::Decoder])?;
        let (vae, info) = match session.place() {
            Place::Here(embedded) => {
                let load = |checkpoint: &Checkpoint, runtime: &Runtime| Vae::load_halves(checkpoint, runtime, halves);
                let path = not_empty("path", path)?;
                let vae = match (halves, path) {
                    (Halves::Both, _) => {
                        embedded.acquire(path, Some((MOONLET, Vae::moonlet_checkpoint as fn() -> _)), load)?
                    }
                    (_, MOONLET) => embedded.adopt(path, &Vae::moonlet_checkpoint()?, &options.halves, load)?,
                    _ => embedded.acquire_read(path, &options.halves, load)?,
                };
                let info = info(&vae);
                (Source::Here(vae), info)
            }
            Place::There(_) if halves != Halves::Both => return Err(not_remote("half a VAE").into()),
            Place::There(daemon) => {
                let vae = RemoteVae::load(daemon, not_empty("path", path)?)?;
                let info = remote_info(&vae);
                (Source::There(vae), info)
            }
        };
        Ok(Self { vae, info, log: session.log })
    }

    fn scale(&self) -> Option<LatentScale> {
        match &self.vae {
            Source::Here(vae) => vae.latent_scale(),
            Source::There(vae) => vae.scale(),
        }
    }

    fn encode(
        &self,
        caller: &Caller,
        image: *const luna_view,
        options: &luna_encode_options,
        watch: &Watch,
    ) -> Result<(Tensor, luna_report)> {
        let floats = floats(caller, "image", image, Meaning::Pixels)?;
        let shape = four("the image", "[batch, height, width, channels]", &floats)?;
        let own = encode_options(options, watch)?;
        let (latent, report) = match &self.vae {
            Source::Here(vae) => {
                let encoded = vae.encode(ImageView::new(shape, &floats.values)?, &own)?;
                (encoded.latent, told(&encoded.report, floats.copied, watch))
            }
            Source::There(vae) => {
                let copied = floats.values.len() as u64 * 4;
                let (latent, report) = vae.encode(&Image::new(shape, floats.values.into_owned())?, &own, watch)?;
                (latent, luna_report { copied_bytes: copied, ..report })
            }
        };
        let latent = if yes(options.scaled) { latent.scaled()? } else { latent };
        Ok((Tensor::Latent(Arc::new(latent)), report))
    }

    fn decode(
        &self,
        caller: &Caller,
        latent: *const luna_view,
        options: &luna_decode_options,
        watch: &Watch,
    ) -> Result<(Tensor, luna_report)> {
        let floats = floats(caller, "latent", latent, Meaning::Numbers)?;
        let shape = four("the latent", "[batch, channels, height, width]", &floats)?;
        let (own, scaled) = (decode_options(options, watch)?, yes(options.scaled));
        let (image, report) = match &self.vae {
            Source::Here(vae) => {
                let latent = LatentView::new(shape, &floats.values)?.with_scale(self.scale(), scaled);
                let decoded = vae.decode(latent, &own)?;
                (decoded.image, told(&decoded.report, floats.copied, watch))
            }
            Source::There(vae) => {
                let copied = floats.values.len() as u64 * 4;
                let latent = Latent::new(shape, floats.values.into_owned())?.with_scale(self.scale(), scaled);
                let (image, report) = vae.decode(&latent, &own, watch)?;
                (image, luna_report { copied_bytes: copied, ..report })
            }
        };
        Ok((Tensor::Image(Arc::new(image)), report))
    }
}

fn load(
    caller: &Caller,
    session: luna_session,
    path: *const c_char,
    options: *const luna_vae_load_options,
    vae: *mut luna_vae,
) -> Result<()> {
    let place = caller.output("vae", vae)?;
    let (session, options) = (object::<Session>(session)?, caller.options(options)?);
    place.put(table::insert(LoadedVae::load(&session, caller.text("path", path)?, &options)?));
    Ok(())
}

/// Loads a VAE, or shares the one in memory if its content is the same. `path` is a file (.safetensors, alone or in a
/// checkpoint), a `.safetensors.index.json`, a diffusers folder, or `moonlet` for the small demonstration model that the
/// library carries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vae_load(session: luna_session, path: *const c_char, vae: *mut luna_vae) -> luna_status {
    boundary(|caller| load(caller, session, path, ptr::null(), vae))
}

/// As `luna_vae_load`, with options, which may be NULL. A daemon's VAEs are whole.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vae_load_with(
    session: luna_session,
    path: *const c_char,
    options: *const luna_vae_load_options,
    vae: *mut luna_vae,
) -> luna_status {
    boundary(|caller| load(caller, session, path, options, vae))
}

/// Tells what is known of a VAE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vae_get_info(vae: luna_vae, info: *mut luna_vae_info) -> luna_status {
    boundary(|caller| {
        caller.output("info", info)?;
        let mut place = caller.report(info)?;
        place.put(object::<LoadedVae>(vae)?.info);
        Ok(())
    })
}

/// Encodes pictures, `[batch, height, width, channels]` with 1, 3 or 4 channels in 0..1 (alpha is dropped, grey is
/// repeated), to latents, `[batch, latent channels, height/8, width/8]`. `options` and `report` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vae_encode(
    vae: luna_vae,
    image: *const luna_view,
    options: *const luna_encode_options,
    latent: *mut luna_tensor,
    report: *mut luna_report,
) -> luna_status {
    boundary(|caller| {
        let (place, mut report) = (caller.output("latent", latent)?, caller.report(report)?);
        let (vae, options) = (object::<LoadedVae>(vae)?, caller.options(options)?);
        let (tensor, told) = watched(options.call, vae.log, |watch| vae.encode(caller, image, &options, watch))?;
        place.put(tensor.open());
        report.put(told);
        Ok(())
    })
}

/// Decodes latents, `[batch, latent channels, height, width]`, to pictures, `[batch, height*8, width*8, 3]` in 0..1.
/// `options` and `report` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vae_decode(
    vae: luna_vae,
    latent: *const luna_view,
    options: *const luna_decode_options,
    image: *mut luna_tensor,
    report: *mut luna_report,
) -> luna_status {
    boundary(|caller| {
        let (place, mut report) = (caller.output("image", image)?, caller.report(report)?);
        let (vae, options) = (object::<LoadedVae>(vae)?, caller.options(options)?);
        let (tensor, told) = watched(options.call, vae.log, |watch| vae.decode(caller, latent, &options, watch))?;
        place.put(tensor.open());
        report.put(told);
        Ok(())
    })
}

/// Frees a VAE's handle. The model stays in memory for the next one, as the session's budget allows.
#[unsafe(no_mangle)]
pub extern "C" fn luna_vae_free(vae: luna_vae) -> luna_status {
    free::<LoadedVae>(vae)
}
