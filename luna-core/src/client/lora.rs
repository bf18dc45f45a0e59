//! LoRAs in a daemon's cache.

use super::{Client, models};
use crate::{
    Limits, Result,
    checkpoint::Checkpoint,
    lora::LoraFile,
    protocol::{Fault, LoraCacheCheck, LoraCacheGet, LoraCachePut, LoraCacheStats, LoraChecked, LoraInfo, LoraStats},
};
use std::path::Path;

impl Client {
    /// Lets the daemon hold the LoRA of a file here: read by the daemon where it may and can read it, else sent. The
    /// reply's id is what requests name it by.
    ///
    /// # Errors
    /// As [`Client::call`]; those of [`crate::lora::LoraFile::open`] for the file.
    pub fn put_lora(&self, file: &Path) -> Result<LoraInfo> {
        let real = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let by_path = LoraCacheGet { lora: real.display().to_string(), tensors: false };
        match self.call(&by_path, &[]) {
            Ok(answer) => Ok(answer.reply),
            Err(error) if Fault::within(&error).is_some_and(|fault| fault.reason.is_some()) => self.send_lora(file),
            Err(error) => Err(error),
        }
    }

    /// Sends a LoRA's tensors.
    fn send_lora(&self, file: &Path) -> Result<LoraInfo> {
        let name = file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
        let limits = Limits::default();
        let (weights, extra) = LoraFile::weights(file)?;
        let checkpoint = Checkpoint::open(&weights, &limits)?;
        let mut metadata = checkpoint.metadata().clone();
        metadata.extend(extra);
        let request = LoraCachePut { name, metadata };
        Ok(self.call(&request, &models::tensors(&checkpoint)?)?.reply)
    }

    /// Facts of a LoRA that the daemon holds, or finds below its folders.
    ///
    /// # Errors
    /// As [`Client::call`]; a fault with the reason `need_lora` for one that it does not have.
    pub fn lora_cache_get(&self, lora: &str) -> Result<LoraInfo> {
        Ok(self.call(&LoraCacheGet { lora: lora.to_owned(), tensors: false }, &[])?.reply)
    }

    /// Whether the daemon has the LoRA of this id in memory.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn lora_cache_check(&self, lora: &str) -> Result<LoraChecked> {
        Ok(self.call(&LoraCacheCheck { lora: lora.to_owned() }, &[])?.reply)
    }

    /// How the daemon's cache of LoRAs is used.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn lora_cache_stats(&self) -> Result<LoraStats> {
        Ok(self.call(&LoraCacheStats {}, &[])?.reply)
    }
}
