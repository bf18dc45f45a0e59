//! CPU kernels of Luna: convolution, matrix products, attention, norms and pointwise work over plain slices.
//!
//! Enters: slices of `f32`, `half::bf16` or `half::f16`, channels last, and weights packed once from the bytes of a file. Leaves: slices.
//! The crate knows no tensor library and no model, keeps no global state, and runs on the threads of the rayon pool it is called in.
//!
//! - Weights keep the type they are stored in ([`WeightType`]: f32, f16, bf16, fp8, quantised blocks); all arithmetic is f32.
//! - [`Context`] carries scratch memory, the caller's way to stop, and the instruction set ([`Isa`]), found at run time.
//! - Shapes are checked and a wrong one is a panic: they come from the program, not from the user.
//!
//! A ResNet block of a VAE, `x + conv2(silu(norm2(conv1(silu(norm1(x))))))`:
//!
//! ```
//! use luna_kernels::{
//!     Activation, Context, ConvInput, ConvShape, Epilogue, GroupNorm, PackedConv, Workspace, conv2d, group_norm_affine,
//! };
//!
//! let (b, h, w, c) = (1, 8, 8, 32);
//! let weights = vec![0.01f32; c * c * 9]; // [cout, cin, 3, 3]
//! let conv = PackedConv::from_f32(&weights, ConvShape::same3x3(c, c));
//! let (gamma, beta, bias) = (vec![1.0; c], vec![0.0; c], vec![0.1; c]);
//! let norm = GroupNorm { groups: 8, eps: 1e-6, gamma: &gamma, beta: &beta };
//!
//! let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
//! let workspace = Workspace::new();
//! let cx = Context::new(&workspace);
//! let x: Vec<f32> = (0..b * h * w * c).map(|i| (i % 17) as f32 - 8.0).collect();
//! let (mut hidden, mut out) = (vec![0.0; x.len()], vec![0.0; x.len()]);
//! pool.install(|| {
//!     let affine = group_norm_affine(&x, b, h * w, &norm, &cx);
//!     let input = ConvInput { norm: Some(&affine), activation: Activation::Silu, ..ConvInput::new(&x, b, h, w) };
//!     conv2d(&input, &conv, &mut hidden, &Epilogue { bias: Some(&bias), ..Epilogue::default() }, &cx);
//!
//!     let affine = group_norm_affine(&hidden, b, h * w, &norm, &cx);
//!     let input = ConvInput { norm: Some(&affine), activation: Activation::Silu, ..ConvInput::new(&hidden, b, h, w) };
//!     let epilogue = Epilogue { bias: Some(&bias), residual: Some(&x), ..Epilogue::default() };
//!     conv2d(&input, &conv, &mut out, &epilogue, &cx);
//! });
//! assert!(out.iter().all(|v| v.is_finite()));
//! ```

mod attention;
mod block;
mod conv;
mod convert;
mod elementwise;
mod far_copy;
mod gemm;
mod instances;
mod interrupt;
mod isa;
mod layout;
mod low_rank;
mod matmul;
mod matrix;
mod norm;
mod pages;
mod panel;
mod peak;
mod quantised;
mod rotary;
mod scalar;
mod simd;
mod tasks;
mod weight;
mod workspace;

pub use attention::{AttentionInput, AttentionMask, AttentionMode, AttentionShape, Tokens, attention};
pub use block::Plain;
pub use conv::{ConvInput, ConvShape, PackedConv, conv2d};
pub use convert::{convert, convert_weights};
pub use elementwise::{activate_in_place, add, add_scaled, geglu, multiply, softmax_rows, swiglu};
pub use far_copy::copy_far;
pub use gemm::Epilogue;
pub use interrupt::Interrupt;
pub use isa::{Context, Isa};
pub use layout::{ImageShape, nchw_to_nhwc, nhwc_to_nchw, upsample_nearest_2x};
pub use matmul::{MatmulShape, Operand, matmul};
pub use matrix::{LowRankBranch, PackedMatrix, linear, linear_with_branch};
pub use norm::{
    ChannelAffine, GroupMoments, GroupNorm, RowNorm, apply_affine, group_norm_affine, layer_norm, rms_norm,
};
pub use pages::want_large_pages;
pub use panel::Home;
pub use peak::{Peak, peak};
pub use rotary::{Rotary, RotaryLayout, RotaryShape, rotate};
pub use scalar::Scalar;
pub use simd::math::Activation;
pub use weight::{WeightType, WeightView};
pub use workspace::{Buffer, Workspace};

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
