//! One compiled copy of each kernel for each element type.
//!
//! Kernels are written once, over [`Scalar`](crate::Scalar). Here they become machine code of this crate: without that, every crate that
//! calls one would compile it again for three types and four instruction sets, and would have to be optimised itself.

use crate::attention::{self, AttentionInput};
use crate::conv::{self, ConvInput, PackedConv};
use crate::gemm::Epilogue;
use crate::isa::Context;
use crate::layout::{self, ImageShape};
use crate::matmul::{self, MatmulShape, Operand};
use crate::matrix::{self, LowRankBranch, PackedMatrix};
use crate::norm::{ChannelAffine, GroupMoments, GroupNorm, RowNorm, group, rows};
use crate::rotary::{self, Rotary, RotaryShape};
use crate::simd::math::Activation;
use crate::weight::WeightView;
use crate::{convert, elementwise};
use half::{bf16, f16};

macro_rules! instances {
    ($($room:ident::$generic:ident as fn $name:ident($($argument:ident: $type:ty),*) $(-> $output:ty)?;)*) => {
        /// The kernels for one element type, behind the functions of the same names.
        pub trait Instances: Sized {
            $(#[doc(hidden)] fn $name($($argument: $type),*) $(-> $output)?;)*
        }
        impl Instances for f32 {
            $(fn $name($($argument: $type),*) $(-> $output)? { $room::$generic($($argument),*) })*
        }
        impl Instances for bf16 {
            $(fn $name($($argument: $type),*) $(-> $output)? { $room::$generic($($argument),*) })*
        }
        impl Instances for f16 {
            $(fn $name($($argument: $type),*) $(-> $output)? { $room::$generic($($argument),*) })*
        }
    };
}

instances! {
    attention::attention_of as fn attention(x: &AttentionInput<'_, Self>, out: &mut [Self], cx: &Context<'_>);
    conv::conv2d_of as fn conv2d(
        x: &ConvInput<'_, Self>, w: &PackedConv, out: &mut [Self], e: &Epilogue<'_, Self>, cx: &Context<'_>
    );
    convert::convert_weights_of as fn convert_weights(from: WeightView<'_>, to: &mut [Self], cx: &Context<'_>);
    elementwise::activate_in_place_of as fn activate_in_place(x: &mut [Self], activation: Activation, cx: &Context<'_>);
    elementwise::add_scaled_of as fn add_scaled(x: &mut [Self], y: &[Self], scale: f32, cx: &Context<'_>);
    elementwise::geglu_of as fn geglu(x: &[Self], out: &mut [Self], n: usize, cx: &Context<'_>);
    elementwise::multiply_of as fn multiply(x: &mut [Self], y: &[Self], cx: &Context<'_>);
    elementwise::softmax_rows_of as fn softmax_rows(x: &mut [Self], c: usize, cx: &Context<'_>);
    elementwise::swiglu_of as fn swiglu(x: &[Self], out: &mut [Self], n: usize, cx: &Context<'_>);
    group::add_moments_of as fn add_moments(moments: &mut GroupMoments, x: &[Self], c: usize, cx: &Context<'_>);
    group::apply_affine_of as fn apply_affine(
        x: &[Self], out: &mut [Self], b: usize, affine: &ChannelAffine, activation: Activation, cx: &Context<'_>
    );
    group::group_norm_affine_of as fn group_norm_affine(
        x: &[Self], b: usize, hw: usize, norm: &GroupNorm<'_>, cx: &Context<'_>
    ) -> ChannelAffine;
    layout::upsample_nearest_2x_of as fn upsample_nearest_2x(x: &[Self], out: &mut [Self], shape: ImageShape);
    matmul::matmul_of as fn matmul(
        a: &Operand<'_, Self>, b: &Operand<'_, Self>, out: &mut [Self], shape: MatmulShape, e: &Epilogue<'_, Self>,
        cx: &Context<'_>
    );
    matrix::linear_of as fn linear(
        a: &[Self], m: usize, w: &PackedMatrix, branch: Option<&LowRankBranch<'_, Self>>, out: &mut [Self],
        e: &Epilogue<'_, Self>, cx: &Context<'_>
    );
    rotary::rotate_of as fn rotate(x: &mut [Self], shape: RotaryShape, rotary: &Rotary<'_>);
    rows::layer_norm_of as fn layer_norm(x: &[Self], out: &mut [Self], norm: &RowNorm<'_>, cx: &Context<'_>);
    rows::rms_norm_of as fn rms_norm(x: &[Self], out: &mut [Self], norm: &RowNorm<'_>, cx: &Context<'_>);
}
