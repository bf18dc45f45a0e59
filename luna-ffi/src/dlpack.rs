//! Tensors of other libraries. Enters: DLPack's structs. Leaves: views, and DLPack's structs over Luna's memory.

use crate::{
    error::{Result, wrong},
    handle::{DlTensor, boundary, lend, object},
    status::luna_status,
    tensor::Tensor,
    types::luna_tensor,
    view::{LUNA_MAX_RANK, luna_dtype, luna_view},
};
use luna_core::{Error, ErrorKind};
use std::{ffi::c_void, sync::Arc};

/// DLPack's numbers.
const CPU: i32 = 1;
const INT: u8 = 0;
const UINT: u8 = 1;
const FLOAT: u8 = 2;
const BFLOAT: u8 = 4;
const BOOL: u8 = 6;

/// Lends a tensor to another library as a `DLManagedTensor *` of DLPack (major version 0, as NumPy, PyTorch and JAX take
/// it): the memory is shared, not copied, and must not be written to. Whoever takes it calls its deleter once; until then the memory
/// stays, also past `luna_tensor_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_tensor_to_dlpack(tensor: luna_tensor, managed: *mut *mut c_void) -> luna_status {
    boundary(|caller| {
        let place = caller.output("managed", managed.cast::<usize>())?;
        let tensor = object::<Tensor>(tensor)?;
        let view = tensor.view();
        let rank = view.rank as usize;
        let (code, bits) = match view.dtype == luna_dtype::Bool as i32 {
            true => (BOOL, 8),
            false => (FLOAT, 32),
        };
        let lent = DlTensor {
            data: view.data.cast_mut(),
            device_type: CPU,
            device_id: 0,
            rank: rank as i32,
            code,
            bits,
            lanes: 1,
            shape: std::ptr::null_mut(),
            strides: std::ptr::null_mut(),
            byte_offset: 0,
        };
        // A share of its own: what is lent outlives the handle.
        let owner = Arc::new(Tensor::clone(&tensor));
        let lent = lend(lent, view.shape[..rank].to_vec(), view.strides[..rank].to_vec(), owner);
        place.put(lent.expose_provenance());
        Ok(())
    })
}

/// Looks at another library's tensor, a `DLManagedTensor *` of DLPack. Nothing is taken: the view is valid for as long
/// as the caller keeps the tensor, whose deleter stays the caller's to call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_view_from_dlpack(managed: *const c_void, view: *mut luna_view) -> luna_status {
    boundary(|caller| {
        let place = caller.output("view", view)?;
        place.put(look_at(caller.dlpack(managed)?, |pointer, rank| {
            Ok(caller.slice("a side", pointer, rank)?.to_vec())
        })?);
        Ok(())
    })
}

fn look_at(tensor: DlTensor, read: impl Fn(*const i64, usize) -> Result<Vec<i64>>) -> Result<luna_view> {
    if tensor.device_type != CPU {
        return Err(Error::new(ErrorKind::Unsupported, "the tensor is not in the memory of the CPU")
            .expected("DLPack's device type 1")
            .found(tensor.device_type.to_string())
            .remedy("move it to the CPU first")
            .into());
    }
    let dtype = match (tensor.code, tensor.bits, tensor.lanes) {
        (FLOAT, 32, 1) => luna_dtype::F32,
        (FLOAT, 16, 1) => luna_dtype::F16,
        (FLOAT, 64, 1) => luna_dtype::F64,
        (BFLOAT, 16, 1) => luna_dtype::Bf16,
        (UINT, 8, 1) => luna_dtype::U8,
        (BOOL, 8, 1) => luna_dtype::Bool,
        (INT, 32, 1) => luna_dtype::I32,
        (INT, 64, 1) => luna_dtype::I64,
        (code, bits, lanes) => {
            return Err(wrong("the tensor is of a dtype that Luna does not take")
                .expected("f32, f16, bf16, f64, u8, bool, i32 or i64")
                .found(format!("code {code}, {bits} bits, {lanes} lanes"))
                .into());
        }
    };
    let rank = usize::try_from(tensor.rank).ok().filter(|&rank| rank <= LUNA_MAX_RANK);
    let rank = rank.ok_or_else(|| {
        wrong("the tensor has too many dimensions")
            .expected(format!("at most {LUNA_MAX_RANK}"))
            .found(tensor.rank.to_string())
    })?;
    let data = tensor.data.wrapping_byte_add(tensor.byte_offset as usize);
    let mut view = luna_view::of(data, dtype, &[]);
    view.rank = rank as u32;
    view.shape[..rank].copy_from_slice(&read(tensor.shape, rank)?);
    view.strided = u32::from(!tensor.strides.is_null());
    if !tensor.strides.is_null() {
        view.strides[..rank].copy_from_slice(&read(tensor.strides, rank)?);
    }
    Ok(view)
}
