//! A body that came: its JSON and its tensors. Enters: bytes. Leaves: views of checked tensors, or their values.

use super::{
    Dtype, FrameLimits, Role, SharedPlace, TensorRef,
    body::{self, Place, wrong},
};
use crate::{Error, ErrorKind, Result};
use std::{collections::BTreeMap, fmt};

/// A checked body.
pub struct Message {
    role: Role,
    json: String,
    places: Vec<Place>,
    body: Vec<u8>,
    /// Where the tensors' bytes begin in the body.
    data: usize,
    /// The tensors' bytes, where they are not in the body.
    shared: Option<SharedBytes>,
}

/// Bytes in memory that both sides have mapped. Dropping them gives the memory back to their sender.
pub type SharedBytes = Box<dyn AsRef<[u8]> + Send + Sync>;

impl Message {
    /// Checks a body.
    ///
    /// # Errors
    /// `InvalidInput` for anything that is no body of this protocol, `LimitExceeded` above `limits`.
    pub fn parse(body: Vec<u8>, limits: &FrameLimits) -> Result<Self> {
        Self::parse_with(body, limits, |_| Err(wrong("this connection has no shared memory")))
    }

    /// Checks a body whose tensors may lie in shared memory, which `open` finds.
    ///
    /// # Errors
    /// As [`Message::parse`]; those of `open`.
    pub fn parse_with(
        body: Vec<u8>,
        limits: &FrameLimits,
        open: impl FnOnce(&SharedPlace) -> Result<SharedBytes>,
    ) -> Result<Self> {
        let body::Layout { role, json, places, data, shared } = body::layout(&body, limits)?;
        let bytes = shared.as_ref().map_or(0, |place| place.bytes);
        let shared = shared.as_ref().map(open).transpose()?;
        if shared.as_ref().is_some_and(|shared| (**shared).as_ref().len() as u64 != bytes) {
            return Err(wrong("the shared memory is not as long as the header says"));
        }
        Ok(Self { role, json, places, body, data, shared })
    }

    /// The tensors' bytes.
    fn data(&self) -> &[u8] {
        self.shared.as_ref().map_or(&self.body[self.data..], |shared| (**shared).as_ref())
    }

    /// What its JSON is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its JSON.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Its tensors, in the order of the header.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = Tensor<'_>> {
        let data = self.data();
        self.places.iter().map(move |place| Tensor { place, data })
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// `InvalidInput` if there is none.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        self.tensors().find(|tensor| tensor.name() == name).ok_or_else(|| {
            let names: Vec<_> = self.tensors().map(|tensor| format!("`{}`", tensor.name())).take(8).collect();
            wrong(format!("the tensor `{name}` is missing")).found(match names.is_empty() {
                true => "no tensors".to_owned(),
                false => names.join(", "),
            })
        })
    }

    /// Bytes of the whole body, and of its tensors in shared memory.
    pub fn bytes(&self) -> u64 {
        (self.body.len() + self.shared.as_ref().map_or(0, |shared| (**shared).as_ref().len())) as u64
    }

    /// A safetensors file of its tensors and this metadata, with nothing in it of the request: the same tensors give
    /// the same file, whoever sends them.
    pub fn to_file(&self, metadata: &BTreeMap<String, String>) -> Vec<u8> {
        let mut tensors: Vec<_> = self.tensors().map(|tensor| tensor.view()).collect();
        body::file(metadata, &mut tensors)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({:?}, {}, {} tensors)", self.role, self.json, self.places.len())
    }
}

/// A tensor of a message.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    place: &'a Place,
    data: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// Its name.
    pub fn name(&self) -> &'a str {
        &self.place.name
    }

    /// Its element type.
    pub fn dtype(&self) -> Dtype {
        self.place.dtype
    }

    /// Its sides, outermost first.
    pub fn shape(&self) -> &'a [usize] {
        &self.place.shape
    }

    /// All of it.
    pub fn view(&self) -> TensorRef<'a> {
        let Place { name, dtype, shape, range } = self.place;
        TensorRef { name, dtype: *dtype, shape, bytes: &self.data[range.clone()] }
    }

    /// Its sides, of which there must be `N`.
    ///
    /// # Errors
    /// `InvalidInput` for another number of sides; `sides` tells what they are.
    pub fn sides<const N: usize>(&self, sides: &str) -> Result<[usize; N]> {
        self.shape().try_into().map_err(|_| {
            wrong(format!("the tensor `{}` has a wrong shape", self.name()))
                .expected(sides)
                .found(format!("{:?}", self.shape()))
        })
    }

    /// Its elements in f32, from F32, F16, BF16 or F64.
    ///
    /// # Errors
    /// `Unsupported` for another type.
    pub fn values(&self) -> Result<Vec<f32>> {
        let bytes = self.view().bytes;
        let halves = |widen: fn(u16) -> f32| bytes.as_chunks().0.iter().map(move |&two| widen(u16::from_le_bytes(two)));
        Ok(match self.dtype() {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect(),
            Dtype::F64 => bytes.as_chunks().0.iter().map(|&eight| f64::from_le_bytes(eight) as f32).collect(),
            Dtype::F16 => halves(|bits| half::f16::from_bits(bits).to_f32()).collect(),
            Dtype::BF16 => halves(|bits| half::bf16::from_bits(bits).to_f32()).collect(),
            other => {
                let message = format!("the tensor `{}` has an unfit element type", self.name());
                return Err(Error::new(ErrorKind::Unsupported, message)
                    .expected("F32, F16, BF16 or F64")
                    .found(format!("{other:?}")));
            }
        })
    }
}
