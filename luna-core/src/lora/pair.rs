//! Two factors whose product is a matrix, with or without a Tucker core between them. Enters: stored factors. Leaves:
//! their sizes, and plain factors of any rows. It must not know what the product means.

use super::factor::Factor;
use crate::{Error, ErrorKind, Result, nn::StoredTensor};
use std::ops::Range;

/// `up · down`, `[rows, rank] · [rank, columns]`. With a core `[rank, r, h, w]`, the down factor `[r, inputs]` is spread
/// over the core's taps first: `down'[i, c, t] = Σⱼ core[i, j, t] · down[j, c]`.
#[derive(Clone)]
pub(super) struct Pair {
    up: Factor,
    /// Whether `up` is stored `[rank, rows]`, as LyCORIS does where there is a core.
    transposed: bool,
    down: Factor,
    core: Option<Factor>,
    pub(super) rank: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Pair {
    /// # Errors
    /// `InvalidFile` if the factors disagree about the rank or are empty.
    pub(super) fn new(up: Factor, down: Factor, core: Option<Factor>, transposed: bool) -> Result<Self> {
        let ((first, second), (inner, width)) = (up.matrix(), down.matrix());
        let (rows, rank) = if transposed { (second, first) } else { (first, second) };
        let (expected, columns) = match &core {
            None => (inner, width),
            Some(core) => match *core.shape {
                [outer, between, height, breadth] if between == inner => (outer, width * height * breadth),
                _ => return Err(disagree(&up, &down).found(format!("core {:?}, down {:?}", core.shape, down.shape))),
            },
        };
        if rank != expected {
            return Err(disagree(&up, &down));
        }
        if rank == 0 || rows == 0 || columns == 0 {
            return Err(Error::new(ErrorKind::InvalidFile, "the rank of an adapter is 0")
                .expected("factors of at least rank 1, no side 0")
                .found(format!("up {:?}, down {:?}", up.shape, down.shape)));
        }
        Ok(Self { up, transposed, down, core, rank, rows, columns })
    }

    /// `[rows, rank]` of these rows: as stored, where they lie so in the file.
    pub(super) fn stored_up(&self, rows: Range<usize>) -> StoredTensor<'_> {
        if self.transposed { StoredTensor::of_values(&self.up(rows)) } else { self.up.stored_rows(rows) }
    }

    /// `[rank, columns]`: as stored, where there is no core.
    pub(super) fn stored_down(&self) -> StoredTensor<'_> {
        if self.core.is_some() { StoredTensor::of_values(&self.down()) } else { self.down.stored() }
    }

    /// `[rows, rank]` of these rows.
    pub(super) fn up(&self, rows: Range<usize>) -> Vec<f32> {
        if !self.transposed {
            return self.up.rows(rows);
        }
        let all = self.up.values();
        rows.flat_map(|row| (0..self.rank).map(move |rank| (rank, row)))
            .map(|(rank, row)| all[rank * self.rows + row])
            .collect()
    }

    /// `[rank, columns]`.
    pub(super) fn down(&self) -> Vec<f32> {
        let down = self.down.values();
        let Some(core) = &self.core else { return down };
        let (inner, width) = self.down.matrix();
        let taps = self.columns / width;
        let core = core.values();
        let mut out = vec![0.0; self.rank * self.columns];
        for (line, core) in out.chunks_exact_mut(self.columns).zip(core.chunks_exact(inner * taps)) {
            for (down, core) in down.chunks_exact(width).zip(core.chunks_exact(taps)) {
                for (out, value) in line.chunks_exact_mut(taps).zip(down) {
                    out.iter_mut().zip(core).for_each(|(out, core)| *out += core * value);
                }
            }
        }
        out
    }

    pub(super) fn bytes(&self) -> u64 {
        self.up.bytes() + self.down.bytes() + self.core.as_ref().map_or(0, Factor::bytes)
    }
}

fn disagree(up: &Factor, down: &Factor) -> Error {
    Error::new(ErrorKind::InvalidFile, "the factors of an adapter disagree about its rank")
        .expected("up [outputs, rank] and down [rank, inputs]")
        .found(format!("up {:?}, down {:?}", up.shape, down.shape))
        .remedy("the file is damaged, or its names are mixed up")
}
