//! Pictures on their way into an encoder.

use crate::{Error, ErrorKind, Image, Limits, Result, limits::check_at_most};
use std::borrow::Cow;

/// A part of a picture, in pixels from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Region {
    /// The first row.
    pub top: usize,
    /// The first column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// What an encoder is to look at: all pictures of an [`Image`], or a part of each.
#[derive(Debug, Clone, Copy)]
pub struct PictureView<'a> {
    image: &'a Image,
    region: Option<Region>,
}

impl<'a> PictureView<'a> {
    /// Whole pictures.
    pub fn whole(image: &'a Image) -> Self {
        Self { image, region: None }
    }

    /// The same part of each picture.
    pub fn part(image: &'a Image, region: Region) -> Self {
        Self { image, region: Some(region) }
    }

    /// The pictures that are looked at.
    ///
    /// # Errors
    /// `InvalidInput` for a part outside the picture.
    pub fn image(&self) -> Result<Cow<'a, Image>> {
        Ok(match self.region {
            None => Cow::Borrowed(self.image),
            Some(Region { top, left, height, width }) => Cow::Owned(self.image.crop(top, left, height, width)?),
        })
    }
}

impl<'a> From<&'a Image> for PictureView<'a> {
    fn from(image: &'a Image) -> Self {
        Self::whole(image)
    }
}

/// Pictures as an encoder takes them: f32, `[batch, 3, height, width]`, resized, cropped, mean and deviation removed;
/// what transformers' processors call `pixel_values`.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelValues {
    shape: [usize; 4],
    data: Vec<f32>,
}

impl PixelValues {
    /// Takes values of this shape.
    ///
    /// # Errors
    /// `InvalidInput` for other than 3 channels, an empty side or a wrong number of values; `LimitExceeded` above the
    /// default [`Limits`].
    pub fn new(shape: [usize; 4], data: Vec<f32>) -> Result<Self> {
        let wrong = |message: &str| Error::new(ErrorKind::InvalidInput, message);
        let [batch, channels, height, width] = shape;
        if channels != 3 || shape.contains(&0) {
            return Err(wrong("the pixel values have a wrong shape")
                .expected("[batch, 3, height, width], no side 0")
                .found(format!("{shape:?}")));
        }
        let limits = Limits::default();
        check_at_most("pixels along a side of an image", height.max(width) as u64, limits.image_side as u64)?;
        check_at_most("images in a batch", batch as u64, limits.batch as u64)?;
        if shape.iter().product::<usize>() != data.len() {
            return Err(wrong("the pixel values are of a wrong number")
                .expected(format!("{} for {shape:?}", shape.iter().product::<usize>()))
                .found(data.len().to_string()));
        }
        Ok(Self { shape, data })
    }

    /// `[batch, 3, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The values, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Picture `index` cut into squares of `side`, row by row: `[patches, 3·side·side]`, each channel by channel.
    pub(crate) fn patches(&self, index: usize, side: usize, out: &mut Vec<f32>) {
        let [_, channels, height, width] = self.shape;
        let picture = &self.data[index * channels * height * width..][..channels * height * width];
        for (row, column) in (0..height / side).flat_map(|row| (0..width / side).map(move |column| (row, column))) {
            for (channel, y) in (0..channels).flat_map(|channel| (0..side).map(move |y| (channel, y))) {
                let at = (channel * height + row * side + y) * width + column * side;
                out.extend_from_slice(&picture[at..at + side]);
            }
        }
    }
}
