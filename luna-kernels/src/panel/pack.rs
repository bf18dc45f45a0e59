//! Writes one panel from weights as a file stores them.
//!
//! Enters: up to 32 columns as they are stored, one after the other. Leaves: their elements side by side. Reads go over 32 places of the
//! file at once, so blocks of depth keep what is read and what is written in the first-level cache.

use super::{NR, position};
use crate::isa::Kernel;
use crate::simd::Simd;
use crate::weight::WeightType;

/// Depths at a time: a cache line of words from each column.
const DEPTHS: usize = 16;

/// Writes columns of `depth` elements of `SIZE` bytes across the lines of a panel, and zeros where there are fewer than 32.
pub(super) fn across<const SIZE: usize>(columns: &[u8], depth: usize, panel: &mut [u8]) {
    if columns.len() < NR * depth * SIZE {
        panel.fill(0);
    }
    let (lines, _) = panel.as_chunks_mut::<SIZE>();
    for (block, lines) in lines.chunks_mut(DEPTHS * NR).enumerate() {
        for (j, column) in columns.chunks_exact(depth * SIZE).enumerate() {
            let (column, _) = column.as_chunks::<SIZE>();
            match (<&mut [_; DEPTHS * NR]>::try_from(&mut *lines), column[block * DEPTHS..].first_chunk::<DEPTHS>()) {
                (Ok(lines), Some(values)) if j < NR => (0..DEPTHS).for_each(|i| lines[i * NR + j] = values[i]),
                _ => {
                    lines.chunks_exact_mut(NR).zip(&column[block * DEPTHS..]).for_each(|(line, value)| line[j] = *value)
                }
            }
        }
    }
}

/// The same for words of four bytes, in registers.
pub(super) struct AcrossWords<'a> {
    pub(super) columns: &'a [u8],
    pub(super) depth: usize,
    pub(super) panel: &'a mut [u8],
}

impl Kernel for AcrossWords<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        /// Bytes of each column that are asked for ahead of time: a processor follows fewer columns by itself.
        const AHEAD: usize = 256;
        let Self { columns, depth, panel } = self;
        let (size, whole) = (depth * 4, depth / DEPTHS * DEPTHS);
        if columns.len() < NR * size {
            return across::<4>(columns, depth, panel);
        }
        assert!(panel.len() == NR * size && DEPTHS.is_multiple_of(S::LANES));
        for k0 in (0..whole).step_by(DEPTHS) {
            for j0 in (0..NR).step_by(S::LANES) {
                for j in j0..j0 + S::LANES {
                    s.prefetch(columns.as_ptr().wrapping_add(j * size + k0 * 4 + AHEAD));
                }
                for k in (k0..k0 + DEPTHS).step_by(S::LANES) {
                    // SAFETY: `LANES` depths from `k` on of as many columns from `j0` on lie within both, by the assertion.
                    unsafe {
                        let from = columns.as_ptr().add(j0 * size + k * 4);
                        s.transpose(from, size, panel.as_mut_ptr().add((k * NR + j0) * 4), NR * 4);
                    }
                }
            }
        }
        for (j, column) in columns.chunks_exact(size.max(1)).enumerate().take(NR) {
            for (k, word) in column.as_chunks::<4>().0.iter().enumerate().skip(whole) {
                panel[(k * NR + j) * 4..][..4].copy_from_slice(word);
            }
        }
    }
}

/// Writes columns of `[channels][taps]` elements of `SIZE` bytes into a panel of zeros whose depth runs over taps, then channels.
pub(super) fn by_tap<const SIZE: usize>(
    dtype: WeightType,
    columns: &[u8],
    (channels, taps): (usize, usize),
    panel: &mut [u8],
) {
    let (panel, _) = panel.as_chunks_mut::<SIZE>();
    for first in (0..channels).step_by(DEPTHS) {
        for (j, column) in columns.chunks_exact(channels * taps * SIZE).enumerate() {
            let (column, _) = column.as_chunks::<SIZE>();
            for tap in 0..taps {
                for channel in first..channels.min(first + DEPTHS) {
                    panel[position(dtype, tap * channels + channel, j)] = column[channel * taps + tap];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn words_lie_as_single_elements_do() {
        for isa in Isa::available() {
            for (columns, depth) in [(32, 1), (32, 15), (32, 16), (32, 77), (32, 160), (5, 48), (31, 16)] {
                let stored: Vec<u8> = (0..columns * depth * 4).map(|i| (i * 31 % 251) as u8).collect();
                let (mut expected, mut got) = (vec![1; depth * NR * 4], vec![2; depth * NR * 4]);
                across::<4>(&stored, depth, &mut expected);
                isa.run(AcrossWords { columns: &stored, depth, panel: &mut got });
                assert_eq!(got, expected, "{columns} columns of {depth}, {}", isa.name());
                if columns == NR {
                    let (word, place) = (stored.as_chunks::<4>().0, got.as_chunks::<4>().0);
                    assert_eq!(place[(depth - 1) * NR + 3], word[3 * depth + depth - 1]);
                }
            }
        }
    }
}
