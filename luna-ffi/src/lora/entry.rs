//! One LoRA of a stack. Enters: a path, a name or bytes of the caller's. Leaves: its file, or what a daemon knows it by.

use super::luna_lora;
use crate::{
    daemon::Daemon,
    embedded::Embedded,
    error::{Result, wrong},
    handle::Caller,
    session::not_empty,
};
use luna_core::{lora::LoraFile, protocol::LoraUse};
use std::{path::Path, sync::Arc};

/// How an entry says what it is.
enum Named<'a> {
    Path(&'a str),
    Name(&'a str),
    Bytes(&'a str, &'a [u8]),
}

fn named<'a>(caller: &'a Caller, entry: &luna_lora) -> Result<Named<'a>> {
    let path = caller.optional_text("a LoRA's path", entry.path)?;
    let name = caller.optional_text("a LoRA's name", entry.name)?;
    Ok(match (path, name, entry.data.is_null()) {
        (Some(path), None, true) => Named::Path(not_empty("a LoRA's path", path)?),
        (None, Some(name), true) => Named::Name(name),
        (None, name, false) => {
            let bytes = caller.memory(entry.data, 0, entry.data_bytes)?;
            Named::Bytes(name.unwrap_or("a LoRA in memory"), bytes)
        }
        _ => {
            return Err(wrong("a LoRA of the stack is not clear")
                .expected("one of `path`, `name` and `data`, or `data` with a `name`")
                .into());
        }
    })
}

/// The file of an entry.
pub(super) fn file(caller: &Caller, embedded: &Embedded, entry: &luna_lora) -> Result<Arc<LoraFile>> {
    Ok(match named(caller, entry)? {
        Named::Path(path) => embedded.loras.open(path)?.lora,
        Named::Name(name) => named_file(embedded, name)?,
        Named::Bytes(name, bytes) => embedded.loras.put(name, bytes.to_vec())?,
    })
}

/// The file of a name in the session's folders.
pub(super) fn named_file(embedded: &Embedded, name: &str) -> Result<Arc<LoraFile>> {
    Ok(embedded.loras.open(embedded.lora_folders.find(name)?)?.lora)
}

/// What a daemon knows the file of an entry by.
pub(super) fn remote(caller: &Caller, daemon: &Daemon, entry: &luna_lora) -> Result<LoraUse> {
    let lora = match named(caller, entry)? {
        Named::Path(path) => daemon.client.put_lora(Path::new(path))?.lora_id,
        Named::Name(name) => name.to_owned(),
        Named::Bytes(name, bytes) => daemon.put_lora(name, bytes)?,
    };
    Ok(LoraUse { lora, model: entry.model, clip: entry.clip })
}
