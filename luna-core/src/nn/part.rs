//! Which bytes of a file a layer's tensor is. Enters: a stored tensor and which part of it is meant. Leaves: the tensor as
//! the layer wants it, borrowed where its bytes lie in one piece.

use super::StoredTensor;
use crate::checkpoint::{ElementType, TensorView, dialect::Part};
use std::borrow::Cow;

/// The shape of a part of a tensor that is stored in this shape.
pub(super) fn shape(part: Part, stored: &[usize]) -> Vec<usize> {
    let mut shape = stored.to_vec();
    match part {
        Part::Whole | Part::Pairs { .. } => {}
        Part::Rows { of, .. } => shape.iter_mut().take(1).for_each(|rows| *rows /= of),
        Part::RowsFrom(first) => shape.iter_mut().take(1).for_each(|rows| *rows = rows.saturating_sub(first)),
        Part::Transposed => shape.reverse(),
        Part::Frames(count) => shape.insert(shape.len().min(2), count),
    }
    shape
}

/// The shape that a tensor must be stored in for its part to have the shape `wanted`.
pub(super) fn whole(part: Part, wanted: &[usize], stored: &[usize]) -> Vec<usize> {
    let mut whole = wanted.to_vec();
    match part {
        Part::Whole | Part::Pairs { .. } => {}
        Part::Rows { of, .. } => whole.iter_mut().take(1).for_each(|rows| *rows *= of),
        // More rows may follow.
        Part::RowsFrom(first) => {
            let stored = stored.first().copied().unwrap_or_default();
            whole.iter_mut().take(1).for_each(|rows| *rows = stored.max(*rows + first));
        }
        Part::Transposed => whole.reverse(),
        Part::Frames(_) => drop((whole.len() > 2).then(|| whole.remove(2))),
    }
    whole
}

/// The part of `first` that has the shape `wanted`, with what follows it where a part is of several tensors.
pub(super) fn cut<'a>(
    part: Part,
    first: TensorView<'a>,
    more: &[TensorView<'a>],
    wanted: &[usize],
) -> StoredTensor<'a> {
    let row = first.bytes.len() / first.shape.first().copied().unwrap_or(1).max(1);
    let bytes = match part {
        Part::Whole => Cow::Borrowed(first.bytes),
        Part::Rows { index, of } => {
            let length = first.bytes.len() / of;
            Cow::Borrowed(&first.bytes[index * length..][..length])
        }
        Part::RowsFrom(from) => Cow::Borrowed(&first.bytes[from * row..][..wanted[0] * row]),
        Part::Pairs { head } => Cow::Owned(unpaired(first.bytes, row, head)),
        Part::Transposed if first.element.block() > 1 => {
            return wide(transposed(&to_f32(first), first.shape[0], size_of::<f32>()));
        }
        Part::Transposed => Cow::Owned(transposed(first.bytes, first.shape[0], first.element.bytes())),
        Part::Frames(_) => {
            let run = first.shape[2..].iter().product::<usize>() * size_of::<f32>();
            let frames: Vec<Vec<u8>> = [first].iter().chain(more).map(|&frame| to_f32(frame)).collect();
            let runs = 0..frames[0].len() / run.max(1);
            return wide(runs.flat_map(|at| frames.iter().flat_map(move |f| &f[at * run..][..run])).copied().collect());
        }
    };
    StoredTensor { element: first.element, bytes }
}

fn wide<'a>(bytes: Vec<u8>) -> StoredTensor<'a> {
    StoredTensor { element: ElementType::F32, bytes: Cow::Owned(bytes) }
}

fn to_f32(view: TensorView) -> Vec<u8> {
    StoredTensor::of(view).to_f32().iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Rows of each head that come by turns from its first and second half, in the order of the halves.
fn unpaired(bytes: &[u8], row: usize, head: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for head in bytes.chunks((row * head).max(1)) {
        for half in 0..2 {
            head.chunks(row.max(1)).skip(half).step_by(2).for_each(|row| out.extend_from_slice(row));
        }
    }
    out
}

/// A matrix of `rows` rows with its rows and columns exchanged.
fn transposed(bytes: &[u8], rows: usize, element: usize) -> Vec<u8> {
    let columns = bytes.len() / (rows * element).max(1);
    let mut out = Vec::with_capacity(bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            out.extend_from_slice(&bytes[(row * columns + column) * element..][..element]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_taken_apart_head_by_head() {
        // Two heads of four rows of one byte; of each the first half is 0, 1 and the second 2, 3.
        assert_eq!(unpaired(&[0, 2, 1, 3, 10, 12, 11, 13], 1, 4), [0, 1, 2, 3, 10, 11, 12, 13]);
        assert_eq!(unpaired(&[0, 0, 1, 1], 2, 2), [0, 0, 1, 1]);
    }

    #[test]
    fn frames_go_behind_channels() {
        let bytes = |values: [f32; 4]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (a, b) = (bytes([0.0, 1.0, 2.0, 3.0]), bytes([10.0, 11.0, 12.0, 13.0]));
        let view = |bytes| TensorView { name: "a", element: ElementType::F32, shape: &[1, 2, 1, 2], bytes };
        let joined = cut(Part::Frames(2), view(&a), &[view(&b)], &[1, 2, 2, 1, 2]);
        assert_eq!(joined.to_f32(), [0.0, 1.0, 10.0, 11.0, 2.0, 3.0, 12.0, 13.0]);
        assert_eq!(shape(Part::Frames(2), &[1, 2, 1, 2]), [1, 2, 2, 1, 2]);
        assert_eq!(whole(Part::Frames(2), &[1, 2, 2, 1, 2], &[]), [1, 2, 1, 2]);
    }
}
