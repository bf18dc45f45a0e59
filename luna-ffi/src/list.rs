//! Lists. Enters: facts as rooms of this crate hold them. Leaves: one after the other as the header has them. Texts in
//! them live as long as the list.

use crate::{
    error::{Failure, Result, wrong},
    handle::{Caller, Record, boundary, free, object},
    status::luna_status,
    table::{self, Object},
    types::luna_list,
};
use luna_core::{Error, ErrorKind};
use std::{any::Any, sync::Arc};

/// Facts that a list holds, and their form in the header.
pub(crate) trait Item: Any + Send + Sync {
    /// The struct of the header.
    type Record: Record;

    /// Its form in the header; texts are those of this item.
    fn record(&self) -> Self::Record;
}

/// The object behind `luna_list`.
pub(crate) struct List {
    count: usize,
    /// A `Vec` of items.
    items: Box<dyn Any + Send + Sync>,
    what: &'static str,
}

impl Object for List {
    const NAME: &'static str = "luna_list";
}

/// Gives a handle to a list of these.
pub(crate) fn open<I: Item>(items: Vec<I>) -> luna_list {
    let what = std::any::type_name::<I::Record>();
    let what = what.rsplit("::").next().unwrap_or(what);
    table::insert(List { count: items.len(), items: Box::new(items), what }).into()
}

/// Writes one item of a list into its place.
pub(crate) fn item<I: Item>(caller: &Caller, list: luna_list, index: usize, target: *mut I::Record) -> Result<()> {
    caller.output("item", target)?;
    let mut place = caller.report(target)?;
    let list: Arc<List> = object(list)?;
    let Some(items) = list.items.downcast_ref::<Vec<I>>() else {
        let wanted = std::any::type_name::<I::Record>();
        return Err(wrong("the list holds something else")
            .expected(format!("a list of {}", wanted.rsplit("::").next().unwrap_or(wanted)))
            .found(format!("a list of {}", list.what))
            .into());
    };
    let item = items.get(index).ok_or_else(|| -> Failure {
        Error::new(ErrorKind::NotFound, "the list is not as long")
            .expected(format!("an index below {}", list.count))
            .found(index.to_string())
            .into()
    })?;
    place.put(item.record());
    Ok(())
}

/// How many there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_count(list: luna_list, count: *mut usize) -> luna_status {
    boundary(|caller| {
        let place = caller.output("count", count)?;
        place.put(object::<List>(list)?.count);
        Ok(())
    })
}

/// Frees a list and all texts in it.
#[unsafe(no_mangle)]
pub extern "C" fn luna_list_free(list: luna_list) -> luna_status {
    free::<List>(list)
}
