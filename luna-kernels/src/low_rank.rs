//! A frozen weight with a low-rank difference: `scale · W + up · down`.
//!
//! Enters: packed weights and two factors. Leaves: packed weights of f32. A panel has the very form of a product's sums,
//! so the difference is added while the frozen weights are widened: nothing is unpacked, and no difference exists by
//! itself.

use crate::conv::PackedConv;
use crate::gemm::Pack;
use crate::gemm::micro::{Groups, Multiply};
use crate::gemm::rows::{LINE, Transposed};
use crate::isa::Context;
use crate::matmul::PackAcross;
use crate::matrix::PackedMatrix;
use crate::panel::{Home, NR, PackedPanels, Panels};
use rayon::prelude::*;

/// Depths of a panel at a time: a multiple of every quantised block, whose sums stay in the second-level cache.
const STEP: usize = 512;

impl PackedMatrix {
    /// `scale · W + up · down` in f32, of `up` `[n, rank]` and `down` `[rank, k]`, both row-major.
    ///
    /// ```
    /// use luna_kernels::{Context, Home, PackedMatrix, Workspace};
    ///
    /// let w = PackedMatrix::from_f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3);
    /// let workspace = Workspace::new();
    /// let sum = w.plus_low_rank(2.0, &[1.0, 0.5], &[10.0, 0.0, -10.0], Home::Own, &Context::new(&workspace));
    /// let mut values = [0.0; 6];
    /// sum.unpack_f32(&mut values);
    /// assert_eq!(values, [12.0, 4.0, -4.0, 13.0, 10.0, 7.0]);
    /// ```
    ///
    /// # Panics
    /// If the factors do not hold as many values as the weight's sides and a common rank say.
    pub fn plus_low_rank(&self, scale: f32, up: &[f32], down: &[f32], home: Home, cx: &Context<'_>) -> Self {
        Self { panels: plus_low_rank(self.panels.view(), scale, up, down, home, cx) }
    }
}

impl PackedConv {
    /// The same for `up` `[cout, rank]` and `down` `[rank, cin, kh, kw]`.
    ///
    /// # Panics
    /// As [`PackedMatrix::plus_low_rank`].
    pub fn plus_low_rank(&self, scale: f32, up: &[f32], down: &[f32], home: Home, cx: &Context<'_>) -> Self {
        let (cin, taps) = (self.shape.cin, self.shape.kh * self.shape.kw);
        let spread: Vec<f32>;
        // Depth runs over taps, then channels.
        let down = if taps == 1 {
            down
        } else {
            let row =
                |row: &[f32]| (0..taps * cin).map(|depth| row[depth % cin * taps + depth / cin]).collect::<Vec<_>>();
            spread = down.par_chunks(cin * taps).flat_map_iter(row).collect();
            &spread
        };
        Self { shape: self.shape, panels: plus_low_rank(self.panels.view(), scale, up, down, home, cx) }
    }
}

fn plus_low_rank(base: Panels<'_>, scale: f32, up: &[f32], down: &[f32], home: Home, cx: &Context<'_>) -> PackedPanels {
    let (n, k, isa) = (base.n, base.k, cx.isa());
    let rank = down.len() / k.max(1);
    assert!(up.len() == n * rank && down.len() == rank * k, "the factors must be [{n}, rank] and [rank, {k}]");
    let depth = rank.next_multiple_of(LINE).max(LINE);
    // The down factor's columns are the rows of the product.
    let mut rows = cx.workspace().take::<f32>(k * depth);
    rows.par_chunks_mut(STEP * depth).enumerate().for_each(|(step, packed)| {
        let (rows, first) = (&Transposed { data: down, stride: k, out_stride: 0 }, step * STEP);
        for group in Groups::new(isa, packed.len() / depth).iter() {
            let part = &mut packed[group.start * depth..group.end * depth];
            isa.run(Pack { rows, first: first + group.start, count: group.len(), depth: rank, packed: part });
        }
    });
    PackedPanels::filled(n, k, home, cx, |p, panel| {
        let mut columns = cx.workspace().take::<f32>(rank * NR);
        let data = &up[p * NR * rank..];
        isa.run(PackAcross { data, stride: rank, columns: base.columns(p), panel: &mut columns });
        let mut scratch = cx.workspace().take::<f32>(STEP * NR);
        for (step, (sums, packed)) in panel.chunks_mut(STEP * NR).zip(rows.chunks(STEP * depth)).enumerate() {
            let count = sums.len() / NR;
            let frozen = base.widened(isa, p, step * STEP, count, &mut scratch);
            sums.iter_mut().zip(frozen).for_each(|(sum, weight)| *sum = scale * weight);
            isa.run(Multiply {
                a: packed,
                depth,
                k0: 0,
                b: &columns,
                k: rank,
                c: sums,
                groups: Groups::new(isa, count),
                columns: NR,
                accumulate: true,
                ahead: &[],
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::reference::{Rng, Stored, WEIGHT_TYPES, product, relative};
    use crate::*;
    use half::f16;
    use proptest::prelude::*;

    /// `scale · base + up · down` row-major, in f64.
    fn sum(base: &[f32], scale: f32, up: &[f32], down: &[f32], [n, k]: [usize; 2]) -> Vec<f64> {
        let rank = down.len() / k;
        let across: Vec<f64> = (0..k * rank).map(|i| f64::from(down[i % rank * k + i / rank])).collect();
        let up: Vec<f64> = up.iter().map(|&v| v.into()).collect();
        let difference = product(&up, &across, n, k, rank);
        difference.iter().zip(base).map(|(d, &w)| d + f64::from(scale) * f64::from(w)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn any_matrix_takes_a_difference(
            seed in any::<u64>(),
            n in 1usize..100,
            k in 1usize..80,
            deep in 0usize..9,
            rank in 1usize..40,
        ) {
            let rng = &mut Rng::new(seed);
            // Now and then deeper than one step.
            let k = if deep == 8 { k + 2 * super::STEP - 40 } else { k };
            let dtype = rng.pick(&WEIGHT_TYPES);
            let stored = Stored::random(rng, dtype, n * k);
            let packed = PackedMatrix::pack(stored.view(), n, k);
            let (up, down, scale) = (rng.values(n * rank), rng.values(rank * k), rng.pick(&[1.0, -0.3]));
            let want = sum(&stored.values, scale, &up, &down, [n, k]);
            for isa in Isa::available() {
                let (workspace, mut out) = (Workspace::new(), vec![0.0; n * k]);
                let cx = Context::new(&workspace).with_isa(isa);
                packed.plus_low_rank(scale, &up, &down, Home::Workspace, &cx).unpack_f32(&mut out);
                let error = relative(&out, &want);
                prop_assert!(error < 5e-6, "{} {n}x{k} rank {rank}: {error:e}", isa.name());
            }
        }

        #[test]
        fn any_convolution_takes_a_difference(
            seed in any::<u64>(),
            cin in 1usize..40,
            cout in 1usize..40,
            side in 1usize..4,
            rank in 1usize..20,
        ) {
            let rng = &mut Rng::new(seed);
            let shape = ConvShape { cin, cout, kh: side, kw: 4 - side, stride: 1, padding: [0; 4] };
            let k = cin * side * (4 - side);
            let dtype = rng.pick(&WEIGHT_TYPES);
            let stored = Stored::random(rng, dtype, cout * k);
            let (up, down) = (rng.values(cout * rank), rng.values(rank * k));
            let want = sum(&stored.values, 1.0, &up, &down, [cout, k]);
            let (workspace, mut out) = (Workspace::new(), vec![0.0; cout * k]);
            let packed = PackedConv::pack(stored.view(), shape);
            packed.plus_low_rank(1.0, &up, &down, Home::Own, &Context::new(&workspace)).unpack_f32(&mut out);
            prop_assert!(relative(&out, &want) < 5e-6, "{shape:?} rank {rank}");
        }
    }

    #[test]
    fn blocks_are_widened_as_they_are_read() {
        let (n, k, rng) = (70, 768, &mut Rng::new(5));
        for dtype in [WeightType::Q8_0, WeightType::Q4K, WeightType::Q6K] {
            let mut bytes: Vec<u8> =
                (0..n * k / dtype.block() * dtype.block_bytes()).map(|i| (i * 7 % 251) as u8).collect();
            let factors: &[usize] = if dtype == WeightType::Q6K { &[208] } else { &[0, 2] };
            for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
                factors.iter().for_each(|&at| block[at..at + 2].copy_from_slice(&f16::from_f32(1e-3).to_le_bytes()));
            }
            let packed = PackedMatrix::pack(WeightView { dtype, bytes: &bytes }, n, k);
            let (mut base, mut out) = (vec![0.0; n * k], vec![0.0; n * k]);
            packed.unpack_f32(&mut base);
            let (up, down, workspace) = (rng.values(n * 3), rng.values(3 * k), Workspace::new());
            packed.plus_low_rank(0.5, &up, &down, Home::Own, &Context::new(&workspace)).unpack_f32(&mut out);
            assert!(relative(&out, &sum(&base, 0.5, &up, &down, [n, k])) < 1e-6, "{dtype:?}");
        }
    }
}
