//! From pictures to pixel values, as transformers' processors do it with Pillow. Enters: pictures of any size. Leaves:
//! pixel values of the size an encoder takes.

use super::{PictureView, PixelValues, VisionKind};
use crate::{
    Error, ErrorKind, Limits, Result,
    limits::check_at_most,
    picture::{Filter, Pixels, Resampling, resample},
};
use serde_json::Value;

/// What OpenAI's CLIP was trained with.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// To which size a picture is brought before anything is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResizeRule {
    /// The shorter side becomes this long; the other keeps the aspect, rounded down.
    ShortestEdge(usize),
    /// Just this height and width, whatever the aspect.
    Exact(usize, usize),
    /// As it is.
    Keep,
}

/// How pictures become pixel values. Greys are repeated and what is
/// transparent is laid on white, as transformers does it.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessing {
    /// The size before cropping.
    pub resize: ResizeRule,
    /// How it is resized.
    pub filter: Filter,
    /// Height and width cut out of the middle, zeros where there is nothing; all if not given.
    pub crop: Option<[usize; 2]>,
    /// Factor on 8-bit values, usually 1/255.
    pub rescale: f32,
    /// Subtracted from red, green and blue.
    pub mean: [f32; 3],
    /// What the difference is divided by.
    pub std: [f32; 3],
}

impl Preprocessing {
    /// What an encoder of this kind was trained with, for pictures of this side.
    pub fn of(kind: VisionKind, side: usize) -> Self {
        let (resize, crop, mean, std) = match kind {
            VisionKind::Clip => (ResizeRule::ShortestEdge(side), Some([side, side]), CLIP_MEAN, CLIP_STD),
            VisionKind::Siglip => (ResizeRule::Exact(side, side), None, [0.5; 3], [0.5; 3]),
        };
        Self { resize, filter: Filter::Bicubic, crop, rescale: 1.0 / 255.0, mean, std }
    }

    /// What a `preprocessor_config.json` states; `of(kind, side)` fills in what it does not.
    ///
    /// # Errors
    /// `InvalidFile` for values of a wrong kind, `Unsupported` for a filter that Luna lacks.
    pub fn stated(config: &Value, kind: VisionKind, side: usize) -> Result<Self> {
        let usual = Self::of(kind, side);
        let does = |name: &str| config[name].as_bool();
        let resize = match does("do_resize") {
            Some(false) => ResizeRule::Keep,
            _ => resize_rule(&config["size"])?.unwrap_or(usual.resize),
        };
        let crop = match does("do_center_crop").unwrap_or(usual.crop.is_some()) {
            true => Some(crop_size(&config["crop_size"])?.or(usual.crop).unwrap_or([side, side])),
            false => None,
        };
        let filter = match config["resample"].as_u64() {
            Some(number) => Filter::of_pillow(number).ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, "preprocessor_config.json names a filter that Luna lacks")
                    .expected("resample 1 (Lanczos), 2 (bilinear) or 3 (bicubic)")
                    .found(number.to_string())
            })?,
            None => usual.filter,
        };
        let rescale = match does("do_rescale") {
            Some(false) => 1.0,
            _ => config["rescale_factor"].as_f64().map_or(usual.rescale, |factor| factor as f32),
        };
        let (mean, std) = match does("do_normalize") {
            Some(false) => ([0.0; 3], [1.0; 3]),
            _ => (
                three(&config["image_mean"], "image_mean")?.unwrap_or(usual.mean),
                three(&config["image_std"], "image_std")?.unwrap_or(usual.std),
            ),
        };
        if std.contains(&0.0) {
            return Err(wrong("image_std").found("0"));
        }
        Ok(Self { resize, filter, crop, rescale, mean, std })
    }

    /// The height and width that pictures of this size come out with.
    pub fn size_of(&self, height: usize, width: usize) -> [usize; 2] {
        self.crop.unwrap_or_else(|| self.resized(height, width))
    }

    fn resized(&self, height: usize, width: usize) -> [usize; 2] {
        match self.resize {
            ResizeRule::Keep => [height, width],
            ResizeRule::Exact(height, width) => [height, width],
            ResizeRule::ShortestEdge(edge) => {
                let longer = |long: usize, short: usize| (edge as f64 * long as f64 / short as f64) as usize;
                if width <= height { [longer(height, width), edge] } else { [edge, longer(width, height)] }
            }
        }
    }

    /// Prepares pictures one after the other. All must come out of one size.
    ///
    /// # Errors
    /// `InvalidInput` for no picture, a part outside one, or sizes that differ; `LimitExceeded` for too many pictures or
    /// too large a result; `NonFinite` for a NaN among the pixels.
    pub fn prepare(&self, pictures: &[PictureView]) -> Result<PixelValues> {
        let mut data = Vec::new();
        let mut size = None;
        let mut batch = 0;
        for view in pictures {
            let image = view.image()?;
            let [height, width] = self.size_of(image.height(), image.width());
            if *size.get_or_insert([height, width]) != [height, width] {
                return Err(Error::new(ErrorKind::InvalidInput, "pictures of one batch come out of different sizes")
                    .expected(format!("{size:?}"))
                    .found(format!("{height}x{width}"))
                    .remedy("encode them one by one"));
            }
            check_at_most("images in a batch", (batch + image.batch()) as u64, Limits::default().batch as u64)?;
            for index in 0..image.batch() {
                self.prepare_one(&Pixels::of(&image, index), &mut data)?;
            }
            batch += image.batch();
        }
        let [height, width] = size.ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "there is nothing to encode").expected("at least one picture")
        })?;
        PixelValues::new([batch, 3, height, width], data)
    }

    /// Appends `[3, height, width]` of one picture.
    fn prepare_one(&self, picture: &Pixels, out: &mut Vec<f32>) -> Result<()> {
        let resized = self.resized(picture.height(), picture.width());
        if resized.contains(&0) {
            return Err(Error::new(ErrorKind::InvalidInput, "the picture would be resized to nothing").found(format!(
                "{}x{} to {resized:?}",
                picture.height(),
                picture.width()
            )));
        }
        let [height, width] = self.crop.unwrap_or(resized);
        let limits = Limits::default();
        check_at_most("pixels along a side of an image", height.max(width) as u64, limits.image_side as u64)?;
        let (rows, columns) = (Centred::new(resized[0], height), Centred::new(resized[1], width));
        let to = Resampling {
            size: resized,
            rows: rows.from..rows.from + rows.count,
            columns: columns.from..columns.from + columns.count,
            filter: self.filter,
        };
        let window = resample(picture, &to)?;
        let start = out.len();
        // What lies outside the picture is black before mean and deviation are removed.
        for (mean, std) in self.mean.iter().zip(&self.std) {
            out.extend(std::iter::repeat_n((0.0 - mean) / std, height * width));
        }
        for (pixel, values) in window.chunks_exact(3).enumerate() {
            let (row, column) = (rows.to + pixel / columns.count, columns.to + pixel % columns.count);
            for (channel, &value) in values.iter().enumerate() {
                let scaled = f32::from(value) * self.rescale;
                out[start + (channel * height + row) * width + column] =
                    (scaled - self.mean[channel]) / self.std[channel];
            }
        }
        Ok(())
    }
}

/// One axis of a crop about the middle: `count` pixels starting with `from` of the source go to `to` on.
struct Centred {
    from: usize,
    to: usize,
    count: usize,
}

impl Centred {
    fn new(source: usize, wanted: usize) -> Self {
        match source.checked_sub(wanted) {
            Some(spare) => Self { from: spare / 2, to: 0, count: wanted },
            None => Self { from: 0, to: (wanted - source).div_ceil(2), count: source },
        }
    }
}

fn wrong(name: &str) -> Error {
    Error::new(ErrorKind::InvalidFile, format!("preprocessor_config.json states a wrong `{name}`"))
}

fn side(value: &Value, name: &str) -> Result<Option<usize>> {
    match value {
        Value::Null => Ok(None),
        value => {
            let side = value.as_u64().filter(|&side| (1..=1 << 15).contains(&side));
            side.map(|side| Some(side as usize))
                .ok_or_else(|| wrong(name).expected("pixels from 1 to 32768").found(value.to_string()))
        }
    }
}

/// `{"shortest_edge"}`, `{"height", "width"}` or one number, which means the shortest edge.
fn resize_rule(size: &Value) -> Result<Option<ResizeRule>> {
    let shortest = side(if size.is_object() { &size["shortest_edge"] } else { size }, "size")?;
    Ok(match (shortest, side(&size["height"], "size")?, side(&size["width"], "size")?) {
        (Some(edge), ..) => Some(ResizeRule::ShortestEdge(edge)),
        (None, Some(height), Some(width)) => Some(ResizeRule::Exact(height, width)),
        _ if size.is_null() => None,
        _ => return Err(wrong("size").expected("`shortest_edge`, or `height` and `width`").found(size.to_string())),
    })
}

fn crop_size(size: &Value) -> Result<Option<[usize; 2]>> {
    if let Some(side) = side(if size.is_object() { &Value::Null } else { size }, "crop_size")? {
        return Ok(Some([side, side]));
    }
    Ok(match (side(&size["height"], "crop_size")?, side(&size["width"], "crop_size")?) {
        (Some(height), Some(width)) => Some([height, width]),
        _ => None,
    })
}

fn three(values: &Value, name: &str) -> Result<Option<[f32; 3]>> {
    let Value::Array(list) = values else { return Ok(None) };
    let numbers: Option<Vec<f32>> = list.iter().map(|value| value.as_f64().map(|number| number as f32)).collect();
    match numbers.as_deref() {
        Some(&[red, green, blue]) => Ok(Some([red, green, blue])),
        _ => Err(wrong(name).expected("three numbers").found(values.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_follow_the_processors() {
        let clip = Preprocessing::of(VisionKind::Clip, 224);
        assert_eq!(clip.resized(480, 640), [224, 298]);
        assert_eq!(clip.resized(641, 480), [299, 224]);
        assert_eq!(clip.resized(10, 30_000), [224, 672_000]);
        assert_eq!(clip.size_of(10, 30_000), [224, 224]);
        assert_eq!(Preprocessing::of(VisionKind::Siglip, 384).size_of(3, 5), [384, 384]);
    }

    #[test]
    fn configurations_are_read_in_all_their_forms() {
        let stated = |config| Preprocessing::stated(&config, VisionKind::Clip, 224);
        let old = stated(json!({"size": 336, "crop_size": 300, "resample": 2})).unwrap();
        let expected = (ResizeRule::ShortestEdge(336), Some([300, 300]), Filter::Bilinear);
        assert_eq!((old.resize, old.crop, old.filter), expected);
        let plain = json!({"size": {"height": 8, "width": 9}, "do_center_crop": false, "do_normalize": false});
        let plain = stated(plain).unwrap();
        assert_eq!((plain.resize, plain.crop, plain.std), (ResizeRule::Exact(8, 9), None, [1.0; 3]));
        assert_eq!(stated(json!({})).unwrap(), Preprocessing::of(VisionKind::Clip, 224));
        for config in [json!({"size": {"longest_edge": 3}}), json!({"size": 0}), json!({"image_std": [0, 1, 1]})] {
            assert_eq!(stated(config).unwrap_err().kind(), ErrorKind::InvalidFile);
        }
        assert_eq!(stated(json!({"resample": 0})).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
