//! Models of a daemon.

use super::Client;
use crate::{
    ErrorKind, Limits, Result,
    checkpoint::Checkpoint,
    protocol::{Fault, ListModels, ModelInfo, RegisterModel, RegisterModelByPath, TensorRef, UnloadModels, Unloaded},
};
use std::path::Path;

impl Client {
    /// Lets the daemon hold the model of a file or folder here: read by the daemon where it may and can read it, else
    /// sent. The reply's id is what requests name it by. `encoder` is the only text encoder that is wanted, where that is
    /// to be said.
    ///
    /// # Errors
    /// As [`Client::call`]; those of [`Checkpoint::open`] for a file that is sent.
    pub fn put_model(&self, file: &Path, encoder: Option<&str>) -> Result<ModelInfo> {
        let real = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let by_path = RegisterModelByPath {
            model_path: real.display().to_string(),
            encoder: encoder.map(str::to_owned),
            ..RegisterModelByPath::default()
        };
        let refused = match self.call(&by_path, &[]) {
            Ok(answer) => return Ok(answer.reply),
            Err(error) => error,
        };
        let unreadable = Fault::within(&refused)
            .is_some_and(|fault| fault.reason.is_some() || matches!(fault.kind(), ErrorKind::NotFound | ErrorKind::Io));
        if unreadable { self.send_model(file, encoder) } else { Err(refused) }
    }

    /// Lets the daemon read a GGUF language model with the vision part that was named. Such files cannot be sent.
    ///
    /// # Errors
    /// As [`Client::call`]; a fault with the reason `denied` where the files do not lie below the daemon's model roots.
    pub fn put_vlm(&self, file: &Path, projector: &Path) -> Result<ModelInfo> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string();
        let request = RegisterModelByPath {
            model_path: real(file),
            projector: Some(real(projector)),
            ..RegisterModelByPath::default()
        };
        Ok(self.call(&request, &[])?.reply)
    }

    /// Sends a model's tensors.
    fn send_model(&self, file: &Path, encoder: Option<&str>) -> Result<ModelInfo> {
        let checkpoint = Checkpoint::open(file, &Limits::default())?;
        let request = RegisterModel {
            name: file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned(),
            encoder: encoder.map(str::to_owned),
            metadata: checkpoint.metadata().clone(),
        };
        Ok(self.call(&request, &tensors(&checkpoint)?)?.reply)
    }

    /// All models that requests may name.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn list_models(&self) -> Result<Vec<ModelInfo>> {
        Ok(self.call(&ListModels {}, &[])?.reply.models)
    }

    /// Gives the memory of these models back, or of all if none is named.
    ///
    /// # Errors
    /// As [`Client::call`]; a fault with the reason `denied` where clients may not.
    pub fn unload_models(&self, models: &[String]) -> Result<Unloaded> {
        Ok(self.call(&UnloadModels { models: models.to_vec() }, &[])?.reply)
    }
}

/// A checkpoint's tensors as the wire takes them.
pub(super) fn tensors(checkpoint: &Checkpoint) -> Result<Vec<TensorRef<'_>>> {
    checkpoint.tensors().map(|tensor| TensorRef::stored(&tensor)).collect()
}
