//! What a vision encoder's file is to be taken for. Enters: a struct of the header. Leaves: the library's options.

use crate::{
    error::{Result, wrong},
    options::{choose, yes},
};
use luna_core::{
    picture::Filter,
    vision::{Preprocessing, ResizeRule, VisionActivation, VisionLoadOptions},
};

crate::handle::records!(luna_vision_load_options);

/// The activation between the two layers of a vision encoder's feed-forward blocks.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_vision_activation {
    /// What `config.json` states, else what an encoder of its size has.
    ByFile = 0,
    /// `x * sigmoid(1.702 x)`: OpenAI's CLIPs.
    QuickGelu = 1,
    /// The exact GELU: OpenCLIP's.
    Gelu = 2,
    /// GELU's approximation by a hyperbolic tangent: SigLIP.
    GeluTanh = 3,
}

/// To which size a picture is brought before anything is cut off.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_resize {
    /// The shorter side becomes `resize_height` long; the other keeps the aspect.
    ShortestEdge = 0,
    /// Just `resize_height` by `resize_width`, whatever the aspect.
    Exact = 1,
    /// As it is.
    Keep = 2,
}

/// How a picture is resized.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_filter {
    /// Cubic convolution.
    Bicubic = 0,
    /// Linear between neighbours.
    Bilinear = 1,
    /// A windowed sinc over three lobes.
    Lanczos = 2,
}

/// Options of `luna_vision_load_with`. All zeros but `size` is what the file states, and what `luna_vision_load` takes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_vision_load_options {
    /// `sizeof(luna_vision_load_options)`.
    pub size: usize,
    /// A `luna_vision_activation`.
    pub activation: i32,
    /// Whether the fields below say how pictures become pixel values, in place of `preprocessor_config.json` or what the
    /// family was trained with: 0 or 1.
    pub preprocessing: u32,
    /// A `luna_resize`.
    pub resize: i32,
    /// A `luna_filter`.
    pub filter: i32,
    /// Pixels; the shorter side's with `LUNA_RESIZE_SHORTEST_EDGE`.
    pub resize_height: u32,
    /// Pixels; only with `LUNA_RESIZE_EXACT`.
    pub resize_width: u32,
    /// Rows that are cut out of the middle; 0 for all.
    pub crop_height: u32,
    /// Columns that are cut out of the middle; 0 for all.
    pub crop_width: u32,
    /// Factor on 8-bit values; 0 for 1/255.
    pub rescale: f32,
    /// Subtracted from red, green and blue.
    pub mean: [f32; 3],
    /// What the difference is divided by; three zeros for ones.
    pub std: [f32; 3],
}

/// The library's options.
pub(super) fn load_options(options: &luna_vision_load_options) -> Result<VisionLoadOptions> {
    let activations =
        [None, Some(VisionActivation::QuickGelu), Some(VisionActivation::Gelu), Some(VisionActivation::GeluTanh)];
    Ok(VisionLoadOptions {
        activation: choose("activation", options.activation, &activations)?,
        preprocessing: yes(options.preprocessing).then(|| preprocessing(options)).transpose()?,
        ..VisionLoadOptions::default()
    })
}

fn preprocessing(options: &luna_vision_load_options) -> Result<Preprocessing> {
    let side = |what: &str, side: u32| match side {
        0 => Err(wrong(format!("{what} is 0"))),
        side => Ok(side as usize),
    };
    let height = || side("resize_height", options.resize_height);
    let resize = match choose("way of resizing", options.resize, &[0, 1, 2])? {
        0 => ResizeRule::ShortestEdge(height()?),
        1 => ResizeRule::Exact(height()?, side("resize_width", options.resize_width)?),
        _ => ResizeRule::Keep,
    };
    let crop = match [options.crop_height, options.crop_width] {
        [0, 0] => None,
        [height, width] => Some([side("crop_height", height)?, side("crop_width", width)?]),
    };
    let (mean, std) = (options.mean, if options.std == [0.0; 3] { [1.0; 3] } else { options.std });
    let rescale = if options.rescale == 0.0 { 1.0 / 255.0 } else { options.rescale };
    let numbers = [rescale].into_iter().chain(mean).chain(std);
    if std.contains(&0.0) || !numbers.into_iter().all(f32::is_finite) {
        return Err(wrong("pictures cannot be normalised like that")
            .expected("finite numbers, and a `std` without zeros")
            .found(format!("rescale {rescale}, mean {mean:?}, std {std:?}"))
            .into());
    }
    let filter = choose("filter", options.filter, &[Filter::Bicubic, Filter::Bilinear, Filter::Lanczos])?;
    Ok(Preprocessing { resize, filter, crop, rescale, mean, std })
}
