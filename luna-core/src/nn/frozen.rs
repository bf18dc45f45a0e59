//! The frozen weights of a model: a flat list of its layers, each with its path, sizes and packed bytes. Layers share
//! it; what a request adds to a layer finds it here by its number.

use super::Tensor;
use crate::Result;
use candle_core::Device;
use luna_kernels::{PackedConv, PackedMatrix};
use std::sync::{Arc, OnceLock};

/// The weight of one layer as the device computes with it.
pub(crate) enum FrozenWeight {
    /// `[n, k]` for the CPU's kernels, elements as stored.
    Matrix(PackedMatrix),
    /// `[cout, cin, kh, kw]` for the CPU's kernels, elements as stored.
    Conv(PackedConv),
    /// In the tensor library's form: what other devices hold, and one-dimensional weights everywhere.
    Tensor(Tensor),
}

/// What a layer does with its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerRole {
    /// Multiplies: a linear layer or a convolution.
    Product,
    /// Looks rows up.
    Table,
    /// Scales or stands for itself: a norm or a single vector.
    Vector,
}

impl FrozenWeight {
    /// Bytes held in memory.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Matrix(matrix) => matrix.bytes() as u64,
            Self::Conv(conv) => conv.bytes() as u64,
            Self::Tensor(weight) => tensor_bytes(weight),
        }
    }
}

fn tensor_bytes(tensor: &Tensor) -> u64 {
    (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64
}

/// One weight-bearing layer. Nothing in it ever changes.
pub(crate) struct FrozenLayer {
    /// Its number in the model, dense from 0.
    pub(crate) index: usize,
    /// Its canonical path, such as `decoder.mid_block.resnets.0.conv1`.
    pub(crate) path: String,
    pub(crate) role: LayerRole,
    /// The logical shape of its weight.
    pub(crate) shape: Vec<usize>,
    pub(crate) weight: FrozenWeight,
    /// What the stored weight counts: 1 but for scaled fp8 files.
    pub(crate) scale: f32,
    pub(crate) bias: Option<Tensor>,
}

impl FrozenLayer {
    /// Outputs, and inputs times taps. A vector has one input.
    pub(crate) fn matrix(&self) -> (usize, usize) {
        let (outputs, rest) = self.shape.split_first().map_or((1, &[][..]), |(outputs, rest)| (*outputs, rest));
        (outputs, rest.iter().product())
    }

    /// Floating-point operations on `rows` rows: tokens, or pixels of the output.
    pub(super) fn operations(&self, rows: usize) -> usize {
        match self.role {
            LayerRole::Product => 2 * rows * self.shape.iter().product::<usize>(),
            LayerRole::Table | LayerRole::Vector => 0,
        }
    }

    /// The weight as the layer counts it, row-major.
    pub(super) fn unpacked(&self) -> Result<Vec<f32>> {
        let mut values = match &self.weight {
            FrozenWeight::Tensor(tensor) => {
                return Ok(tensor.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?);
            }
            _ => vec![0.0; self.shape.iter().product()],
        };
        match &self.weight {
            FrozenWeight::Matrix(matrix) => matrix.unpack_f32(&mut values),
            FrozenWeight::Conv(conv) => conv.unpack_f32(&mut values),
            FrozenWeight::Tensor(_) => unreachable!("returned above"),
        }
        if self.scale != 1.0 {
            values.iter_mut().for_each(|value| *value *= self.scale);
        }
        Ok(values)
    }

    /// Values in the form this layer's weight is held in.
    pub(super) fn packed(&self, values: &[f32]) -> Result<FrozenWeight> {
        Ok(match &self.weight {
            FrozenWeight::Matrix(matrix) => {
                FrozenWeight::Matrix(PackedMatrix::from_f32(values, matrix.n(), matrix.k()))
            }
            FrozenWeight::Conv(conv) => FrozenWeight::Conv(PackedConv::from_f32(values, conv.shape())),
            FrozenWeight::Tensor(tensor) => FrozenWeight::Tensor(like(values, &self.shape, tensor)?),
        })
    }

    pub(super) fn dtype(&self) -> candle_core::DType {
        match &self.weight {
            FrozenWeight::Tensor(tensor) => tensor.dtype(),
            _ => candle_core::DType::F32,
        }
    }

    pub(super) fn device(&self) -> Device {
        match &self.weight {
            FrozenWeight::Tensor(tensor) => tensor.device().clone(),
            _ => Device::Cpu,
        }
    }
}

/// Values as a tensor of the precision and on the device of another.
pub(super) fn like(values: &[f32], shape: &[usize], other: &Tensor) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, shape, &Device::Cpu)?.to_dtype(other.dtype())?.to_device(other.device())?)
}

/// All layers of a model in the order of their numbers.
#[derive(Default)]
pub(crate) struct FrozenWeights {
    layers: Vec<Arc<FrozenLayer>>,
    layout: OnceLock<blake3::Hash>,
    identity: Identity,
}

/// Tells a model in memory from all others while either is there.
#[derive(Clone, Default)]
pub(crate) struct Identity(Arc<()>);

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl FrozenWeights {
    /// Adds a layer and numbers it.
    pub(super) fn push(&mut self, layer: FrozenLayer) -> Arc<FrozenLayer> {
        let layer = Arc::new(FrozenLayer { index: self.layers.len(), ..layer });
        self.layers.push(layer.clone());
        layer
    }

    /// All layers.
    pub(crate) fn layers(&self) -> &[Arc<FrozenLayer>] {
        &self.layers
    }

    /// What tells this model in memory from all others.
    pub(crate) fn identity(&self) -> Identity {
        self.identity.clone()
    }

    /// BLAKE3 of numbers, paths and shapes: equal for models that the same patches fit.
    pub(crate) fn layout(&self) -> blake3::Hash {
        *self.layout.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            for layer in &self.layers {
                hasher.update(layer.path.as_bytes()).update(format!(" {:?} {}", layer.shape, layer.index).as_bytes());
            }
            hasher.finalize()
        })
    }

    /// Bytes held in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.weight.bytes() + layer.bias.as_ref().map_or(0, tensor_bytes)).sum()
    }

    /// BLAKE3 of all weights as they are held, with paths and shapes: equal before and after any use of the model.
    ///
    /// # Errors
    /// Those of the device that the weights are read back from.
    pub(crate) fn digest(&self) -> Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        for layer in &self.layers {
            hasher.update(&layer.index.to_le_bytes());
            hasher.update(layer.path.as_bytes());
            hasher.update(format!("{:?}", layer.shape).as_bytes());
            hasher.update(&layer.scale.to_le_bytes());
            match &layer.weight {
                FrozenWeight::Matrix(matrix) => {
                    let mut values = vec![0.0; matrix.n() * matrix.k()];
                    matrix.unpack_f32(&mut values);
                    update(&mut hasher, &values);
                }
                FrozenWeight::Conv(conv) => {
                    let mut values = vec![0.0; layer.shape.iter().product()];
                    conv.unpack_f32(&mut values);
                    update(&mut hasher, &values);
                }
                FrozenWeight::Tensor(tensor) => update(&mut hasher, &to_values(tensor)?),
            }
            if let Some(bias) = &layer.bias {
                update(&mut hasher, &to_values(bias)?);
            }
        }
        Ok(hasher.finalize())
    }
}

fn to_values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?)
}

fn update(hasher: &mut blake3::Hasher, values: &[f32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    hasher.update_rayon(&bytes);
}
