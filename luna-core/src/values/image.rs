//! Pictures as numbers: f32 in 0..1, channels last.

use crate::{Error, ErrorKind, Limits, Result, limits::check_at_most};

/// A batch of pictures of one size: f32, `[batch, height, width, channels]` in row-major order,
/// nominally 0..1, sRGB-encoded as the file had it; 1 (grey), 3 (RGB) or 4 (RGB and alpha) channels.
///
/// ```
/// use luna_core::Image;
/// let grey = Image::new([1, 2, 3, 1], vec![0.5; 6])?;
/// assert_eq!((grey.height(), grey.width()), (2, 3));
/// assert_eq!(grey.to_rgb().data()[..3], [0.5, 0.5, 0.5]);
/// # Ok::<(), luna_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    shape: [usize; 4],
    data: Vec<f32>,
}

/// Pictures as [`Image`] has them, borrowed from their owner.
///
/// ```
/// use luna_core::ImageView;
/// let pixels = [0.5; 6];
/// let grey = ImageView::new([1, 2, 3, 1], &pixels)?;
/// assert!(std::ptr::eq(grey.data(), &pixels[..]));
/// # Ok::<(), luna_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageView<'a> {
    shape: [usize; 4],
    data: &'a [f32],
}

impl<'a> ImageView<'a> {
    /// Looks at pixels of the shape `[batch, height, width, channels]`.
    ///
    /// # Errors
    /// As [`Image::new`].
    pub fn new(shape: [usize; 4], data: &'a [f32]) -> Result<Self> {
        check(shape, data.len())?;
        Ok(Self { shape, data })
    }

    /// `[batch, height, width, channels]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The values, row-major.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// The values of picture `index`, `[height, width, channels]`.
    ///
    /// # Panics
    /// If `index` is not below the batch.
    pub fn picture(&self, index: usize) -> &'a [f32] {
        let size = self.data.len() / self.shape[0];
        &self.data[index * size..][..size]
    }
}

impl<'a> From<&'a Image> for ImageView<'a> {
    fn from(image: &'a Image) -> Self {
        Self { shape: image.shape, data: &image.data }
    }
}

/// Refuses shapes that no picture has, and another number of values than the shape tells.
fn check(shape: [usize; 4], values: usize) -> Result<()> {
    let [batch, height, width, channels] = shape;
    let wrong = |message: &str| Error::new(ErrorKind::InvalidInput, message.to_owned());
    if shape.contains(&0) || !matches!(channels, 1 | 3 | 4) {
        return Err(wrong("the image has a wrong shape")
            .expected("[batch, height, width, 1 or 3 or 4], no side 0")
            .found(format!("{shape:?}")));
    }
    let limits = Limits::default();
    check_at_most("pixels along a side of an image", height.max(width) as u64, limits.image_side as u64)?;
    check_at_most("images in a batch", batch as u64, limits.batch as u64)?;
    let count = batch * height * width * channels;
    if count == values {
        return Ok(());
    }
    Err(wrong("the image has a wrong number of values")
        .expected(format!("{count} for {shape:?}"))
        .found(values.to_string()))
}

impl Image {
    /// Takes pixels of the shape `[batch, height, width, channels]`.
    ///
    /// # Errors
    /// `InvalidInput` if a side is 0, the channels are not 1, 3 or 4, or the number of values differs;
    /// `LimitExceeded` above the default [`Limits`].
    pub fn new(shape: [usize; 4], data: Vec<f32>) -> Result<Self> {
        check(shape, data.len())?;
        Ok(Self { shape, data })
    }

    /// `[batch, height, width, channels]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Number of pictures.
    pub fn batch(&self) -> usize {
        self.shape[0]
    }

    /// Pixels from top to bottom.
    pub fn height(&self) -> usize {
        self.shape[1]
    }

    /// Pixels from left to right.
    pub fn width(&self) -> usize {
        self.shape[2]
    }

    /// 1 (grey), 3 (RGB) or 4 (RGB and alpha).
    pub fn channels(&self) -> usize {
        self.shape[3]
    }

    /// The values, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values, row-major, without a copy.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// The values of picture `index`, `[height, width, channels]`.
    ///
    /// # Panics
    /// If `index` is not below the batch.
    pub fn picture(&self, index: usize) -> &[f32] {
        let size = self.data.len() / self.batch();
        &self.data[index * size..][..size]
    }

    /// The same pictures with 3 channels: grey is repeated, alpha is dropped (as ComfyUI's nodes drop it).
    pub fn to_rgb(&self) -> Self {
        let data = match self.channels() {
            1 => self.data.iter().flat_map(|&v| [v; 3]).collect(),
            3 => self.data.clone(),
            _ => self.data.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        };
        Self { shape: [self.shape[0], self.shape[1], self.shape[2], 3], data }
    }

    /// The part of every picture that starts at (`top`, `left`) with the given size.
    ///
    /// # Errors
    /// `InvalidInput` if the part is empty or does not lie inside.
    pub fn crop(&self, top: usize, left: usize, height: usize, width: usize) -> Result<Self> {
        let [batch, full_height, full_width, channels] = self.shape;
        let inside =
            |start: usize, size: usize, full: usize| size > 0 && start.checked_add(size).is_some_and(|end| end <= full);
        if !inside(top, height, full_height) || !inside(left, width, full_width) {
            return Err(Error::new(ErrorKind::InvalidInput, "the crop does not lie inside the image")
                .expected(format!("a part of {full_height}x{full_width}"))
                .found(format!("{height}x{width} at ({top}, {left})")));
        }
        let mut data = Vec::with_capacity(batch * height * width * channels);
        for picture in 0..batch {
            let pixels = self.picture(picture);
            for row in top..top + height {
                data.extend_from_slice(&pixels[(row * full_width + left) * channels..][..width * channels]);
            }
        }
        Ok(Self { shape: [batch, height, width, channels], data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_shapes_are_refused() {
        for (shape, count) in [([1, 2, 2, 2], 8), ([0, 2, 2, 3], 0), ([1, 2, 2, 3], 11)] {
            assert_eq!(Image::new(shape, vec![0.0; count]).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(Image::new([1, 1, 40_000, 1], vec![]).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn crops_take_the_named_part_of_every_picture() {
        let image = Image::new([2, 2, 3, 1], (0..12).map(|v| v as f32).collect()).unwrap();
        let part = image.crop(1, 1, 1, 2).unwrap();
        assert_eq!(part.data(), [4.0, 5.0, 10.0, 11.0]);
        assert!(image.crop(1, 2, 1, 2).is_err() && image.crop(0, 0, 0, 1).is_err());
    }
}
