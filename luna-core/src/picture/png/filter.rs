//! PNG's row filters. Enters: rows of pixel bytes. Leaves: the same rows, each as a filter's name and the differences
//! from what the filter predicts, which compress better.

use std::ops::Range;

use super::Effort;

/// All rows of a picture, packed.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) row_bytes: usize,
    pub(super) pixel_bytes: usize,
}

/// A filter, with its number in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Filter {
    None = 0,
    Sub = 1,
    Up = 2,
    Average = 3,
    Paeth = 4,
}

use Filter::{Average, None as Plain, Paeth, Sub, Up};

impl Rows<'_> {
    pub(super) fn count(self) -> usize {
        self.bytes.len() / self.row_bytes
    }

    /// The rows of `range` after filtering, a byte longer each. For every row the filter is taken whose differences
    /// have the smallest sum, which on photographs is all but the best choice.
    pub(super) fn filtered(self, range: Range<usize>, effort: Effort) -> Vec<u8> {
        let filters: &[Filter] = match effort {
            Effort::Level(0) => &[Plain],
            Effort::Fast | Effort::Level(1) => &[Paeth, Average],
            Effort::Level(_) => &[Paeth, Average, Sub, Up],
        };
        let mut out = vec![0; range.len() * (self.row_bytes + 1)];
        let first_above = vec![0; self.row_bytes];
        let mut trial = vec![0; self.row_bytes];
        for (out, row) in out.chunks_exact_mut(self.row_bytes + 1).zip(range) {
            let current = &self.bytes[row * self.row_bytes..][..self.row_bytes];
            let above = match row {
                0 => &first_above[..],
                _ => &self.bytes[(row - 1) * self.row_bytes..][..self.row_bytes],
            };
            let (name, best) = out.split_first_mut().expect("a row has at least its filter's byte");
            let mut best_weight = u64::MAX;
            for &filter in filters {
                filter.apply(current, above, self.pixel_bytes, &mut trial);
                let weight = if filters.len() > 1 { weight(&trial) } else { 0 };
                if weight < best_weight {
                    best_weight = weight;
                    *name = filter as u8;
                    best.copy_from_slice(&trial);
                }
            }
        }
        out
    }
}

/// The sum of the differences' sizes, each taken as a signed byte.
fn weight(differences: &[u8]) -> u64 {
    let small = |part: &[u8]| part.iter().map(|&byte| u32::from((byte as i8).unsigned_abs())).sum::<u32>();
    differences.chunks(256).map(|part| u64::from(small(part))).sum()
}

impl Filter {
    /// Written as zips without an index, so that the compiler makes vector code of them.
    fn apply(self, current: &[u8], above: &[u8], pixel: usize, out: &mut [u8]) {
        let (head, tail) = out.split_at_mut(pixel);
        let (first, rest) = current.split_at(pixel);
        let triples = || rest.iter().zip(current).zip(&above[pixel..]);
        match self {
            Self::None => out.copy_from_slice(current),
            Self::Sub => {
                head.copy_from_slice(first);
                for (out, (x, left)) in tail.iter_mut().zip(rest.iter().zip(current)) {
                    *out = x.wrapping_sub(*left);
                }
            }
            Self::Up => {
                for (out, (x, up)) in out.iter_mut().zip(current.iter().zip(above)) {
                    *out = x.wrapping_sub(*up);
                }
            }
            Self::Average => {
                for (out, (x, up)) in head.iter_mut().zip(first.iter().zip(above)) {
                    *out = x.wrapping_sub(up / 2);
                }
                for (out, ((x, left), up)) in tail.iter_mut().zip(triples()) {
                    *out = x.wrapping_sub(((u16::from(*left) + u16::from(*up)) / 2) as u8);
                }
            }
            Self::Paeth => {
                for (out, (x, up)) in head.iter_mut().zip(first.iter().zip(above)) {
                    *out = x.wrapping_sub(*up);
                }
                for (out, (((x, left), up), corner)) in tail.iter_mut().zip(triples().zip(above)) {
                    *out = x.wrapping_sub(paeth(*left, *up, *corner));
                }
            }
        }
    }
}

/// The one of three neighbours that is nearest to `left + up - corner`.
fn paeth(left: u8, up: u8, corner: u8) -> u8 {
    let (left, up, corner) = (i16::from(left), i16::from(up), i16::from(corner));
    let to_left = (up - corner).abs();
    let to_up = (left - corner).abs();
    let to_corner = (left + up - 2 * corner).abs();
    let nearer = if to_up <= to_corner { up } else { corner };
    (if to_left <= to_up && to_left <= to_corner { left } else { nearer }) as u8
}
