//! One tensor of a LoRA file, kept in the elements the file stores. Enters: bytes with shape and element type. Leaves:
//! f32 values of some of its rows. It must not know what it is multiplied with.

use crate::{
    Error, ErrorKind, Result,
    checkpoint::{ElementType, TensorView},
    nn::StoredTensor,
};
use std::{ops::Range, sync::Arc};

/// A tensor of a LoRA file; clones share its bytes.
#[derive(Clone)]
pub(super) struct Factor {
    pub(super) shape: Vec<usize>,
    element: ElementType,
    bytes: Arc<[u8]>,
}

impl Factor {
    /// # Errors
    /// `Unsupported` for elements that are no floats; a single whole number, as some files have for alpha, becomes one.
    pub(super) fn new(view: TensorView) -> Result<Self> {
        let whole = match (view.element, view.bytes) {
            (ElementType::I64, &[a, b, c, d, e, f, g, h]) => Some(i64::from_le_bytes([a, b, c, d, e, f, g, h])),
            (ElementType::I32, &[a, b, c, d]) => Some(i32::from_le_bytes([a, b, c, d]).into()),
            _ => None,
        };
        if let Some(whole) = whole {
            let bytes = (whole as f32).to_le_bytes();
            return Ok(Self { shape: view.shape.to_vec(), element: ElementType::F32, bytes: bytes.as_slice().into() });
        }
        if !view.element.is_float() {
            return Err(Error::new(ErrorKind::Unsupported, format!("tensor `{}` is not of a float type", view.name))
                .expected("F32, F16, BF16, F8_E4M3, F8_E5M2 or F64")
                .found(view.element.name()));
        }
        Ok(Self { shape: view.shape.to_vec(), element: view.element, bytes: view.bytes.into() })
    }

    /// Rows, and elements of a row: the first side and the product of the others.
    pub(super) fn matrix(&self) -> (usize, usize) {
        let (rows, rest) = self.shape.split_first().map_or((1, &[][..]), |(rows, rest)| (*rows, rest));
        (rows, rest.iter().product())
    }

    pub(super) fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// All elements.
    pub(super) fn stored(&self) -> StoredTensor<'_> {
        StoredTensor::borrowed(self.element, &self.bytes)
    }

    /// The elements of some rows.
    pub(super) fn stored_rows(&self, rows: Range<usize>) -> StoredTensor<'_> {
        let row = self.matrix().1 * self.element.bytes();
        StoredTensor::borrowed(self.element, &self.bytes[rows.start * row..rows.end * row])
    }

    /// All values.
    pub(super) fn values(&self) -> Vec<f32> {
        self.stored().to_f32()
    }

    /// The values of some rows.
    pub(super) fn rows(&self, rows: Range<usize>) -> Vec<f32> {
        self.stored_rows(rows).to_f32()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}
