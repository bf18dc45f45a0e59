//! Calls into `luna-kernels`: takes slices out of tensors, gives new tensors, and recycles buffers.

use super::{
    Activation, GroupNorm, Pass, Tensor,
    attention::AttentionCall,
    buffers::{Buffer, Buffers, Recycled},
    conv::ConvCall,
    linear::{Affine, LinearCall},
    norm::RowNorm,
    rotary::RotaryTable,
};
use crate::{Error, ErrorKind, Result};
use candle_core::{CpuStorage, D, InplaceOp1, Layout, Storage};
use half::{bf16, f16};
use luna_kernels::{
    AttentionInput, AttentionShape, ChannelAffine, ConvInput, Epilogue, LowRankBranch, PackedConv, PackedMatrix,
    Rotary, RotaryShape, Scalar, Tokens,
};
use std::{
    marker::PhantomData,
    ops::{Deref, Range},
    sync::{Mutex, PoisonError},
};

/// An activation element that both the kernels and the tensor library know.
pub(super) trait Element: Scalar + Recycled + candle_core::WithDType {}
impl Element for f32 {}
impl Element for bf16 {}
impl Element for f16 {}

/// Runs the body with `T` bound to the element type of a tensor.
macro_rules! dispatch {
    ($tensor:expr, $T:ident => $body:expr) => {
        match $tensor.dtype() {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            candle_core::DType::F16 => {
                type $T = half::f16;
                $body
            }
            other => Err(candle_core::Error::UnsupportedDTypeForOp(other, "nn").into()),
        }
    };
}

pub(super) use dispatch;

/// The elements of a contiguous CPU tensor.
pub(super) struct View<'a, T> {
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    range: Range<usize>,
    element: PhantomData<T>,
}

impl<'a, T: Element> View<'a, T> {
    pub(super) fn of(x: &'a Tensor) -> Result<Self> {
        let (storage, layout) = x.storage_and_layout();
        let (start, end) = layout.contiguous_offsets().ok_or(candle_core::Error::RequiresContiguous { op: "nn" })?;
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
pub(super) fn optional<T: Element>(x: Option<&Tensor>) -> Result<Option<View<'_, T>>> {
    x.map(View::of).transpose()
}

/// The buffer of a contiguous tensor that nothing else uses; its storage is left empty.
pub(super) fn into_buffer<T: Element>(tensor: &Tensor) -> Result<Buffer<T>> {
    struct Take<T>(Mutex<Buffer<T>>);
    impl<T: Element> InplaceOp1 for Take<T> {
        fn name(&self) -> &'static str {
            "take the buffer"
        }
        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
            let taken = std::mem::replace(storage, T::to_cpu_storage_owned(Vec::new()));
            let buffer = Buffer::of(T::cpu_storage_data(taken)?, layout.start_offset(), layout.shape().elem_count());
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = buffer;
            Ok(())
        }
    }
    let take = Take(Mutex::default());
    tensor.inplace_op1(&take)?;
    Ok(take.0.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Takes the buffer out of a tensor that nothing else uses and keeps it for the next one.
pub(super) fn recycle(tensor: Tensor, buffers: &Buffers) {
    fn keep<T: Element>(tensor: &Tensor, buffers: &Buffers) -> Result<()> {
        buffers.give(into_buffer::<T>(tensor)?);
        Ok(())
    }
    if tensor.device().is_cpu() {
        // An error would only mean that the buffer is freed instead of kept.
        let _ = dispatch!(tensor, T => keep::<T>(&tensor, buffers));
    }
}

pub(super) fn linear(
    x: &Tensor,
    weight: &PackedMatrix,
    affine: Affine,
    call: LinearCall,
    pass: &Pass,
) -> Result<Tensor> {
    linear_with_branch(x, weight, affine, None, call, pass)
}

/// What a LoRA adds to the products of a layer.
pub(super) struct Beside<'a> {
    /// The input times the down factor.
    pub(super) hidden: &'a Tensor,
    pub(super) up: &'a PackedMatrix,
    pub(super) strength: f32,
}

/// `activation(scale · x·Wᵀ + strength · hidden·upᵀ + b) + residual`; with a branch the scale is not 0.
pub(super) fn linear_with_branch(
    x: &Tensor,
    weight: &PackedMatrix,
    affine: Affine,
    beside: Option<Beside>,
    call: LinearCall,
    pass: &Pass,
) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    *shape.last_mut().expect("a tensor with channels") = weight.n();
    let rows = x.elem_count() / weight.k();
    dispatch!(x, T => {
        let (data, bias, residual) = (View::<T>::of(x)?, optional::<f32>(affine.bias)?, optional::<T>(call.residual)?);
        let mut y = pass.buffers().take::<T>(rows * weight.n());
        let epilogue = Epilogue {
            scale: affine.scale,
            bias: bias.as_deref(),
            activation: call.activation,
            residual: residual.as_deref(),
            ..Epilogue::default()
        };
        if let Some(Beside { hidden, up, strength }) = beside {
            let branch = LowRankBranch { hidden: &View::<T>::of(hidden)?, up, strength };
            luna_kernels::linear_with_branch(&data, rows, weight, &branch, &mut y, &epilogue, &pass.cx());
        } else {
            luna_kernels::linear(&data, rows, weight, &mut y, &epilogue, &pass.cx());
        }
        y.into_tensor(shape)
    })
}

/// `y + scale · x·Wᵀ` in the memory of `y`, which nothing else may use.
pub(super) fn linear_onto(y: Tensor, x: &Tensor, weight: &PackedMatrix, scale: f32, pass: &Pass) -> Result<Tensor> {
    let shape = y.shape().clone();
    dispatch!(x, T => {
        let data = View::<T>::of(x)?;
        let mut y = into_buffer::<T>(&y)?;
        let epilogue = Epilogue { scale, accumulate: true, ..Epilogue::default() };
        luna_kernels::linear(&data, y.len() / weight.n().max(1), weight, &mut y, &epilogue, &pass.cx());
        y.into_tensor(shape)
    })
}

pub(super) fn conv2d(
    x: &Tensor,
    weight: &PackedConv,
    bias: Option<&Tensor>,
    call: ConvCall,
    pass: &Pass,
) -> Result<Tensor> {
    let (b, h, w, _) = x.dims4()?;
    let affine = call.norm.map(|norm| affine(x, norm, pass)).transpose()?;
    dispatch!(x, T => {
        let (data, bias, residual) = (View::<T>::of(x)?, optional::<f32>(bias)?, optional::<T>(call.residual)?);
        let input = ConvInput {
            norm: affine.as_ref(),
            activation: call.activation,
            upsample: call.upsample,
            ..ConvInput::new(&data, b, h, w)
        };
        let (height, width) = input.size();
        let (rows, columns) = weight.shape().output(height, width);
        let mut y = pass.buffers().take::<T>(b * rows * columns * weight.shape().cout);
        let epilogue = Epilogue {
            bias: bias.as_deref(),
            activation: call.after,
            activation_last: call.residual_first,
            residual: residual.as_deref(),
            ..Epilogue::default()
        };
        luna_kernels::conv2d(&input, weight, &mut y, &epilogue, &pass.cx());
        y.into_tensor((b, rows, columns, weight.shape().cout))
    })
}

/// `y + conv(x)` in the memory of `y`, which nothing else may use.
pub(super) fn conv2d_onto(
    y: Tensor,
    x: &Tensor,
    weight: &PackedConv,
    bias: Option<&Tensor>,
    call: ConvCall,
    pass: &Pass,
) -> Result<Tensor> {
    let (b, h, w, _) = x.dims4()?;
    let shape = y.shape().clone();
    let affine = call.norm.map(|norm| affine(x, norm, pass)).transpose()?;
    dispatch!(x, T => {
        let (data, bias) = (View::<T>::of(x)?, optional::<f32>(bias)?);
        let input = ConvInput {
            norm: affine.as_ref(),
            activation: call.activation,
            upsample: call.upsample,
            ..ConvInput::new(&data, b, h, w)
        };
        let epilogue = Epilogue { bias: bias.as_deref(), accumulate: true, ..Epilogue::default() };
        let mut y = into_buffer::<T>(&y)?;
        luna_kernels::conv2d(&input, weight, &mut y, &epilogue, &pass.cx());
        y.into_tensor(shape)
    })
}

/// A 1×1 convolution as a linear layer over pixels.
pub(super) fn pointwise(
    x: &Tensor,
    weight: &PackedMatrix,
    bias: Option<&Tensor>,
    call: ConvCall,
    pass: &Pass,
) -> Result<Tensor> {
    if call.norm.is_none() && call.activation == Activation::None && !call.upsample && !call.residual_first {
        let call = LinearCall { activation: call.after, residual: call.residual };
        return linear(x, weight, Affine { scale: 1.0, bias }, call, pass);
    }
    Err(Error::new(ErrorKind::Internal, "a 1×1 convolution takes its input as it is"))
}

/// The scale and shift of each channel that GroupNorm comes to.
fn affine(x: &Tensor, norm: &GroupNorm, pass: &Pass) -> Result<ChannelAffine> {
    let (batch, channels) = (x.dim(0)?, x.dim(D::Minus1)?);
    let pixels = x.elem_count() / (batch * channels);
    let (gamma, beta) = (norm.gamma(pass)?, norm.beta(pass)?);
    dispatch!(x, T => {
        let (x, gamma, beta) = (View::<T>::of(x)?, View::<f32>::of(&gamma)?, View::<f32>::of(&beta)?);
        let norm = luna_kernels::GroupNorm { groups: norm.groups, eps: norm.eps, gamma: &gamma, beta: &beta };
        Ok(luna_kernels::group_norm_affine(&x, batch, pixels, &norm, &pass.cx()))
    })
}

pub(super) fn group_norm(x: &Tensor, norm: &GroupNorm, pass: &Pass) -> Result<Tensor> {
    let affine = affine(x, norm, pass)?;
    dispatch!(x, T => {
        let data = View::<T>::of(x)?;
        let mut y = pass.buffers().take::<T>(data.len());
        luna_kernels::apply_affine(&data, &mut y, x.dim(0)?, &affine, Activation::None, &pass.cx());
        y.into_tensor(x.shape())
    })
}

/// `[b, …, heads·dim]` and twice `[b, …, kv_heads·dim]` → `[b, …, heads·dim]`.
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, call: AttentionCall, pass: &Pass) -> Result<Tensor> {
    let (batch, width) = (q.dim(0)?, q.dim(D::Minus1)?);
    let dim = width / call.heads;
    let kv_width = call.kv_heads * dim;
    let shape = AttentionShape {
        b: batch,
        heads: call.heads,
        kv_heads: call.kv_heads,
        tokens_q: q.elem_count() / (batch * width),
        tokens_kv: k.elem_count() / (batch * kv_width),
        dim,
    };
    dispatch!(q, T => {
        let views = [View::<T>::of(q)?, View::<T>::of(k)?, View::<T>::of(v)?];
        let input = AttentionInput {
            q: Tokens::contiguous(&views[0], shape.tokens_q, width),
            k: Tokens::contiguous(&views[1], shape.tokens_kv, kv_width),
            v: Tokens::contiguous(&views[2], shape.tokens_kv, kv_width),
            shape,
            scale: call.scale.unwrap_or_else(|| (dim as f32).powf(-0.5)),
            mask: call.mask,
            mode: pass.attention_mode().kernel(),
        };
        let mut y = pass.buffers().take::<T>(q.elem_count());
        luna_kernels::attention(&input, &mut y, &pass.cx());
        y.into_tensor(q.shape())
    })
}

/// Layer norm or RMS norm of each row.
pub(super) fn row_norm(x: &Tensor, norm: &RowNorm, pass: &Pass) -> Result<Tensor> {
    let c = x.dim(D::Minus1)?;
    let (gamma, beta) = (norm.gamma(pass)?, norm.beta(pass)?);
    dispatch!(x, T => {
        let (data, gamma, beta) = (View::<T>::of(x)?, View::<f32>::of(&gamma)?, optional::<f32>(beta.as_ref())?);
        let parameters =
            luna_kernels::RowNorm { c, eps: norm.eps, gamma: Some(&gamma), beta: beta.as_deref() };
        let mut y = pass.buffers().take::<T>(data.len());
        if norm.centred {
            luna_kernels::layer_norm(&data, &mut y, &parameters, &pass.cx());
        } else {
            luna_kernels::rms_norm(&data, &mut y, &parameters, &pass.cx());
        }
        y.into_tensor(x.shape())
    })
}

/// A 1×1 convolution that writes into its input's memory, band by band: its output rows are no longer than its input
/// rows, so a band's results lie where only earlier bands, or the band itself, were read.
pub(super) fn pointwise_in_place(
    x: Tensor,
    weight: &PackedMatrix,
    bias: Option<&Tensor>,
    pass: &Pass,
) -> Result<Tensor> {
    const BAND: usize = 1 << 14;
    let (n, k) = (weight.n(), weight.k());
    let mut shape = x.dims().to_vec();
    *shape.last_mut().expect("a tensor with channels") = n;
    dispatch!(x, T => {
        let bias = optional::<f32>(bias)?;
        let epilogue = Epilogue { bias: bias.as_deref(), ..Epilogue::default() };
        let mut data = into_buffer::<T>(&x)?;
        let rows = data.len() / k;
        let mut band = vec![T::from_f32(0.0); BAND.min(rows) * n];
        for start in (0..rows).step_by(BAND) {
            let count = BAND.min(rows - start);
            let out = &mut band[..count * n];
            luna_kernels::linear(&data[start * k..][..count * k], count, weight, out, &epilogue, &pass.cx());
            data[start * n..][..count * n].copy_from_slice(out);
        }
        data.shorten(rows * n);
        data.into_tensor(shape)
    })
}

/// `x ⊙ y`, in the memory of `x`.
pub(super) fn multiply(x: Tensor, y: &Tensor, pass: &Pass) -> Result<Tensor> {
    let shape = x.shape().clone();
    dispatch!(x, T => {
        let y = View::<T>::of(y)?;
        let mut data = into_buffer::<T>(&x)?;
        luna_kernels::multiply(&mut data, &y, &pass.cx());
        data.into_tensor(shape)
    })
}

/// Rotates the heads of `[b, t, heads·dim]` in the memory of `x`.
pub(super) fn rotate(x: Tensor, heads: usize, table: &RotaryTable) -> Result<Tensor> {
    let (_, tokens, width) = x.dims3()?;
    let shape = RotaryShape { tokens, heads, dim: width / heads, stride: width };
    dispatch!(x, T => {
        let (cos, sin) = (View::<f32>::of(&table.cos)?, View::<f32>::of(&table.sin)?);
        let rotary = Rotary { cos: &cos, sin: &sin, rotary: shape.dim, layout: table.layout };
        let mut data = into_buffer::<T>(&x)?;
        luna_kernels::rotate(&mut data, shape, &rotary);
        data.into_tensor(x.shape())
    })
}

/// Applies an activation in the memory of its input.
pub(super) fn activate(x: Tensor, activation: Activation, pass: &Pass) -> Result<Tensor> {
    let shape = x.shape().clone();
    dispatch!(x, T => {
        let mut data = into_buffer::<T>(&x)?;
        luna_kernels::activate_in_place(&mut data, activation, &pass.cx());
        data.into_tensor(shape)
    })
}
