//! The walk from a checkpoint's names to a model's layers. Enters: a checkpoint, a dialect's renaming, a runtime.
//! Leaves: tensors by canonical path, shape-checked, packed for the CPU or put on the device; a list of what was asked
//! for, so that leftovers can be told.

use super::{
    Tensor,
    frozen::{FrozenLayer, FrozenWeight, FrozenWeights, LayerRole},
    part,
};
use crate::{
    Error, ErrorKind, Precision, Result, Runtime,
    checkpoint::{
        Checkpoint, ElementType, TensorView,
        dialect::{Part, Stored},
    },
};
use luna_kernels::{Context, ConvShape, PackedConv, PackedMatrix, WeightType, WeightView, Workspace};
use std::{borrow::Cow, cell::RefCell, collections::BTreeSet, rc::Rc, sync::Arc};

/// Tells where the tensor of a canonical name is stored.
type Rename = Rc<dyn Fn(&str) -> Stored>;

/// A tensor as the model wants it, its elements as stored.
pub(crate) struct StoredTensor<'a> {
    pub(crate) element: ElementType,
    pub(super) bytes: Cow<'a, [u8]>,
}

/// A place in a checkpoint, from which layers take their tensors.
#[derive(Clone)]
pub(crate) struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    runtime: &'a Runtime,
    precision: Precision,
    rename: Rename,
    path: String,
    taken: Rc<RefCell<BTreeSet<String>>>,
    /// Stored names that were read since the last layer was frozen.
    read: Rc<RefCell<Vec<String>>>,
    frozen: Rc<RefCell<FrozenWeights>>,
}

impl<'a> Weights<'a> {
    /// Starts at the root of a model that computes with `runtime` in `precision`. `rename` gives, for a canonical name
    /// such as `decoder.conv_in.weight`, the stored name including its prefix, or the part of a stored tensor.
    pub(crate) fn new<S: Into<Stored>>(
        checkpoint: &'a Checkpoint,
        runtime: &'a Runtime,
        precision: Precision,
        rename: impl Fn(&str) -> S + 'static,
    ) -> Self {
        let (path, taken, read, frozen) = (String::new(), Rc::default(), Rc::default(), Rc::default());
        let rename = Rc::new(move |name: &str| rename(name).into());
        Self { checkpoint, runtime, precision, rename, path, taken, read, frozen }
    }

    pub(crate) fn runtime(&self) -> &'a Runtime {
        self.runtime
    }

    /// The same with one more segment.
    pub(crate) fn at(&self, segment: impl std::fmt::Display) -> Self {
        let path = if self.path.is_empty() { segment.to_string() } else { format!("{}.{segment}", self.path) };
        Self { path, ..self.clone() }
    }

    /// Adds the layer at this place to the model's frozen weights: a product, or a vector where there is one side.
    pub(super) fn freeze(&self, shape: &[usize], weight: FrozenWeight, bias: Option<Tensor>) -> Arc<FrozenLayer> {
        self.freeze_scaled(shape, weight, 1.0, bias)
    }

    /// As [`Weights::freeze`], for a weight that counts `scale` times what is stored.
    pub(super) fn freeze_scaled(
        &self,
        shape: &[usize],
        weight: FrozenWeight,
        scale: f32,
        bias: Option<Tensor>,
    ) -> Arc<FrozenLayer> {
        let role = if shape.len() == 1 { LayerRole::Vector } else { LayerRole::Product };
        self.push(FrozenLayer { index: 0, path: self.path.clone(), role, shape: shape.to_vec(), weight, scale, bias })
    }

    /// As [`Weights::freeze`], for a table whose rows are looked up.
    pub(super) fn freeze_table(&self, shape: &[usize], weight: FrozenWeight) -> Arc<FrozenLayer> {
        let (path, shape) = (self.path.clone(), shape.to_vec());
        self.push(FrozenLayer { index: 0, path, role: LayerRole::Table, shape, weight, scale: 1.0, bias: None })
    }

    fn push(&self, layer: FrozenLayer) -> Arc<FrozenLayer> {
        // The layer has its own copy, so that the file's need not stay in memory beside it.
        self.read.borrow_mut().drain(..).for_each(|name| self.checkpoint.release(&name));
        self.frozen.borrow_mut().push(layer)
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

    /// The stored shape of `name`.
    ///
    /// # Errors
    /// `InvalidFile` if it is not there.
    pub(crate) fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let Stored { name, part } = self.stored(name);
        Ok(part::shape(part, self.checkpoint.shape(&name).ok_or_else(|| missing(&name))?))
    }

    /// The stored shape of a convolution's weight, `[outputs, inputs, height, width]`, by which a model's sizes are read.
    ///
    /// # Errors
    /// `InvalidFile` if it is not there, has another number of dimensions or an empty side.
    pub(crate) fn conv_shape(&self, name: &str) -> Result<[usize; 4]> {
        let shape = self.shape(name)?;
        match *shape {
            [outputs, inputs, height, width] if !shape.contains(&0) => Ok([outputs, inputs, height, width]),
            _ => Err(Error::new(
                ErrorKind::InvalidFile,
                format!("tensor `{}` has a wrong shape", self.stored(name).name),
            )
            .expected("[outputs, inputs, height, width], no side 0")
            .found(format!("{shape:?}"))),
        }
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
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<StoredTensor<'a>> {
        let Stored { name: stored, part } = self.stored(name);
        let view = self.take(stored.clone())?;
        let more = match part {
            Part::Frames(count) => {
                (1..count).map(|frame| self.take(format!("{stored}.{frame}"))).collect::<Result<_>>()?
            }
            _ => Vec::new(),
        };
        let whole = part::whole(part, shape, view.shape);
        for view in [&view].into_iter().chain(&more) {
            check(view, &whole)?;
        }
        Ok(part::cut(part, view, &more, shape))
    }

    /// A stored tensor, noted as read.
    fn take(&self, stored: String) -> Result<TensorView<'a>> {
        let view = self.checkpoint.tensor_to_read(&stored).ok_or_else(|| missing(&stored))?;
        self.read.borrow_mut().push(stored.clone());
        self.taken.borrow_mut().insert(stored);
        Ok(view)
    }

    /// The tensor `name`, where it exists.
    ///
    /// # Errors
    /// As [`Weights::tensor`], but for a missing one.
    pub(crate) fn optional(&self, name: &str, shape: &[usize]) -> Result<Option<StoredTensor<'a>>> {
        if self.has(name) { self.tensor(name, shape).map(Some) } else { Ok(None) }
    }

    /// A one-dimensional tensor such as a bias, widened: f32 for the CPU's kernels, the model's precision elsewhere.
    pub(crate) fn vector(&self, name: &str, length: usize) -> Result<Tensor> {
        let vector = Tensor::from_vec(self.tensor(name, &[length])?.to_f32(), length, self.runtime.handle())?;
        Ok(if self.runtime.handle().is_cpu() { vector } else { vector.to_dtype(self.precision.dtype())? })
    }

    /// As [`Weights::vector`], where it exists.
    pub(crate) fn optional_vector(&self, name: &str, length: usize) -> Result<Option<Tensor>> {
        if self.has(name) { self.vector(name, length).map(Some) } else { Ok(None) }
    }

    /// The tensor on the runtime's device in the model's precision, for devices that the kernels do not serve.
    pub(crate) fn on_device(&self, tensor: StoredTensor, shape: &[usize]) -> Result<Tensor> {
        Ok(Tensor::from_vec(tensor.to_f32(), shape, &candle_core::Device::Cpu)?
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

impl<'a> StoredTensor<'a> {
    /// All of a tensor of floats.
    pub(crate) fn of(view: TensorView<'a>) -> Self {
        Self { element: view.element, bytes: Cow::Borrowed(view.bytes) }
    }

    /// These elements, little-endian.
    pub(crate) fn borrowed(element: ElementType, bytes: &'a [u8]) -> Self {
        Self { element, bytes: Cow::Borrowed(bytes) }
    }

    /// These values.
    pub(crate) fn of_values(values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { element: ElementType::F32, bytes: Cow::Owned(bytes) }
    }

    /// Packs a matrix `[n, k]` for the CPU, its elements as stored, but for quantised blocks that rows would share.
    pub(crate) fn pack_matrix(&self, n: usize, k: usize) -> PackedMatrix {
        let (dtype, bytes) = self.kernel_bytes();
        if !k.is_multiple_of(dtype.block()) {
            return PackedMatrix::from_f32(&self.to_f32(), n, k);
        }
        PackedMatrix::pack(WeightView { dtype, bytes: &bytes }, n, k)
    }

    /// Packs a convolution weight `[cout, cin, kh, kw]` for the CPU, its elements as stored; quantised ones are widened.
    pub(crate) fn pack_conv(&self, shape: ConvShape) -> PackedConv {
        let (dtype, bytes) = self.kernel_bytes();
        if dtype.is_quantised() {
            return PackedConv::from_f32(&self.to_f32(), shape);
        }
        PackedConv::pack(WeightView { dtype, bytes: &bytes }, shape)
    }

    /// The elements widened to f32.
    pub(crate) fn to_f32(&self) -> Vec<f32> {
        let (dtype, bytes) = self.kernel_bytes();
        let view = WeightView { dtype, bytes: &bytes };
        let mut wide = vec![0.0; view.len()];
        let workspace = Workspace::new();
        luna_kernels::convert_weights(view, &mut wide, &Context::new(&workspace));
        wide
    }

    /// The bytes as the kernels take them: everything as stored but f64, which no kernel reads.
    pub(super) fn kernel_bytes(&self) -> (WeightType, Cow<'_, [u8]>) {
        let Some(dtype) = self.element.kernel() else {
            let narrowed = self.bytes.chunks_exact(8).flat_map(|bytes| {
                let wide = f64::from_le_bytes(bytes.try_into().expect("chunks of 8"));
                (wide as f32).to_le_bytes()
            });
            return (WeightType::F32, narrowed.collect());
        };
        (dtype, Cow::Borrowed(&self.bytes))
    }
}

/// Refuses a tensor of another shape, sides of 1 aside, or of whole numbers.
fn check(view: &TensorView, whole: &[usize]) -> Result<()> {
    let squeeze = |shape: &[usize]| shape.iter().copied().filter(|&side| side != 1).collect::<Vec<_>>();
    if squeeze(view.shape) != squeeze(whole) {
        return Err(Error::new(ErrorKind::InvalidFile, format!("tensor `{}` has a wrong shape", view.name))
            .expected(format!("{whole:?}"))
            .found(format!("{:?}", view.shape)));
    }
    if !view.element.is_float() {
        let message = format!("tensor `{}` is not of a float type", view.name);
        return Err(Error::new(ErrorKind::Unsupported, message)
            .expected("F32, F16, BF16, F8_E4M3, F8_E5M2, F64 or a quantised type")
            .found(view.element.name()));
    }
    Ok(())
}

fn missing(stored: &str) -> Error {
    Error::new(ErrorKind::InvalidFile, format!("tensor `{stored}` is missing")).remedy(
        "the file is incomplete, or of a variant that Luna does not know; `luna-cli inspect` shows what it holds",
    )
}
