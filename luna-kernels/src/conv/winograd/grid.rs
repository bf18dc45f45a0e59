//! Where tiles lie in an image.
//!
//! Enters: the sizes of a convolution's output. Leaves: the number of tiles, and the place of each.

use crate::conv::ConvInput;

/// How the output is cut into tiles.
pub(super) struct Grid {
    /// Tiles in a row of the image.
    pub(super) across: usize,
    /// Tiles in a column of the image.
    pub(super) down: usize,
    pub(super) images: usize,
    /// Input pixel (y, x) of the first tile's first input; negative where there is padding.
    pub(super) origin: (isize, isize),
    /// How many (rows, columns) of the first tiles' outputs lie before those that are computed.
    pub(super) before: (usize, usize),
    pub(super) ho: usize,
    pub(super) wo: usize,
}

/// Where a tile lies.
pub(super) struct Place {
    pub(super) image: usize,
    pub(super) ty: usize,
    pub(super) tx: usize,
}

impl Grid {
    /// Tiles of `m × m` outputs, of a convolution with `[top, bottom, left, right]` zeros around its input.
    pub(super) fn same<T>(
        x: &ConvInput<'_, T>,
        [top, _, left, _]: [usize; 4],
        first: usize,
        (ho, wo): (usize, usize),
        m: usize,
    ) -> Self {
        let origin = (first as isize - top as isize, -(left as isize));
        Self { across: wo.div_ceil(m), down: ho.div_ceil(m), images: x.b, origin, before: (0, 0), ho, wo }
    }

    /// The same of a doubled image, whose tiles begin with an odd row and column.
    pub(super) fn doubled<T>(x: &ConvInput<'_, T>, first: usize, (ho, wo): (usize, usize), m: usize) -> Self {
        let before = (usize::from(first.is_multiple_of(2)), 1);
        let (down, across) = ((ho + before.0).div_ceil(m), (wo + before.1).div_ceil(m));
        let origin = (first.div_ceil(2) as isize - 1, -1);
        Self { across, down, images: x.b, origin, before, ho, wo }
    }

    #[inline(always)]
    pub(super) fn place(&self, tile: usize) -> Place {
        let row = tile / self.across;
        Place { image: row / self.down, ty: row % self.down, tx: tile % self.across }
    }

    pub(super) fn tiles(&self) -> usize {
        self.images * self.down * self.across
    }
}
