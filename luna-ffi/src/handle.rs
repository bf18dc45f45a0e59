//! Pointers and handles. Enters: what a C caller passes. Leaves: references, copies and objects that are safe to use.
//! All unsafe code of this crate stands here.
//!
//! A caller of the C ABI vouches for its pointers: each is NULL, or leads to what the header says, for as long as the
//! call runs, and nobody else writes there meanwhile. [`boundary`] is entered from exported functions only, and the
//! [`Caller`] it hands out stands for that promise. Everything else is checked: NULL, alignment, sizes, UTF-8, handles.

use crate::{
    error::{Failure, Result, remember, wrong},
    status::luna_status,
    table::{self, Key, Object},
};
use luna_core::{Error, ErrorKind};
use std::{
    any::Any,
    ffi::{CStr, CString, c_char, c_void},
    marker::PhantomData,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    ptr, slice,
    sync::Arc,
};

/// The most bytes that a struct of a later header may have.
const MOST_RECORD_BYTES: usize = 1 << 16;

/// A share in what a handle stands for.
pub(crate) fn object<T: Object>(handle: impl Into<Key>) -> Result<Arc<T>> {
    table::get(handle.into())
}

/// Whether a handle is all zero, which stands for none.
pub(crate) fn is_none(handle: impl Into<Key>) -> bool {
    handle.into() == Key { table: 0, slot: 0, generation: 0 }
}

/// Frees a handle.
pub(crate) fn free<T: Object>(handle: impl Into<Key>) -> luna_status {
    boundary(|_| table::remove::<T>(handle.into()).map(drop))
}

/// A text as C reads it; a NUL within it becomes U+FFFD.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// Texts side by side, as C reads them.
pub(crate) struct Texts {
    /// To those below, which stay where they are.
    pointers: Vec<*const c_char>,
    _texts: Vec<CString>,
}

// SAFETY: the pointers lead to texts that it owns and that never change.
unsafe impl Send for Texts {}
// SAFETY: as above.
unsafe impl Sync for Texts {}

impl Texts {
    pub(crate) fn new(texts: Vec<CString>) -> Self {
        Self { pointers: texts.iter().map(|text| text.as_ptr()).collect(), _texts: texts }
    }

    pub(crate) fn len(&self) -> usize {
        self.pointers.len()
    }

    /// NULL if there are none.
    pub(crate) fn as_ptr(&self) -> *const *const c_char {
        if self.pointers.is_empty() { ptr::null() } else { self.pointers.as_ptr() }
    }
}

/// Runs an exported function's work: what fails is remembered, what panics is a status.
pub(crate) fn boundary(body: impl FnOnce(&Caller) -> Result<()>) -> luna_status {
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&Caller(PhantomData))));
    let failure = match outcome {
        Ok(Ok(())) => return luna_status::Ok,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
            let error = Error::new(ErrorKind::Internal, format!("Luna met a fault of its own: {text}"));
            error.remedy("please report it, with what was called").into()
        }
    };
    remember(failure)
}

/// A type of which any bytes are a value, all zeros among them. Pointers in it are followed by [`Caller`] only.
///
/// # Safety
/// That must be so, and it must be `repr(C)` or a primitive.
pub(crate) unsafe trait Plain: Copy {}

/// A struct of the header that begins with its own size.
///
/// # Safety
/// As [`Plain`], and its first field must be a `usize`.
pub(crate) unsafe trait Record: Plain {}

macro_rules! plain {
    ($($name:ty),* $(,)?) => {$(
        // SAFETY: numbers and raw pointers only.
        unsafe impl $crate::handle::Plain for $name {}
    )*};
}

/// Declares records: structs of the header in `repr(C)`, whose first field is `size: usize`, and whose others are
/// numbers, handles, raw pointers and optional functions.
macro_rules! records {
    ($($name:ty),* $(,)?) => {$(
        const _: () = assert!(std::mem::offset_of!($name, size) == 0);
        // SAFETY: numbers, handles, raw pointers and optional functions only.
        unsafe impl $crate::handle::Plain for $name {}
        // SAFETY: its size stands first.
        unsafe impl $crate::handle::Record for $name {}
    )*};
}

pub(crate) use {plain, records};

plain!(u8, i32, u32, i64, u64, usize, *const c_char);

/// The caller of an exported function, who vouches for the pointers that came with the call.
pub(crate) struct Caller(PhantomData<*const ()>);

impl Caller {
    /// Options; NULL stands for zeros, and so do fields that the caller's header does not have yet.
    pub(crate) fn options<T: Record>(&self, source: *const T) -> Result<T> {
        // SAFETY: zeros are a value of every record.
        let mut record: T = unsafe { mem::zeroed() };
        if source.is_null() {
            return Ok(record);
        }
        check_aligned(source, type_name::<T>())?;
        // SAFETY: the caller vouches for the record, whose first field is its size.
        let size = unsafe { source.cast::<usize>().read() };
        check_size::<T>(size)?;
        let known = size.min(size_of::<T>());
        // SAFETY: the caller vouches for `size` bytes; the record has at least `known`.
        unsafe { ptr::copy_nonoverlapping(source.cast::<u8>(), (&raw mut record).cast::<u8>(), known) };
        // SAFETY: as above.
        let rest = unsafe { slice::from_raw_parts(source.cast::<u8>().add(known), size - known) };
        if rest.iter().any(|&byte| byte != 0) {
            return Err(Error::new(ErrorKind::Unsupported, "an option is set that this library does not know")
                .expected(format!("a {} of {} bytes", type_name::<T>(), size_of::<T>()))
                .found(format!("{size} bytes"))
                .remedy("use a library at least as new as the header")
                .into());
        }
        Ok(record)
    }

    /// A place for facts, as many of them as the caller's header knows; NULL if it wants none.
    pub(crate) fn report<T: Record>(&self, target: *mut T) -> Result<Report<'_, T>> {
        let mut size = 0;
        if !target.is_null() {
            check_aligned(target, type_name::<T>())?;
            // SAFETY: the caller vouches for the record, whose first field is its size.
            size = unsafe { target.cast::<usize>().read() };
            check_size::<T>(size)?;
        }
        Ok(Report { target, size, caller: PhantomData })
    }

    /// A place for a result.
    pub(crate) fn output<T: Plain>(&self, what: &str, target: *mut T) -> Result<Place<'_, T>> {
        check_pointer(target, what)?;
        Ok(Place { target, caller: PhantomData })
    }

    /// Places for results.
    pub(crate) fn outputs<T: Plain>(&self, what: &str, target: *mut T, count: usize) -> Result<Vec<Place<'_, T>>> {
        check_count::<T>(what, count)?;
        (0..count).map(|index| self.output(what, target.wrapping_add(index))).collect()
    }

    /// A value that has to be there.
    pub(crate) fn value<T: Plain>(&self, what: &str, source: *const T) -> Result<T> {
        check_pointer(source, what)?;
        // SAFETY: the caller vouches for it, and any bytes are a value.
        Ok(unsafe { source.read() })
    }

    /// Values side by side; none may be NULL.
    pub(crate) fn slice<'a, T: Plain>(&'a self, what: &str, source: *const T, count: usize) -> Result<&'a [T]> {
        if count == 0 {
            return Ok(&[]);
        }
        check_pointer(source, what)?;
        check_count::<T>(what, count)?;
        // SAFETY: the caller vouches for them while the call runs, and any bytes are a value.
        Ok(unsafe { slice::from_raw_parts(source, count) })
    }

    /// The bytes from `before` bytes before `data` to `after` behind it.
    pub(crate) fn memory(&self, data: *const c_void, before: usize, after: usize) -> Result<&[u8]> {
        let bytes = before.checked_add(after).filter(|&bytes| bytes <= isize::MAX as usize);
        let bytes = bytes.ok_or_else(|| wrong("an array is larger than any memory"))?;
        // SAFETY: the caller vouches for all that its shape and strides reach.
        Ok(unsafe { slice::from_raw_parts(data.cast::<u8>().wrapping_sub(before), bytes) })
    }

    /// A text that has to be there.
    pub(crate) fn text<'a>(&'a self, what: &str, source: *const c_char) -> Result<&'a str> {
        check_pointer(source, what)?;
        // SAFETY: the caller vouches for a text that ends with NUL.
        let text = unsafe { CStr::from_ptr(source) };
        text.to_str().map_err(|_| wrong(format!("{what} is not UTF-8")).into())
    }

    /// A text; NULL for none.
    pub(crate) fn optional_text<'a>(&'a self, what: &str, source: *const c_char) -> Result<Option<&'a str>> {
        if source.is_null() { Ok(None) } else { self.text(what, source).map(Some) }
    }

    /// A path; NULL for none.
    pub(crate) fn optional_path(&self, what: &str, source: *const c_char) -> Result<Option<PathBuf>> {
        Ok(self.optional_text(what, source)?.map(PathBuf::from))
    }

    /// Texts side by side.
    pub(crate) fn texts<'a>(&'a self, what: &str, source: *const *const c_char, count: usize) -> Result<Vec<&'a str>> {
        self.slice(what, source, count)?.iter().map(|&text| self.text(what, text)).collect()
    }

    /// Texts side by side, of which any may be missing; NULL for none at all.
    pub(crate) fn optional_texts<'a>(
        &'a self,
        what: &str,
        source: *const *const c_char,
        count: usize,
    ) -> Result<Vec<Option<&'a str>>> {
        if source.is_null() {
            return Ok(vec![None; count]);
        }
        self.slice(what, source, count)?.iter().map(|&text| self.optional_text(what, text)).collect()
    }

    /// A tensor of DLPack's.
    pub(crate) fn dlpack(&self, source: *const c_void) -> Result<DlTensor> {
        check_pointer(source.cast::<DlManagedTensor>(), "the DLManagedTensor")?;
        // SAFETY: the caller vouches for a DLManagedTensor, which begins with the tensor.
        Ok(unsafe { source.cast::<DlTensor>().read() })
    }
}

/// The elements of an array as f32, where they are aligned.
pub(crate) fn as_floats(bytes: &[u8]) -> Option<&[f32]> {
    // SAFETY: any four bytes are an f32.
    let (before, floats, after) = unsafe { bytes.align_to::<f32>() };
    (before.is_empty() && after.is_empty()).then_some(floats)
}

fn type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    name.rsplit("::").next().unwrap_or(name)
}

fn check_aligned<T>(pointer: *const T, what: &str) -> Result<()> {
    if pointer.is_aligned() {
        return Ok(());
    }
    Err(wrong(format!("the pointer to {what} is not aligned")).expected(format!("{} bytes", align_of::<T>())).into())
}

fn check_pointer<T>(pointer: *const T, what: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(wrong(format!("{what} is NULL")).into());
    }
    check_aligned(pointer, what)
}

fn check_count<T>(what: &str, count: usize) -> Result<()> {
    if count.checked_mul(size_of::<T>()).is_some_and(|bytes| bytes <= isize::MAX as usize) {
        return Ok(());
    }
    Err(wrong(format!("there cannot be so many of {what}")).found(count.to_string()).into())
}

fn check_size<T>(size: usize) -> Result<()> {
    if (size_of::<usize>()..=MOST_RECORD_BYTES).contains(&size) {
        return Ok(());
    }
    let name = type_name::<T>();
    Err(wrong(format!("a {name} does not say its size")).remedy(format!("set `size` to sizeof({name})")).into())
}

/// A place for one result.
pub(crate) struct Place<'a, T> {
    target: *mut T,
    caller: PhantomData<&'a Caller>,
}

impl<T: Plain> Place<'_, T> {
    pub(crate) fn put(self, value: impl Into<T>) {
        // SAFETY: the caller vouches for the place, which was checked.
        unsafe { self.target.write(value.into()) };
    }
}

/// A place for facts.
pub(crate) struct Report<'a, T> {
    target: *mut T,
    size: usize,
    caller: PhantomData<&'a Caller>,
}

impl<T: Record> Report<'_, T> {
    /// Writes what the caller's header knows, zeros for what this library does not.
    pub(crate) fn put(&mut self, mut value: T) {
        if self.target.is_null() {
            return;
        }
        let known = self.size.min(size_of::<T>());
        // SAFETY: a record's first field is its size.
        unsafe { (&raw mut value).cast::<usize>().write(self.size) };
        let target = self.target.cast::<u8>();
        // SAFETY: the caller vouches for `size` bytes, of which `known` are in the value, too.
        unsafe {
            ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), target, known);
            target.add(known).write_bytes(0, self.size - known);
        }
    }
}

/// A function of the caller's with what it wants to be handed.
#[derive(Clone, Copy)]
pub(crate) struct Callback<F> {
    pub(crate) function: F,
    user_data: *mut c_void,
}

// SAFETY: the header says that callbacks are called from Luna's threads, at any time and several at once; Luna itself
// never looks at what `user_data` leads to.
unsafe impl<F: Send> Send for Callback<F> {}
// SAFETY: as above.
unsafe impl<F: Sync> Sync for Callback<F> {}

impl<F: Copy> Callback<F> {
    pub(crate) fn new(function: Option<F>, user_data: *mut c_void) -> Option<Self> {
        function.map(|function| Self { function, user_data })
    }

    pub(crate) fn user_data(&self) -> *mut c_void {
        self.user_data
    }
}

/// DLPack's DLTensor.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DlTensor {
    pub(crate) data: *mut c_void,
    pub(crate) device_type: i32,
    pub(crate) device_id: i32,
    pub(crate) rank: i32,
    pub(crate) code: u8,
    pub(crate) bits: u8,
    pub(crate) lanes: u16,
    pub(crate) shape: *mut i64,
    pub(crate) strides: *mut i64,
    pub(crate) byte_offset: u64,
}

/// DLPack's DLManagedTensor.
#[repr(C)]
struct DlManagedTensor {
    tensor: DlTensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut DlManagedTensor)>,
}

/// A tensor lent through DLPack, with a share in the memory behind it.
#[repr(C)]
struct Lent {
    managed: DlManagedTensor,
    shape: Vec<i64>,
    strides: Vec<i64>,
    owner: Arc<dyn Any + Send + Sync>,
}

/// Lends a tensor through DLPack: whoever takes the result calls its deleter.
pub(crate) fn lend(
    tensor: DlTensor,
    shape: Vec<i64>,
    strides: Vec<i64>,
    owner: Arc<dyn Any + Send + Sync>,
) -> *mut c_void {
    let managed = DlManagedTensor { tensor, context: ptr::null_mut(), deleter: Some(give_back) };
    let mut lent = Box::new(Lent { managed, shape, strides, owner });
    lent.managed.tensor.shape = lent.shape.as_mut_ptr();
    lent.managed.tensor.strides = lent.strides.as_mut_ptr();
    Box::into_raw(lent).cast()
}

/// The deleter of [`lend`].
unsafe extern "C" fn give_back(managed: *mut DlManagedTensor) {
    boundary(|_| {
        // SAFETY: it is the first field of what `lend` gave, and DLPack's deleters are called once.
        let lent = unsafe { Box::from_raw(managed.cast::<Lent>()) };
        drop(lent.owner);
        Ok::<(), Failure>(())
    });
}
