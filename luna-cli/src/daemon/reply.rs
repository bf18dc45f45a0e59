//! Replies before they are frames. Enters: what a handler made. Leaves: JSON and tensors to be written.

use super::clients::Held;
use luna_core::{
    Error, ErrorKind, Result,
    ipc::Sender,
    protocol::{Dtype, Message, Notice, ReplyHead, Role, TensorRef},
};
use serde::Serialize;
use serde_json::{Map, Value};

/// What a handler made.
#[derive(Default)]
pub struct Reply {
    pub fields: Map<String, Value>,
    pub tensors: Tensors,
    pub fallbacks: Vec<Notice>,
}

/// The tensors of a reply.
#[derive(Default)]
pub enum Tensors {
    #[default]
    None,
    Made(Vec<OwnedTensor>),
    /// Those of the request.
    Same(Box<Message>),
}

/// A tensor that a handler made, row-major.
pub struct OwnedTensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Values,
}

/// Its elements.
pub enum Values {
    F32(Vec<f32>),
    Bytes(Dtype, Vec<u8>),
}

impl Reply {
    /// A reply of these fields.
    ///
    /// # Errors
    /// `Internal` for fields that are no JSON object.
    pub fn of(fields: &impl Serialize) -> Result<Self> {
        match serde_json::to_value(fields) {
            Ok(Value::Object(fields)) => Ok(Self { fields, ..Self::default() }),
            _ => Err(Error::new(ErrorKind::Internal, "the reply is no JSON object")),
        }
    }

    /// Adds a tensor in f32.
    pub fn with(mut self, name: impl Into<String>, shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        self.add(OwnedTensor { name: name.into(), shape: shape.into(), values: Values::F32(values) });
        self
    }

    /// Adds a tensor of bytes.
    pub fn with_bytes(mut self, name: impl Into<String>, shape: impl Into<Vec<usize>>, bytes: Vec<u8>) -> Self {
        self.add(OwnedTensor { name: name.into(), shape: shape.into(), values: Values::Bytes(Dtype::U8, bytes) });
        self
    }

    /// Adds a tensor as it stands.
    pub fn with_tensor(mut self, tensor: &TensorRef) -> Self {
        let values = Values::Bytes(tensor.dtype, tensor.bytes.to_vec());
        self.add(OwnedTensor { name: tensor.name.to_owned(), shape: tensor.shape.to_vec(), values });
        self
    }

    fn add(&mut self, tensor: OwnedTensor) {
        match &mut self.tensors {
            Tensors::Made(tensors) => tensors.push(tensor),
            other => *other = Tensors::Made(vec![tensor]),
        }
    }

    /// Says what was done otherwise than asked for.
    pub fn noting(mut self, fallbacks: impl IntoIterator<Item = Notice>) -> Self {
        self.fallbacks.extend(fallbacks);
        self
    }
}

impl Tensors {
    fn views(&self) -> Vec<TensorRef<'_>> {
        match self {
            Self::None => Vec::new(),
            Self::Made(tensors) => tensors.iter().map(OwnedTensor::view).collect(),
            Self::Same(message) => message.tensors().map(|tensor| tensor.view()).collect(),
        }
    }
}

impl OwnedTensor {
    fn view(&self) -> TensorRef<'_> {
        let Self { name, shape, values } = self;
        match values {
            Values::F32(values) => TensorRef::f32(name, shape, values),
            Values::Bytes(dtype, bytes) => TensorRef { name, dtype: *dtype, shape, bytes },
        }
    }
}

/// A frame to be written.
pub struct Outgoing {
    role: Role,
    json: String,
    tensors: Tensors,
    /// Room that the request took, kept until its answer is on its way.
    _held: Option<Held>,
}

impl Outgoing {
    pub fn reply(head: &ReplyHead, fields: &Map<String, Value>, tensors: Tensors, held: Option<Held>) -> Self {
        Self { role: Role::Reply, json: head.json(fields), tensors, _held: held }
    }

    pub fn event(json: String) -> Self {
        Self { role: Role::Event, json, tensors: Tensors::None, _held: None }
    }

    pub fn write(&self, sender: &Sender) -> Result<()> {
        sender.send(self.role, &self.json, &self.tensors.views(), u64::from(u32::MAX))
    }
}
