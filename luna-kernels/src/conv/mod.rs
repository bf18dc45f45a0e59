//! Convolutions over channels-last images.
//!
//! Enters: an image `[b, h, w, cin]`, optionally with a group norm and activation to apply on the way in and a nearest-neighbour doubling;
//! packed weights. Leaves: `[b, ho, wo, cout]` through an epilogue. It must not know which model the layer belongs to.

mod cost;
mod implicit;
mod narrow;
mod prologue;
mod winograd;

use crate::elementwise::activate_in_place;
use crate::gemm::epilogue::OutPtr;
use crate::gemm::{Epilogue, Product};
use crate::isa::Context;
use crate::norm::{ChannelAffine, apply_affine};
use crate::panel::PackedPanels;
use crate::scalar::Scalar;
use crate::simd::math::Activation;
use crate::weight::{WeightType, WeightView};
use cost::Algorithm;
use implicit::Patches;
use narrow::Narrow;
use winograd::Winograd;

/// Sizes of a convolution; groups are not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Input channels.
    pub cin: usize,
    /// Output channels.
    pub cout: usize,
    /// Kernel height.
    pub kh: usize,
    /// Kernel width.
    pub kw: usize,
    /// Step in both directions.
    pub stride: usize,
    /// Zeros around the image: top, bottom, left, right (ldm's downsampling pads bottom and right only).
    pub padding: [usize; 4],
}

impl ConvShape {
    /// A 3×3 convolution that keeps the image size.
    pub fn same3x3(cin: usize, cout: usize) -> Self {
        Self { cin, cout, kh: 3, kw: 3, stride: 1, padding: [1; 4] }
    }

    /// A 1×1 convolution.
    pub fn pointwise(cin: usize, cout: usize) -> Self {
        Self { cin, cout, kh: 1, kw: 1, stride: 1, padding: [0; 4] }
    }

    /// Output height and width for an input of `h × w` (after any doubling).
    ///
    /// # Panics
    /// If the kernel is larger than the padded image.
    pub fn output(&self, h: usize, w: usize) -> (usize, usize) {
        let [top, bottom, left, right] = self.padding;
        let (h, w) = (h + top + bottom, w + left + right);
        assert!(
            h >= self.kh && w >= self.kw,
            "a {}x{} kernel does not fit a padded image of {h}x{w}",
            self.kh,
            self.kw
        );
        ((h - self.kh) / self.stride + 1, (w - self.kw) / self.stride + 1)
    }
}

/// Frozen convolution weights, packed once in the element type they are stored in.
pub struct PackedConv {
    pub(crate) shape: ConvShape,
    pub(crate) panels: PackedPanels,
}

impl PackedConv {
    /// Packs PyTorch's `[cout, cin, kh, kw]` weights. The bytes may have any alignment.
    ///
    /// # Panics
    /// If `w` does not hold that many elements, is quantised, or a size of the shape is zero.
    pub fn pack(w: WeightView<'_>, shape: ConvShape) -> Self {
        let ConvShape { cin, cout, kh, kw, stride, .. } = shape;
        assert!(
            cin > 0 && cout > 0 && kh > 0 && kw > 0 && stride > 0,
            "sizes of a convolution are at least 1: {shape:?}"
        );
        assert!(!w.dtype.is_quantised(), "convolution weights are not stored in blocks");
        let taps = kh * kw;
        // Depth runs over taps, then channels, as the channels-last image does.
        let panels = PackedPanels::pack_taps(w, cout, cin, taps);
        Self { shape, panels }
    }

    /// Packs f32 values of this machine, `[cout, cin, kh, kw]`.
    ///
    /// # Panics
    /// As [`PackedConv::pack`].
    pub fn from_f32(w: &[f32], shape: ConvShape) -> Self {
        Self::pack(WeightView::from_f32(w), shape)
    }

    /// Sizes.
    pub fn shape(&self) -> ConvShape {
        self.shape
    }

    /// Element type kept.
    pub fn dtype(&self) -> WeightType {
        self.panels.view().dtype()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.panels.bytes()
    }

    /// Writes the weights back as `[cout, cin, kh, kw]` f32; the values are exactly those packed.
    ///
    /// # Panics
    /// If `out` does not hold that many values.
    pub fn unpack_f32(&self, out: &mut [f32]) {
        let ConvShape { cin, cout, kh, kw, .. } = self.shape;
        assert_eq!(out.len(), cout * cin * kh * kw, "output must hold [cout, cin, kh, kw] values");
        let (panels, taps) = (self.panels.view(), kh * kw);
        for (at, value) in out.iter_mut().enumerate() {
            let (column, channel, tap) = (at / (cin * taps), at / taps % cin, at % taps);
            *value = panels.get(column, tap * cin + channel);
        }
    }
}

impl std::fmt::Debug for PackedConv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedConv").field("shape", &self.shape).field("dtype", &self.dtype()).finish()
    }
}

/// The input of a convolution: an image and what is done to it on the way in.
#[derive(Clone, Copy, Debug)]
pub struct ConvInput<'a, T> {
    /// `[b, h, w, cin]`.
    pub data: &'a [T],
    /// Images.
    pub b: usize,
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
    /// A norm applied first (see [`crate::group_norm_affine`]).
    pub norm: Option<&'a ChannelAffine>,
    /// Applied after the norm. Zero padding comes after both.
    ///
    /// Nothing at all, SiLU, and a norm with SiLU happen in f32 while the image is read; any other combination is prepared in a copy of the
    /// image, rounded to its element type.
    pub activation: Activation,
    /// Doubles height and width by nearest neighbour, after norm and activation.
    pub upsample: bool,
    /// The first of the output rows that are computed, and how many; all where there is `None`. With rows of an image as `data` and the
    /// inner rows of the output this is a band of a larger convolution, since padding stands only at the ends of `data`.
    pub rows: Option<(usize, usize)>,
}

impl<'a, T> ConvInput<'a, T> {
    /// An image taken as it is.
    pub fn new(data: &'a [T], b: usize, h: usize, w: usize) -> Self {
        Self { data, b, h, w, norm: None, activation: Activation::None, upsample: false, rows: None }
    }

    /// Height and width the kernel sees.
    pub fn size(&self) -> (usize, usize) {
        let factor = if self.upsample { 2 } else { 1 };
        (self.h * factor, self.w * factor)
    }

    /// The first output row that is computed, how many, and their width.
    ///
    /// # Panics
    /// If there are not that many rows.
    fn output(&self, shape: ConvShape) -> (usize, usize, usize) {
        let (h, w) = self.size();
        let (ho, wo) = shape.output(h, w);
        let (first, count) = self.rows.unwrap_or((0, ho));
        assert!(first <= ho && count <= ho - first, "rows {first}.. ({count}) of an output of {ho}");
        (first, count, wo)
    }
}

/// Convolves `x` with `w` into `out`, `[b, ho, wo, cout]`, where `(ho, wo)` is `w.shape().output(..)` of [`ConvInput::size`], or `ho` the
/// number of [`ConvInput::rows`].
///
/// ```
/// use luna_kernels::{Context, ConvInput, ConvShape, Epilogue, PackedConv, Workspace, conv2d};
///
/// let w = PackedConv::from_f32(&[0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0], ConvShape::same3x3(1, 1));
/// let (workspace, mut out) = (Workspace::new(), [0.0f32; 3]);
/// conv2d(&ConvInput::new(&[1.0, 10.0, 100.0], 1, 1, 3), &w, &mut out, &Epilogue::default(), &Context::new(&workspace));
/// assert_eq!(out, [32.0, 321.0, 210.0]);
/// ```
///
/// # Panics
/// If a slice does not have the size its shape says.
pub fn conv2d<T: Scalar>(x: &ConvInput<'_, T>, w: &PackedConv, out: &mut [T], e: &Epilogue<'_, T>, cx: &Context<'_>) {
    T::conv2d(x, w, out, e, cx);
}

/// [`conv2d`], compiled once for each element type.
pub(crate) fn conv2d_of<T: Scalar>(
    x: &ConvInput<'_, T>,
    w: &PackedConv,
    out: &mut [T],
    e: &Epilogue<'_, T>,
    cx: &Context<'_>,
) {
    conv2d_by(cost::choose(x, w), x, w, out, e, cx);
}

/// [`conv2d`] by a given algorithm, which must apply.
fn conv2d_by<T: Scalar>(
    algorithm: Algorithm,
    x: &ConvInput<'_, T>,
    w: &PackedConv,
    out: &mut [T],
    e: &Epilogue<'_, T>,
    cx: &Context<'_>,
) {
    let ConvShape { cin, cout, .. } = w.shape;
    let (first, ho, wo) = x.output(w.shape);
    assert_eq!(
        x.data.len(),
        x.b * x.h * x.w * cin,
        "input must be [b, h, w, cin] = [{}, {}, {}, {cin}]",
        x.b,
        x.h,
        x.w
    );
    assert_eq!(out.len(), x.b * ho * wo * cout, "output must be [b, ho, wo, cout] = [{}, {ho}, {wo}, {cout}]", x.b);
    if let Some(norm) = x.norm {
        assert!(norm.scale.len() == x.b * cin && norm.shift.len() == x.b * cin, "norm must hold [b, cin] values");
    }
    e.check(cout, out.len());
    if out.is_empty() {
        return;
    }
    if !x.prepared_while_read() {
        let mut data = cx.workspace().take::<T>(x.data.len());
        match x.norm {
            Some(norm) => apply_affine(x.data, &mut data, x.b, norm, x.activation, cx),
            None => {
                data.copy_from_slice(x.data);
                activate_in_place(&mut data, x.activation, cx);
            }
        }
        let x = ConvInput { data: &data, norm: None, activation: Activation::None, ..*x };
        return conv2d_by(algorithm, &x, w, out, e, cx);
    }
    let (panels, out) = (w.panels.view(), OutPtr::new(out));
    match algorithm {
        Algorithm::Winograd | Algorithm::LargeWinograd => {
            let large = algorithm == Algorithm::LargeWinograd;
            Winograd { x, shape: w.shape, panels, out, epilogue: *e, first, size: (ho, wo), large }.run(cx)
        }
        Algorithm::Implicit => {
            let rows = Patches { x, shape: w.shape, first, wo, ho };
            Product { rows: &rows, m: x.b * ho * wo, panels, pairs: false, branch: None, out, epilogue: *e }.run(cx);
        }
        Algorithm::Narrow => {
            let patches = Patches { x, shape: w.shape, first, wo, ho };
            Narrow { patches, panels, out, epilogue: *e }.run(cx);
        }
    }
}

#[cfg(test)]
mod tests;
