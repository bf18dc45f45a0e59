//! Plain numbers with a shape, as callers hand them in.

use crate::{Error, ErrorKind, Result};

/// A borrowed row-major array of f32.
///
/// ```
/// use luna_core::ArrayView;
/// let values = [0.0; 6];
/// let context = ArrayView::new(&[1, 2, 3], &values)?;
/// assert_eq!(context.shape(), [1, 2, 3]);
/// assert!(ArrayView::new(&[7], &values).is_err());
/// # Ok::<(), luna_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ArrayView<'a> {
    shape: &'a [usize],
    data: &'a [f32],
}

impl<'a> ArrayView<'a> {
    /// Takes values of this shape.
    ///
    /// # Errors
    /// `InvalidInput` if the number of values differs from what the shape says.
    pub fn new(shape: &'a [usize], data: &'a [f32]) -> Result<Self> {
        match shape.iter().try_fold(1usize, |count, &side| count.checked_mul(side)) {
            Some(count) if count == data.len() => Ok(Self { shape, data }),
            count => Err(Error::new(ErrorKind::InvalidInput, "an array has a wrong number of values")
                .expected(match count {
                    Some(count) => format!("{count} for {shape:?}"),
                    None => format!("a shape whose number of values is a number, not {shape:?}"),
                })
                .found(data.len().to_string())),
        }
    }

    /// The shape, outermost side first.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The values.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }
}
