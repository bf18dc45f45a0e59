//! Weights in quantised blocks, as GGUF files store them: whole numbers of a few bits with factors for each block.
//!
//! Enters: the bytes of blocks. Leaves: f32 values, 32 at a time. It must not know panels or models. Layouts and formulas are ggml's
//! (`ggml-quants.c`); each value is the same to the last bit.

use crate::weight::WeightType;
use half::f16;

/// Values that are widened at a time; divides every block.
pub(crate) const RUN: usize = 32;

/// Widens all values of `blocks`, whole blocks of `dtype`.
pub(crate) fn widen_blocks(dtype: WeightType, blocks: &[u8], out: &mut [f32]) {
    let runs = dtype.block() / RUN;
    for (block, values) in blocks.chunks_exact(dtype.block_bytes()).zip(out.chunks_exact_mut(dtype.block())) {
        for (run, values) in values.as_chunks_mut::<RUN>().0.iter_mut().enumerate().take(runs) {
            widen_run(dtype, block, run, values);
        }
    }
}

/// Widens run number `run` of one block.
#[inline(always)]
pub(crate) fn widen_run(dtype: WeightType, block: &[u8], run: usize, out: &mut [f32; RUN]) {
    match dtype {
        WeightType::Q8_0 => q8_0(block, out),
        WeightType::Q4K => q4_k(block, run, out),
        WeightType::Q5K => q5_k(block, run, out),
        WeightType::Q6K => q6_k(block, run, out),
        _ => unreachable!("{dtype:?} is not stored in blocks"),
    }
}

#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// `d` f16, 32 numbers of 8 bits: `d · q`.
#[inline(always)]
fn q8_0(block: &[u8], out: &mut [f32; RUN]) {
    let d = half(block, 0);
    for (value, &q) in out.iter_mut().zip(&block[2..][..RUN]) {
        *value = d * f32::from(q as i8);
    }
}

/// The factor and the offset of run `run`: 8 of each, 6 bits wide, in 12 bytes.
#[inline(always)]
fn factors(block: &[u8], run: usize) -> (f32, f32) {
    let (d, least, s) = (half(block, 0), half(block, 2), &block[4..16]);
    let (factor, offset) = if run < 4 {
        (s[run] & 63, s[run + 4] & 63)
    } else {
        (s[run + 4] & 15 | s[run - 4] >> 6 << 4, s[run + 4] >> 4 | s[run] >> 6 << 4)
    };
    (d * f32::from(factor), least * f32::from(offset))
}

/// `d`, `dmin` f16, 12 bytes of factors, 256 numbers of 4 bits: `factor · q − offset`.
#[inline(always)]
fn q4_k(block: &[u8], run: usize, out: &mut [f32; RUN]) {
    let (factor, offset) = factors(block, run);
    let shift = run % 2 * 4;
    for (value, &q) in out.iter_mut().zip(&block[16 + run / 2 * RUN..][..RUN]) {
        *value = factor * f32::from(q >> shift & 15) - offset;
    }
}

/// As [`q4_k`] with a fifth bit of each number, 32 bytes of them before the rest.
#[inline(always)]
fn q5_k(block: &[u8], run: usize, out: &mut [f32; RUN]) {
    let (factor, offset) = factors(block, run);
    let shift = run % 2 * 4;
    let (high, low) = (&block[16..][..RUN], &block[48 + run / 2 * RUN..][..RUN]);
    for (value, (&high, &low)) in out.iter_mut().zip(high.iter().zip(low)) {
        *value = factor * f32::from(low >> shift & 15 | (high >> run & 1) << 4) - offset;
    }
}

/// 256 numbers of 6 bits (128 bytes of lower parts, 64 of upper ones), 16 factors of 8 bits, `d` f16: `d · factor · (q − 32)`.
#[inline(always)]
fn q6_k(block: &[u8], run: usize, out: &mut [f32; RUN]) {
    let d = half(block, 208);
    let (side, quarter) = (run / 4, run % 4);
    let low = &block[side * 64 + quarter % 2 * RUN..][..RUN];
    let high = &block[128 + side * 32..][..RUN];
    let factors = &block[192 + run * 2..][..2];
    let (low_shift, high_shift) = (quarter / 2 * 4, quarter * 2);
    for ((values, &factor), (low, high)) in
        out.chunks_exact_mut(16).zip(factors).zip(low.chunks_exact(16).zip(high.chunks_exact(16)))
    {
        let factor = d * f32::from(factor as i8);
        for (value, (&low, &high)) in values.iter_mut().zip(low.iter().zip(high)) {
            let q = low >> low_shift & 15 | (high >> high_shift & 3) << 4;
            *value = factor * (f32::from(q) - 32.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, Epilogue, PackedMatrix, WeightView, Workspace, convert_weights, linear, reference::Rng};
    use proptest::prelude::*;

    const TYPES: [WeightType; 4] = [WeightType::Q8_0, WeightType::Q4K, WeightType::Q5K, WeightType::Q6K];

    /// Blocks of any numbers, with factors of usual size.
    fn blocks(rng: &mut Rng, dtype: WeightType, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count * dtype.block_bytes()).map(|_| rng.below(256) as u8).collect();
        for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
            let places: &[usize] = match dtype {
                WeightType::Q8_0 => &[0],
                WeightType::Q6K => &[208],
                _ => &[0, 2],
            };
            for &at in places {
                block[at..at + 2].copy_from_slice(&f16::from_f32(rng.normal() * 1e-3).to_le_bytes());
            }
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Products with quantised weights are those with the widened weights, whatever way they take.
        #[test]
        fn products_are_those_of_the_widened_weights(seed in any::<u64>(), m in 1usize..40, n in 1usize..70, deep in 1usize..8) {
            let mut rng = Rng::new(seed);
            let dtype = rng.pick(&TYPES);
            let k = deep * dtype.block();
            let bytes = blocks(&mut rng, dtype, n * deep);
            let view = WeightView { dtype, bytes: &bytes };
            prop_assert_eq!(view.len(), n * k);
            let (workspace, x) = (Workspace::new(), rng.scalars::<f32>(m * k));
            let cx = Context::new(&workspace);
            let mut wide = vec![0.0f32; n * k];
            convert_weights(view, &mut wide, &cx);
            let (narrow, widened) = (PackedMatrix::pack(view, n, k), PackedMatrix::from_f32(&wide, n, k));
            prop_assert!(narrow.bytes() <= n.next_multiple_of(32) * deep * dtype.block_bytes() + 64);
            let mut back = vec![0.0; n * k];
            narrow.unpack_f32(&mut back);
            prop_assert_eq!(&back, &wide);
            let run = |matrix: &PackedMatrix| {
                let mut out = vec![0.0; m * n];
                linear(&x, m, matrix, &mut out, &Epilogue::default(), &cx);
                out
            };
            // A single row takes another way with each: the order of the sums differs.
            let (ours, theirs) = (run(&narrow), run(&widened));
            let scale = theirs.iter().fold(1e-3f32, |most, value| most.max(value.abs()));
            prop_assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= 1e-5 * scale), "{ours:?} {theirs:?}");
        }
    }

    /// One block by hand.
    #[test]
    fn a_block_is_factor_times_number_minus_offset() {
        let mut block = vec![0u8; WeightType::Q4K.block_bytes()];
        block[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        block[2..4].copy_from_slice(&f16::from_f32(0.25).to_le_bytes());
        // Run 1: factor 3, offset 5. Run 5: factor 2 + 16·1, offset 1 + 16·2.
        (block[5], block[9]) = (3 | 1 << 6, 5 | 2 << 6);
        block[13] = 2 | 1 << 4;
        (block[16], block[16 + 64]) = (0x70, 0x90);
        let mut out = [0.0; 256];
        widen_blocks(WeightType::Q4K, &block, &mut out);
        assert_eq!((out[32], out[33]), (0.5 * 3.0 * 7.0 - 0.25 * 5.0, -0.25 * 5.0));
        assert_eq!(out[160], 0.5 * 18.0 * 9.0 - 0.25 * 33.0);

        let mut block = vec![0u8; WeightType::Q6K.block_bytes()];
        block[208..].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        // Value 128 + 64 + 17: run 6, number 17.
        (block[64 + 17], block[128 + 32 + 17], block[192 + 13]) = (0x50, 3 << 4, (-3i8) as u8);
        widen_blocks(WeightType::Q6K, &block, &mut out);
        assert_eq!(out[128 + 64 + 17], 0.5 * -3.0 * (5.0 + 48.0 - 32.0));
    }
}
