//! The walk from a checkpoint's names to a model's layers. Enters: a checkpoint, a dialect's renaming, a runtime.
//! Leaves: tensors by canonical path, shape-checked, packed for the CPU or put on the device; a list of what was asked
//! for, so that leftovers can be told.

use super::{
    Tensor,
    frozen::{FrozenLayer, FrozenWeight, FrozenWeights},
};
use crate::{
    Error, ErrorKind, Precision, Result, Runtime,
    checkpoint::{Checkpoint, ElementType, TensorView, dialect::Stored},
};
use luna_kernels::{Context, ConvShape, PackedConv, PackedMatrix, WeightType, WeightView, Workspace};
use std::{borrow::Cow, cell::RefCell, collections::BTreeSet, rc::Rc, sync::Arc};

/// Turns a canonical name into the stored one.
type Rename = Rc<dyn Fn(&str) -> Stored>;

/// A place in a checkpoint, from which layers take their tensors.
#[derive(Clone)]
pub(crate) struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    runtime: &'a Runtime,
    precision: Precision,
    rename: Rename,
    path: String,
    taken: Rc<RefCell<BTreeSet<String>>>,
    frozen: Rc<RefCell<FrozenWeights>>,
}

impl<'a> Weights<'a> {
    /// Starts at the root of a model that computes with `runtime` in `precision`. `rename` gives, for a canonical name
    /// such as `decoder.conv_in.weight`, the stored name including its prefix.
    pub(crate) fn new<S: Into<Stored>>(
        checkpoint: &'a Checkpoint,
        runtime: &'a Runtime,
        precision: Precision,
        rename: impl Fn(&str) -> S + 'static,
    ) -> Self {
        let (path, taken, frozen) = (String::new(), Rc::default(), Rc::default());
        let rename = move |name: &str| rename(name).into();
        Self { checkpoint, runtime, precision, rename: Rc::new(rename), path, taken, frozen }
    }

    pub(crate) fn runtime(&self) -> &'a Runtime {
        self.runtime
    }

    /// The same with one more segment.
    pub(crate) fn at(&self, segment: impl std::fmt::Display) -> Self {
        let path = if self.path.is_empty() { segment.to_string() } else { format!("{}.{segment}", self.path) };
        Self { path, ..self.clone() }
    }

    /// Adds the layer at this place to the model's frozen weights.
    pub(super) fn freeze(&self, shape: &[usize], weight: FrozenWeight, bias: Option<Tensor>) -> Arc<FrozenLayer> {
        self.frozen.borrow_mut().push(self.path.clone(), shape, weight, bias)
    }

    /// All layers that were loaded from any place of this model.
    pub(crate) fn into_frozen(self) -> FrozenWeights {
        std::mem::take(&mut self.frozen.borrow_mut())
    }

    /// The canonical path of this place.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    fn stored(&self, name: &str) -> Stored {
        (self.rename)(&if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) })
    }

    /// Whether `name` exists here.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.checkpoint.shape(&self.stored(name).name).is_some()
    }

    /// The stored shape of `name`; of the whole tensor where `name` is a part of it.
    ///
    /// # Errors
    /// `InvalidFile` if it is not there.
    pub(crate) fn shape(&self, name: &str) -> Result<&'a [usize]> {
        let stored = self.stored(name).name;
        self.checkpoint.shape(&stored).ok_or_else(|| missing(&stored))
    }

    /// How many consecutive segments `0.`, `1.`, … carry `name`.
    pub(crate) fn count(&self, name: &str) -> usize {
        (0..).take_while(|index| self.at(index).has(name)).count()
    }

    /// The tensor `name`, which must have this shape but for sides of 1: an attention projection is a 1×1 convolution
    /// in ldm files and a matrix in diffusers'.
    ///
    /// # Errors
    /// `InvalidFile` if it is missing, has another shape or is not of a floating-point type.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'a>> {
        let Stored { name: stored, first_row } = self.stored(name);
        let whole = self.checkpoint.tensor(&stored).ok_or_else(|| missing(&stored))?;
        self.taken.borrow_mut().insert(stored);
        let squeeze = |shape: &[usize]| shape.iter().copied().filter(|&side| side != 1).collect::<Vec<_>>();
        let part = match first_row {
            Some(first) => rows(whole, first, shape[0]).map(|view| (view, [&shape[..1], &whole.shape[1..]].concat())),
            None => Some((whole, whole.shape.to_vec())),
        };
        let Some((view, _)) = part.filter(|(_, found)| squeeze(found) == squeeze(shape)) else {
            let place = first_row.map_or(String::new(), |first| format!(" from row {first} on"));
            return Err(Error::new(ErrorKind::InvalidFile, format!("tensor `{}` has a wrong shape", whole.name))
                .expected(format!("{shape:?}{place}"))
                .found(format!("{:?}", whole.shape)));
        };
        match view.element {
            ElementType::F32
            | ElementType::F16
            | ElementType::Bf16
            | ElementType::F8E4m3
            | ElementType::F8E5m2
            | ElementType::F64 => Ok(view),
            other => Err(Error::new(ErrorKind::Unsupported, format!("tensor `{}` is not of a float type", view.name))
                .expected("F32, F16, BF16, F8_E4M3, F8_E5M2 or F64")
                .found(other.name())),
        }
    }

    /// The tensor `name`, where it exists.
    ///
    /// # Errors
    /// As [`Weights::tensor`], but for a missing one.
    pub(crate) fn optional(&self, name: &str, shape: &[usize]) -> Result<Option<TensorView<'a>>> {
        if self.has(name) { self.tensor(name, shape).map(Some) } else { Ok(None) }
    }

    /// A one-dimensional tensor such as a bias, widened: f32 for the CPU's kernels, the model's precision elsewhere.
    pub(crate) fn vector(&self, name: &str, length: usize) -> Result<Tensor> {
        let vector = Tensor::from_vec(to_f32(&self.tensor(name, &[length])?), length, self.runtime.handle())?;
        Ok(if self.runtime.handle().is_cpu() { vector } else { vector.to_dtype(self.precision.dtype())? })
    }

    /// As [`Weights::vector`], where it exists.
    pub(crate) fn optional_vector(&self, name: &str, length: usize) -> Result<Option<Tensor>> {
        if self.has(name) { self.vector(name, length).map(Some) } else { Ok(None) }
    }

    /// The tensor on the runtime's device in the model's precision, for devices that the kernels do not serve.
    pub(crate) fn on_device(&self, view: TensorView, shape: &[usize]) -> Result<Tensor> {
        Ok(Tensor::from_vec(to_f32(&view), shape, &candle_core::Device::Cpu)?
            .to_dtype(self.precision.dtype())?
            .to_device(self.runtime.handle())?)
    }

    /// Stored names that start with one of `roots` and that no layer asked for.
    pub(crate) fn leftovers(&self, roots: &[&str]) -> Vec<String> {
        let taken = self.taken.borrow();
        let names = self.checkpoint.tensors().map(|tensor| tensor.name);
        let left = names.filter(|name| roots.iter().any(|root| name.starts_with(root)) && !taken.contains(*name));
        left.map(str::to_owned).collect()
    }
}

impl TensorView<'_> {
    /// Packs a matrix `[n, k]` for the CPU, its elements as stored.
    pub(crate) fn pack_matrix(&self, n: usize, k: usize) -> PackedMatrix {
        let (dtype, bytes) = kernel_bytes(self);
        PackedMatrix::pack(WeightView { dtype, bytes: &bytes }, n, k)
    }

    /// Packs a convolution weight `[cout, cin, kh, kw]` for the CPU, its elements as stored.
    pub(crate) fn pack_conv(&self, shape: ConvShape) -> PackedConv {
        let (dtype, bytes) = kernel_bytes(self);
        PackedConv::pack(WeightView { dtype, bytes: &bytes }, shape)
    }
}

/// The rows `first..first + count` of a tensor, if it has them. The view keeps the whole tensor's shape.
fn rows(whole: TensorView<'_>, first: usize, count: usize) -> Option<TensorView<'_>> {
    let row = whole.bytes.len().checked_div(*whole.shape.first()?)?;
    let bytes = whole.bytes.get(first.checked_mul(row)?..first.checked_add(count)?.checked_mul(row)?)?;
    Some(TensorView { bytes, ..whole })
}

/// The bytes as the kernels take them: everything as stored but f64, which no kernel reads.
fn kernel_bytes<'a>(view: &TensorView<'a>) -> (WeightType, Cow<'a, [u8]>) {
    let dtype = match view.element {
        ElementType::F32 => WeightType::F32,
        ElementType::F16 => WeightType::F16,
        ElementType::Bf16 => WeightType::BF16,
        ElementType::F8E4m3 => WeightType::F8E4M3,
        ElementType::F8E5m2 => WeightType::F8E5M2,
        _ => {
            let narrowed = view.bytes.chunks_exact(8).flat_map(|bytes| {
                let wide = f64::from_le_bytes(bytes.try_into().expect("chunks of 8"));
                (wide as f32).to_le_bytes()
            });
            return (WeightType::F32, narrowed.collect());
        }
    };
    (dtype, Cow::Borrowed(view.bytes))
}

/// The elements widened to f32.
fn to_f32(view: &TensorView) -> Vec<f32> {
    let (dtype, bytes) = kernel_bytes(view);
    let mut wide = vec![0.0; bytes.len() / dtype.size()];
    let workspace = Workspace::new();
    luna_kernels::convert_weights(WeightView { dtype, bytes: &bytes }, &mut wide, &Context::new(&workspace));
    wide
}

fn missing(stored: &str) -> Error {
    Error::new(ErrorKind::InvalidFile, format!("tensor `{stored}` is missing")).remedy(
        "the file is incomplete, or of a variant that Luna does not know; `luna-cli inspect` shows what it holds",
    )
}
