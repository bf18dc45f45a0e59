//! Calls into `luna-kernels`: takes slices out of tensors, gives new tensors, and recycles buffers.

use super::{Activation, GroupNorm, Pass, Tensor, conv::ConvCall};
use crate::{Error, ErrorKind, Result};
use candle_core::{CpuStorage, D, DType, Device, InplaceOp1, Layout, Storage};
use half::{bf16, f16};
use luna_kernels::{
    AttentionMask, AttentionMode, AttentionShape, ChannelAffine, ConvInput, Epilogue, PackedConv, PackedMatrix, Scalar,
    Workspace,
};
use std::{
    marker::PhantomData,
    ops::{Deref, Range},
};

/// An activation element that both the kernels and the tensor library know.
trait Element: Scalar + candle_core::WithDType {}
impl Element for f32 {}
impl Element for bf16 {}
impl Element for f16 {}

/// Runs the body with `T` bound to the element type of a tensor.
macro_rules! dispatch {
    ($tensor:expr, $T:ident => $body:expr) => {
        match $tensor.dtype() {
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::BF16 => {
                type $T = bf16;
                $body
            }
            DType::F16 => {
                type $T = f16;
                $body
            }
            other => Err(candle_core::Error::UnsupportedDTypeForOp(other, "nn").into()),
        }
    };
}

/// The elements of a contiguous CPU tensor.
struct View<'a, T> {
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    range: Range<usize>,
    element: PhantomData<T>,
}

impl<'a, T: Element> View<'a, T> {
    fn of(x: &'a Tensor) -> Result<Self> {
        let (storage, layout) = x.storage_and_layout();
        let (start, end) =
            layout.contiguous_offsets().ok_or(candle_core::Error::RequiresContiguous { op: "nn" })?;
        let Storage::Cpu(cpu) = &*storage else { return Err(Error::new(ErrorKind::Internal, "not a CPU tensor")) };
        cpu.as_slice::<T>()?;
        Ok(Self { storage: Box::new(storage), range: start..end, element: PhantomData })
    }
}

impl<T: Element> Deref for View<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &**self.storage {
            Storage::Cpu(cpu) => &cpu.as_slice::<T>().expect("checked when the view was made")[self.range.clone()],
            _ => unreachable!("checked when the view was made"),
        }
    }
}

/// A bias or another small f32 tensor, where there is one.
fn optional<T: Element>(x: Option<&Tensor>) -> Result<Option<View<'_, T>>> {
    x.map(View::of).transpose()
}

/// Takes the buffer out of a tensor and keeps it for the next one.
pub(super) fn recycle(tensor: Tensor, workspace: &Workspace) {
    // A tensor that shares its storage with another one must keep it; so must a view of a part.
    struct Take<'a>(&'a Workspace);
    impl InplaceOp1 for Take<'_> {
        fn name(&self) -> &'static str {
            "recycle"
        }
        fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
            match storage {
                CpuStorage::F32(buffer) => self.0.give(std::mem::take(buffer)),
                CpuStorage::BF16(buffer) => self.0.give(std::mem::take(buffer)),
                CpuStorage::F16(buffer) => self.0.give(std::mem::take(buffer)),
                _ => {}
            }
            Ok(())
        }
    }
    if tensor.device().is_cpu() {
        // An error here would only mean that the buffer is freed instead of recycled.
        let _ = tensor.inplace_op1(&Take(workspace));
    }
}

pub(super) fn linear(
    x: &Tensor,
    weight: &PackedMatrix,
    bias: Option<&Tensor>,
    activation: Activation,
    residual: Option<&Tensor>,
    pass: &Pass,
) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    *shape.last_mut().expect("a tensor with channels") = weight.n();
    let rows = x.elem_count() / weight.k();
    dispatch!(x, T => {
        let (x, bias, residual) = (View::<T>::of(x)?, optional::<f32>(bias)?, optional::<T>(residual)?);
        let mut y = pass.workspace().take::<T>(rows * weight.n());
        let epilogue = Epilogue { bias: bias.as_deref(), activation, residual: residual.as_deref(), ..Epilogue::default() };
        luna_kernels::linear(&x, rows, weight, &mut y, &epilogue, pass.stop());
        Ok(Tensor::from_vec(y, shape, &Device::Cpu)?)
    })
}

pub(super) fn conv2d(x: &Tensor, weight: &PackedConv, bias: Option<&Tensor>, call: ConvCall, pass: &Pass) -> Result<Tensor> {
    let (b, h, w, _) = x.dims4()?;
    let affine = call.norm.map(|norm| affine(x, norm)).transpose()?;
    dispatch!(x, T => {
        let (data, bias, residual) = (View::<T>::of(x)?, optional::<f32>(bias)?, optional::<T>(call.residual)?);
        let input = ConvInput { data: &data, b, h, w, norm: affine.as_ref(), activation: call.activation, upsample: call.upsample };
        let (rows, columns) = weight.output_size(h, w, call.upsample);
        let mut y = pass.workspace().take::<T>(b * rows * columns * weight.shape().cout);
        let epilogue = Epilogue { bias: bias.as_deref(), activation: call.after, residual: residual.as_deref(), ..Epilogue::default() };
        luna_kernels::conv2d(&input, weight, &mut y, &epilogue, pass.workspace(), pass.stop());
        Ok(Tensor::from_vec(y, (b, rows, columns, weight.shape().cout), &Device::Cpu)?)
    })
}

/// The scale and shift of each channel that GroupNorm comes to.
fn affine(x: &Tensor, norm: &GroupNorm) -> Result<ChannelAffine> {
    let (batch, channels) = (x.dim(0)?, x.dim(D::Minus1)?);
    let pixels = x.elem_count() / (batch * channels);
    dispatch!(x, T => {
        let (x, gamma, beta) = (View::<T>::of(x)?, View::<f32>::of(&norm.gamma)?, View::<f32>::of(&norm.beta)?);
        Ok(luna_kernels::group_norm_affine(&x, batch, pixels, channels, norm.groups, norm.eps, &gamma, &beta))
    })
}

pub(super) fn group_norm(x: &Tensor, norm: &GroupNorm, pass: &Pass) -> Result<Tensor> {
    let (batch, channels) = (x.dim(0)?, x.dim(D::Minus1)?);
    let pixels = x.elem_count() / (batch * channels);
    let affine = affine(x, norm)?;
    dispatch!(x, T => {
        let data = View::<T>::of(x)?;
        let mut y = pass.workspace().take::<T>(data.len());
        luna_kernels::apply_affine(&data, &mut y, batch, pixels, channels, &affine, Activation::None);
        Ok(Tensor::from_vec(y, x.shape(), &Device::Cpu)?)
    })
}
