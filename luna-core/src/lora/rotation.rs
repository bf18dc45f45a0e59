//! Orthogonal adapters: OFT turns blocks of a weight's outputs, BOFT does so in several stages that mix ever farther
//! outputs. Enters: stored blocks and the frozen weight. Leaves: the difference. Source: LyCORIS.

use super::factor::Factor;
use crate::{Error, ErrorKind, Result};
use rayon::prelude::*;

/// Blocks that turn outputs: `R = (I + Q)(I − Q)⁻¹` with `Q = B − Bᵀ`.
#[derive(Clone)]
pub(super) struct Rotation {
    /// `[blocks, size, size]`, or `[stages, blocks, size, size]`.
    blocks: Factor,
    /// One factor for each output.
    rescale: Option<Factor>,
    /// The longest Q over the number of outputs; none if 0.
    limit: f32,
    pub(super) staged: bool,
    pub(super) outputs: usize,
    size: usize,
}

impl Rotation {
    /// # Errors
    /// `InvalidFile` for blocks that are not square, `Unsupported` for the constrained diagonal form of older files.
    pub(super) fn new(blocks: Factor, rescale: Option<Factor>, limit: f32) -> Result<Self> {
        let wrong = || {
            Error::new(ErrorKind::InvalidFile, "the blocks of an OFT adapter have a wrong shape")
                .expected("[blocks, size, size] or [stages, blocks, size, size]")
        };
        let (staged, count, size) = match *blocks.shape {
            [count, size, other] if size == other && count * size > 0 => (false, count, size),
            [stages, count, size, other]
                if size == other && stages * count * size > 0 && size % 2 == 0 && stages <= 24 =>
            {
                (true, count, size)
            }
            _ => return Err(wrong().found(format!("{:?}", blocks.shape))),
        };
        let outputs = count * size;
        // A stage mixes runs of 2·2^stage·(size/2) outputs.
        if staged && !outputs.is_multiple_of((size / 2) << blocks.shape[0]) {
            return Err(wrong().found(format!("{:?}, too many stages for {outputs} outputs", blocks.shape)));
        }
        if rescale.as_ref().is_some_and(|rescale| rescale.count() != outputs) {
            return Err(wrong().found(format!("a rescale that is not of {outputs} values")));
        }
        Ok(Self { blocks, rescale, limit, staged, outputs, size })
    }

    /// Adds `factor · (R·W − W)` for `base = W`, `[outputs, columns]`.
    pub(super) fn add_to(&self, sum: &mut [f32], base: &[f32], factor: f32) -> Result<()> {
        let columns = base.len() / self.outputs;
        let turns = self.turns()?;
        let per_stage = self.outputs * self.size;
        let mut turned = base.to_vec();
        for (stage, turns) in turns.chunks_exact(per_stage).enumerate() {
            // OFT's blocks act from the right in LyCORIS, BOFT's from the left.
            let place = |row: usize| if self.staged { shuffled(row, (self.size / 2) << stage) } else { row };
            let before = std::mem::replace(&mut turned, vec![0.0; base.len()]);
            let mut rows: Vec<Option<&mut [f32]>> = turned.chunks_exact_mut(columns).map(Some).collect();
            let mut targets: Vec<_> =
                (0..self.outputs).map(|row| rows[place(row)].take().expect("each once")).collect();
            targets.par_iter_mut().enumerate().for_each(|(row, target)| {
                let (block, inside) = (row / self.size, row % self.size);
                let turn = &turns[block * self.size * self.size..][..self.size * self.size];
                for other in 0..self.size {
                    let at = if self.staged { inside * self.size + other } else { other * self.size + inside };
                    let source = &before[place(block * self.size + other) * columns..][..columns];
                    target.iter_mut().zip(source).for_each(|(target, source)| *target += turn[at] * source);
                }
            });
        }
        let rescale = self.rescale.as_ref().map(Factor::values);
        let rows = sum.chunks_exact_mut(columns).zip(turned.chunks_exact(columns)).zip(base.chunks_exact(columns));
        for (row, ((sum, turned), base)) in rows.enumerate() {
            let times = rescale.as_ref().map_or(1.0, |rescale| rescale[row]);
            for ((sum, turned), base) in sum.iter_mut().zip(turned).zip(base) {
                *sum += factor * (times * turned - base);
            }
        }
        Ok(())
    }

    /// All R, block by block.
    fn turns(&self) -> Result<Vec<f32>> {
        let (values, square) = (self.blocks.values(), self.size * self.size);
        let n = self.size;
        let mut skew: Vec<f64> = Vec::with_capacity(values.len());
        for block in values.chunks_exact(square) {
            skew.extend((0..square).map(|at| f64::from(block[at]) - f64::from(block[at % n * n + at / n])));
        }
        let limit = f64::from(self.limit) * self.outputs as f64;
        let norm = skew.iter().map(|value| value * value).sum::<f64>().sqrt() + 1e-8;
        if limit > 0.0 && norm > limit {
            skew.iter_mut().for_each(|value| *value *= limit / norm);
        }
        let turned: Vec<Vec<f32>> = skew.par_chunks_exact(square).map(|skew| cayley(skew, n)).collect::<Result<_>>()?;
        Ok(turned.concat())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.blocks.bytes() + self.rescale.as_ref().map_or(0, Factor::bytes)
    }
}

/// The row that stands at `row` once runs of `2·half` rows are shuffled like a pack of cards: `(c g k) → (c k g)`.
fn shuffled(row: usize, half: usize) -> usize {
    let (run, inside) = (row / (2 * half), row % (2 * half));
    run * 2 * half + inside % 2 * half + inside / 2
}

/// `(I + Q)(I − Q)⁻¹` of a skew matrix: the two commute, so it is what solves `(I − Q)·R = I + Q`.
fn cayley(skew: &[f64], n: usize) -> Result<Vec<f32>> {
    let width = 2 * n;
    let mut rows: Vec<f64> = vec![0.0; n * width];
    for row in 0..n {
        for column in 0..n {
            let (value, one) = (skew[row * n + column], f64::from(u8::from(row == column)));
            rows[row * width + column] = one - value;
            rows[row * width + n + column] = one + value;
        }
    }
    for pivot in 0..n {
        let size = |row: &usize| rows[row * width + pivot].abs();
        let best = (pivot..n).max_by(|a, b| size(a).total_cmp(&size(b))).unwrap_or(pivot);
        if size(&best) == 0.0 || !size(&best).is_finite() {
            return Err(Error::new(ErrorKind::InvalidFile, "the blocks of an OFT adapter cannot be inverted")
                .expected("finite values"));
        }
        for column in 0..width {
            rows.swap(pivot * width + column, best * width + column);
        }
        let first = rows[pivot * width + pivot];
        rows[pivot * width..][..width].iter_mut().for_each(|value| *value /= first);
        let line = rows[pivot * width..][..width].to_vec();
        for row in (0..n).filter(|row| *row != pivot) {
            let times = rows[row * width + pivot];
            rows[row * width..][..width].iter_mut().zip(&line).for_each(|(value, pivot)| *value -= times * pivot);
        }
    }
    Ok(rows.chunks_exact(width).flat_map(|row| row[n..].iter().map(|value| *value as f32)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cayley_turns_without_stretching() {
        let skew = [0.0, 0.5, -0.25, -0.5, 0.0, 1.5, 0.25, -1.5, 0.0];
        let turn = cayley(&skew, 3).unwrap();
        for (a, b) in (0..9).map(|at| (at / 3, at % 3)) {
            let product: f32 = (0..3).map(|i| turn[a * 3 + i] * turn[b * 3 + i]).sum();
            assert!((product - f32::from(u8::from(a == b))).abs() < 1e-6);
        }
        assert!(cayley(&[f64::NAN; 4], 2).is_err());
    }

    #[test]
    fn shuffles_are_like_a_pack_of_cards() {
        let order: Vec<_> = (0..8).map(|row| shuffled(row, 2)).collect();
        assert_eq!(order, [0, 2, 1, 3, 4, 6, 5, 7]);
    }
}
