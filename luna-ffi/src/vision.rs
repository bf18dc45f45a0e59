//! Vision encoders. Enters: a path; then pictures. Leaves: hidden states and embeddings.

mod load;

use crate::{
    call::{Log, Watch, watched},
    daemon::{RemoteVision, not_remote},
    error::{Result, wrong},
    handle::{Caller, boundary, free, is_none, object},
    options::{LUNA_FALLBACK_WIDENED, luna_report, precision, yes},
    picture::images,
    session::{Place, Session, not_empty},
    status::luna_status,
    table::{self, Object},
    tensor::Tensor,
    types::{luna_call, luna_session, luna_tensor, luna_vision},
    view::{Floats, Meaning, floats, luna_view},
};
use load::load_options;
pub use load::*;
use luna_core::{
    Image, Runtime,
    checkpoint::Checkpoint,
    protocol::EncodeVision,
    registry::Lease,
    vision::{Encoded, Fallback, Features, PictureView, PixelValues, Region, VisionKind, VisionModel, VisionOptions},
};
use std::{
    ffi::{CStr, c_char},
    ptr,
    sync::Arc,
};

crate::handle::plain!(luna_features);
crate::handle::records!(luna_vision_info, luna_vision_options);

/// What is known of a vision encoder.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_vision_info {
    /// `sizeof(luna_vision_info)`, set by the caller.
    pub size: usize,
    /// Its family: `clip_vision` or `siglip`; valid for ever.
    pub kind: *const c_char,
    /// Side of the pictures that it takes, in pixels; others are resized as it was trained with.
    pub image_size: u64,
    /// Side of a patch, in pixels.
    pub patch_size: u64,
    /// Number of layers.
    pub layers: u64,
    /// Length of a token's encoding.
    pub channels: u64,
    /// Tokens of a picture; 0 for a daemon's.
    pub tokens: u64,
    /// Length of the projected embedding; 0 where there is none, and for a daemon's.
    pub embedding: u64,
    /// Bytes of its weights; 0 for a daemon's.
    pub weight_bytes: u64,
}

/// Options of `luna_vision_encode`. All zeros but `size` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_vision_options {
    /// `sizeof(luna_vision_options)`.
    pub size: usize,
    /// A `luna_precision`.
    pub precision: i32,
    /// Whether only a part of each picture is looked at, the four numbers below in pixels: 0 or 1.
    pub part: u32,
    /// The part's first row.
    pub top: u32,
    /// Its first column.
    pub left: u32,
    /// Its rows.
    pub height: u32,
    /// Its columns.
    pub width: u32,
    /// Cancellation, progress and log; all zero for none.
    pub call: luna_call,
}

/// What a vision encoder makes of pictures, by the names that transformers has. Freed by `luna_features_free`. What a
/// model does not give is all zero.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_features {
    /// `[pictures, tokens, channels]`: after the last block (CLIP), or after the final norm (SigLIP).
    pub last_hidden_state: luna_tensor,
    /// `[pictures, tokens, channels]`: after the last block but one.
    pub penultimate: luna_tensor,
    /// `[pictures, channels]`.
    pub pooler_output: luna_tensor,
    /// `[pictures, embedding]`: projected to where texts are embedded, too.
    pub image_embeds: luna_tensor,
}

/// The object behind `luna_vision`.
pub(crate) struct LoadedVision {
    source: Source,
    log: Log,
}

/// Where its weights are.
enum Source {
    Here(Lease<VisionModel>),
    There(RemoteVision),
}

/// A family's name, which is valid for ever.
fn kind_name(name: &str) -> &'static CStr {
    if name == VisionKind::Siglip.name() { c"siglip" } else { c"clip_vision" }
}

/// What is to be encoded.
enum Wanted {
    Pictures(Vec<Image>),
    Pixels(PixelValues),
}

impl Object for LoadedVision {
    const NAME: &'static str = "luna_vision";
}

impl LoadedVision {
    fn load(session: &Session, path: &str, options: &luna_vision_load_options) -> Result<Self> {
        let (path, own) = (not_empty("path", path)?, load_options(options)?);
        let as_usual = own.activation.is_none() && own.preprocessing.is_none();
        let source = match session.place() {
            Place::Here(embedded) => {
                let load = |checkpoint: &Checkpoint, runtime: &Runtime| VisionModel::load(checkpoint, runtime, &own);
                Source::Here(if as_usual {
                    embedded.acquire_file(path, load)?
                } else {
                    // Floats have no hash of their own; what they print as tells them apart.
                    embedded.acquire_read(path, &format!("{:?} {:?}", own.activation, own.preprocessing), load)?
                })
            }
            Place::There(daemon) if as_usual => Source::There(RemoteVision::load(daemon, path)?),
            Place::There(_) => return Err(not_remote("an activation or a preprocessing of one's own").into()),
        };
        Ok(Self { source, log: session.log })
    }

    fn info(&self) -> Result<luna_vision_info> {
        Ok(match &self.source {
            Source::Here(model) => {
                let info = model.info();
                luna_vision_info {
                    size: 0,
                    kind: kind_name(info.kind.name()).as_ptr(),
                    image_size: info.image_size as u64,
                    patch_size: info.patch_size as u64,
                    layers: info.layers as u64,
                    channels: info.channels as u64,
                    tokens: info.tokens as u64,
                    embedding: info.embedding.unwrap_or_default() as u64,
                    weight_bytes: model.weight_bytes(),
                }
            }
            Source::There(remote) => {
                let info = remote.info()?;
                luna_vision_info {
                    size: 0,
                    kind: kind_name(&info.kind).as_ptr(),
                    image_size: info.image_size as u64,
                    patch_size: info.patch_size as u64,
                    layers: info.layers as u64,
                    channels: info.channels as u64,
                    tokens: 0,
                    embedding: 0,
                    weight_bytes: 0,
                }
            }
        })
    }

    fn encode(
        &self,
        wanted: &Wanted,
        options: &luna_vision_options,
        copied: u64,
        watch: &Watch,
    ) -> Result<(luna_features, luna_report)> {
        let own = VisionOptions { precision: precision(options.precision)?, call: watch.call.clone() };
        match &self.source {
            Source::Here(model) => {
                let encoded = match wanted {
                    Wanted::Pictures(images) => model.encode(&views(images, options), &own)?,
                    Wanted::Pixels(pixels) => model.encode_pixels(pixels, &own)?,
                };
                Ok(open(encoded, copied, watch))
            }
            Source::There(remote) => {
                let regions = part(options).map(|Region { top, left, height, width }| [top, left, height, width]);
                let asked = EncodeVision {
                    regions: regions.into_iter().collect(),
                    precision: Some(own.precision.name().to_owned()),
                    ..EncodeVision::default()
                };
                let (features, told) = match wanted {
                    Wanted::Pictures(images) => remote.encode(&images.iter().collect::<Vec<_>>(), asked, watch)?,
                    Wanted::Pixels(pixels) => remote.encode_pixels(pixels, asked, watch)?,
                };
                let open = |features: Option<Features>| {
                    features.map_or(luna_tensor::NONE, |own| Tensor::Features(Arc::new(own)).open())
                };
                let features = luna_features {
                    last_hidden_state: open(features.last_hidden_state),
                    penultimate: open(features.penultimate),
                    pooler_output: open(features.pooler_output),
                    image_embeds: open(features.image_embeds),
                };
                Ok((features, luna_report { copied_bytes: copied, ..told }))
            }
        }
    }
}

/// The part of each picture that is looked at.
fn part(options: &luna_vision_options) -> Option<Region> {
    let &luna_vision_options { top, left, height, width, .. } = options;
    let [top, left, height, width] = [top, left, height, width].map(|side| side as usize);
    yes(options.part).then_some(Region { top, left, height, width })
}

fn views<'a>(images: &'a [Image], options: &luna_vision_options) -> Vec<PictureView<'a>> {
    let part = part(options);
    let view = |image| part.map_or(PictureView::whole(image), |part| PictureView::part(image, part));
    images.iter().map(view).collect()
}

/// Handles to what was made of pictures, and how.
fn open(encoded: Encoded, copied: u64, watch: &Watch) -> (luna_features, luna_report) {
    let mut told = luna_report::new(encoded.precision, encoded.elapsed);
    told.copied_bytes = copied;
    for fallback in &encoded.fallbacks {
        watch.warn("vision encoder", fallback);
        if let Fallback::Widened { non_finite, .. } = fallback {
            told.fallbacks |= LUNA_FALLBACK_WIDENED;
            told.non_finite = *non_finite as u64;
        }
    }
    let open = |features| Tensor::Features(Arc::new(features)).open();
    let features = luna_features {
        last_hidden_state: open(encoded.last_hidden_state),
        penultimate: open(encoded.penultimate),
        pooler_output: encoded.pooler_output.map_or(luna_tensor::NONE, open),
        image_embeds: encoded.image_embeds.map_or(luna_tensor::NONE, open),
    };
    (features, told)
}

fn load(
    caller: &Caller,
    session: luna_session,
    path: *const c_char,
    options: *const luna_vision_load_options,
    vision: *mut luna_vision,
) -> Result<()> {
    let place = caller.output("vision", vision)?;
    let (session, options) = (object::<Session>(session)?, caller.options(options)?);
    place.put(table::insert(LoadedVision::load(&session, caller.text("path", path)?, &options)?));
    Ok(())
}

/// Loads a vision encoder (CLIP or SigLIP), or shares the one in memory. `path` is a file, a checkpoint with one in it or
/// a folder.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vision_load(
    session: luna_session,
    path: *const c_char,
    vision: *mut luna_vision,
) -> luna_status {
    boundary(|caller| load(caller, session, path, ptr::null(), vision))
}

/// As `luna_vision_load`, with options, which may be NULL: what the file is to be taken for where it does not say, or says
/// otherwise. With other options it is another model. A daemon's are `LUNA_STATUS_UNSUPPORTED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vision_load_with(
    session: luna_session,
    path: *const c_char,
    options: *const luna_vision_load_options,
    vision: *mut luna_vision,
) -> luna_status {
    boundary(|caller| load(caller, session, path, options, vision))
}

/// Tells what is known of a vision encoder. A daemon's tells with its first call, and is `LUNA_STATUS_UNSUPPORTED` before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vision_get_info(vision: luna_vision, info: *mut luna_vision_info) -> luna_status {
    boundary(|caller| {
        caller.output("info", info)?;
        let mut place = caller.report(info)?;
        place.put(object::<LoadedVision>(vision)?.info()?);
        Ok(())
    })
}

/// Encodes pictures of any size, each `[batch, height, width, channels]` in 0..1, as one batch. `options` and `report`
/// may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vision_encode(
    vision: luna_vision,
    images: *const *const luna_view,
    image_count: usize,
    options: *const luna_vision_options,
    features: *mut luna_features,
    report: *mut luna_report,
) -> luna_status {
    boundary(|caller| {
        let (place, mut report) = (caller.output("features", features)?, caller.report(report)?);
        let (vision, options) = (object::<LoadedVision>(vision)?, caller.options(options)?);
        let (images, copied) = self::images(caller, images, image_count)?;
        let wanted = Wanted::Pictures(images);
        let (features, told) =
            watched(options.call, vision.log, |watch| vision.encode(&wanted, &options, copied, watch))?;
        place.put(features);
        report.put(told);
        Ok(())
    })
}

/// Encodes pixel values that were prepared already, `[batch, 3, image_size, image_size]`, resized, cropped and
/// normalised. `options` and `report` may be NULL; a part cannot be asked for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vision_encode_pixels(
    vision: luna_vision,
    pixels: *const luna_view,
    options: *const luna_vision_options,
    features: *mut luna_features,
    report: *mut luna_report,
) -> luna_status {
    boundary(|caller| {
        let (place, mut report) = (caller.output("features", features)?, caller.report(report)?);
        let (vision, options) = (object::<LoadedVision>(vision)?, caller.options(options)?);
        if yes(options.part) {
            return Err(wrong("prepared pixels have no parts").remedy("give the pictures themselves").into());
        }
        let Floats { shape, values, .. } = floats(caller, "pixels", pixels, Meaning::Numbers)?;
        let sides = <[usize; 4]>::try_from(&shape[..]).map_err(|_| {
            wrong("the pixels have a wrong number of dimensions")
                .expected("[batch, 3, height, width]")
                .found(format!("{shape:?}"))
        })?;
        let copied = values.len() as u64 * 4;
        let pixels = PixelValues::new(sides, values.into_owned())?;
        let wanted = Wanted::Pixels(pixels);
        let (features, told) =
            watched(options.call, vision.log, |watch| vision.encode(&wanted, &options, copied, watch))?;
        place.put(features);
        report.put(told);
        Ok(())
    })
}

/// Frees all handles of features; those that are all zero are passed over.
#[unsafe(no_mangle)]
pub extern "C" fn luna_features_free(features: luna_features) -> luna_status {
    boundary(|_| {
        let luna_features { last_hidden_state, penultimate, pooler_output, image_embeds } = features;
        let tensors = [last_hidden_state, penultimate, pooler_output, image_embeds];
        let tensors = tensors.into_iter().filter(|&tensor| !is_none(tensor));
        let freed: Vec<Result<_>> = tensors.map(|tensor| table::remove::<Tensor>(tensor.into()).map(drop)).collect();
        freed.into_iter().collect()
    })
}

/// Frees a vision encoder's handle. The model stays in memory for the next one, as the session's budget allows.
#[unsafe(no_mangle)]
pub extern "C" fn luna_vision_free(vision: luna_vision) -> luna_status {
    free::<LoadedVision>(vision)
}
