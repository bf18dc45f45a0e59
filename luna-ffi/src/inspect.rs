//! What a model file holds. Enters: a path. Leaves: a list of its components.

use crate::{
    error::Result,
    handle::{Caller, boundary, c_string},
    list::{self, Item},
    status::luna_status,
    types::luna_list,
};
use luna_core::{Limits, checkpoint::Checkpoint};
use std::ffi::{CStr, CString, c_char};

crate::handle::records!(luna_component);

/// One component of a model file.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_component {
    /// `sizeof(luna_component)`, set by the caller.
    pub size: usize,
    /// What it does: `vae`, `text_encoder`, `diffusion` or `vision`.
    pub kind: *const c_char,
    /// Its architecture, such as `AutoencoderKL`.
    pub family: *const c_char,
    /// Whose names its tensors bear, such as `diffusers`.
    pub dialect: *const c_char,
    /// What stands before its tensors' names; empty for a file of its own.
    pub prefix: *const c_char,
    /// Number of tensors.
    pub tensors: u64,
    /// Number of parameters.
    pub parameters: u64,
    /// Bytes in the file.
    pub bytes: u64,
}

struct ComponentItem {
    texts: [CString; 4],
    numbers: [u64; 3],
}

impl Item for ComponentItem {
    type Record = luna_component;

    fn record(&self) -> luna_component {
        let [kind, family, dialect, prefix] = self.texts.each_ref().map(|text| CStr::as_ptr(text));
        let [tensors, parameters, bytes] = self.numbers;
        luna_component { size: 0, kind, family, dialect, prefix, tensors, parameters, bytes }
    }
}

fn components(path: &str) -> Result<Vec<ComponentItem>> {
    let found = Checkpoint::open(path, &Limits::default())?.recognise();
    let item = |component: luna_core::checkpoint::Component| ComponentItem {
        texts: [component.kind.name(), component.family.name(), component.dialect.name(), &component.prefix]
            .map(c_string),
        numbers: [component.tensors as u64, component.parameters, component.bytes],
    };
    Ok(found.components.into_iter().map(item).collect())
}

/// Lists the components that a model file or folder holds, from its names and shapes alone; an empty list if Luna
/// recognises none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_inspect(path: *const c_char, list: *mut luna_list) -> luna_status {
    boundary(|caller| {
        let place = caller.output("list", list)?;
        place.put(list::open(components(caller.text("path", path)?)?));
        Ok(())
    })
}

/// One component of such a list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_component(
    list: luna_list,
    index: usize,
    component: *mut luna_component,
) -> luna_status {
    boundary(|caller: &Caller| list::item::<ComponentItem>(caller, list, index, component))
}
