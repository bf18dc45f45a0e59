//! `demo`: the bundled photograph through encode, latent and decode, with pictures to look at.

use super::{
    encode::{read_pictures, refuse_if_cancelled},
    outcome::{CallOutcome, VaeOutcome, runtime},
};
use crate::{output::Output, settings, tensor_file::write_latent, vaes::VaeChoice};
use luna_core::{
    CancelToken, Error, Image, Limits, Result,
    files::IfExists,
    memory,
    picture::{self, Format, Metadata, Pixels, write_picture},
    vae::{DecodeOptions, EncodeOptions, Halves},
};
use serde::Serialize;
use std::{fs, path::PathBuf};

/// A photograph that was not among what moonlet was trained on; see `examples/photos/README.md`.
static PHOTOGRAPH: &[u8] = include_bytes!("../../../examples/photos/chelsea.png");

/// Pixels between the pictures that stand side by side.
const GAP: usize = 8;

/// What `demo` did.
#[derive(Serialize)]
pub struct DemoOutcome {
    pub vae: VaeOutcome,
    /// `None` for the bundled photograph.
    pub picture: Option<PathBuf>,
    /// `[height, width]`.
    pub picture_size: [usize; 2],
    pub latent_shape: [usize; 4],
    pub encode: CallOutcome,
    pub decode: CallOutcome,
    /// How near the decoded picture is to the original, in dB; `None` if they are equal.
    pub psnr: Option<f64>,
    pub peak_memory_bytes: Option<u64>,
    pub outputs: Vec<PathBuf>,
}

/// Encodes and decodes one picture and writes what there is to see.
pub fn run(settings: &settings::Demo, token: &CancelToken, output: &Output) -> Result<DemoOutcome> {
    let picture = match &settings.picture {
        Some(path) => read_pictures(path)?,
        None => picture::decode(PHOTOGRAPH, &Limits::default())?,
    };
    let runtime = runtime(&settings.compute)?;
    let named = VaeChoice::default().load(&runtime, Halves::Both)?;
    let precision = settings.compute.precision;
    let options = EncodeOptions { precision, call: output.watched_call("encoding", token), ..Default::default() };
    let encoded = named.vae.encode(&picture, &options)?;
    let options = DecodeOptions { precision, call: output.watched_call("decoding", token), ..Default::default() };
    let decoded = named.vae.decode(&encoded.latent, &options)?;
    output.finish_progress();
    refuse_if_cancelled(token)?;

    let original = cropped(&picture, encoded.size)?;
    let folder = &settings.folder;
    fs::create_dir_all(folder).map_err(|error| Error::io(format!("make the folder {}", folder.display()), error))?;
    let both = side_by_side(&original, &decoded.image)?;
    let pictures = [("original.png", &original), ("decoded.png", &decoded.image), ("side-by-side.png", &both)];
    let mut outputs =
        pictures.into_iter().map(|(name, image)| write_png(folder.join(name), image)).collect::<Result<Vec<_>>>()?;
    let path = folder.join("latent.safetensors");
    write_latent(&path, &encoded.latent, &named.name, IfExists::Replace)?;
    outputs.push(path);
    Ok(DemoOutcome {
        vae: VaeOutcome::of(&named),
        picture: settings.picture.clone(),
        picture_size: encoded.size,
        latent_shape: encoded.latent.shape(),
        encode: CallOutcome::of(&encoded.report, &named.vae),
        decode: CallOutcome::of(&decoded.report, &named.vae),
        psnr: psnr(original.data(), decoded.image.data()),
        peak_memory_bytes: memory::peak_resident(),
        outputs,
    })
}

/// The first picture, cut about the centre to the size that was encoded.
fn cropped(image: &Image, [height, width]: [usize; 2]) -> Result<Image> {
    let (top, left) = ((image.height() - height) / 2, (image.width() - width) / 2);
    let cropped = image.to_rgb().crop(top, left, height, width)?;
    Image::new([1, height, width, 3], cropped.picture(0).to_vec())
}

fn write_png(path: PathBuf, image: &Image) -> Result<PathBuf> {
    write_picture(&path, &Pixels::of(image, 0), Format::PNG, &Metadata::none(), IfExists::Replace)?;
    Ok(path)
}

/// Two pictures of one size with a white gap between them.
fn side_by_side(left: &Image, right: &Image) -> Result<Image> {
    let (height, line) = (left.height(), left.width() * 3);
    let mut data = Vec::with_capacity(height * (2 * line + 3 * GAP));
    for (left, right) in left.picture(0).chunks_exact(line).zip(right.picture(0).chunks_exact(line)) {
        data.extend_from_slice(left);
        data.extend([1.0; 3 * GAP]);
        data.extend_from_slice(right);
    }
    Image::new([1, height, 2 * left.width() + GAP, 3], data)
}

/// Peak signal-to-noise ratio of values in 0..1, in dB.
fn psnr(a: &[f32], b: &[f32]) -> Option<f64> {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let mean = sum / a.len() as f64;
    (mean > 0.0).then(|| -10.0 * mean.log10())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psnr_is_that_of_the_mean_squared_error() {
        assert_eq!(psnr(&[0.5; 4], &[0.5; 4]), None);
        assert!((psnr(&[0.5; 4], &[0.6; 4]).unwrap() - 20.0).abs() < 1e-5);
    }

    #[test]
    fn pictures_stand_side_by_side() {
        let image = |value| Image::new([1, 2, 1, 3], vec![value; 6]).unwrap();
        let both = side_by_side(&image(0.25), &image(0.75)).unwrap();
        assert_eq!(both.shape(), [1, 2, 2 + GAP, 3]);
        assert_eq!((both.data()[0], both.data()[3], both.data()[3 + 3 * GAP]), (0.25, 1.0, 0.75));
    }
}
