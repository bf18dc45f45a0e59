//! What handles stand for. Enters: objects. Leaves: keys, and shares in the objects for as long as their keys are not
//! freed. A key that is stale, foreign or of another type is an error and nothing worse.
//!
//! This table is the library's only state of its own; it holds no settings.

use crate::{
    error::{Failure, Result, wrong},
    status::luna_status,
};
use std::{
    any::Any,
    hash::{BuildHasher, RandomState},
    sync::{Arc, LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// What a handle consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// Which copy of the library gave it: drawn when the copy is loaded, never 0.
    pub(crate) table: u64,
    pub(crate) slot: u32,
    /// How often the slot was given before, from 1.
    pub(crate) generation: u32,
}

/// Something that a handle stands for.
pub(crate) trait Object: Any + Send + Sync {
    /// The handle's type in the header.
    const NAME: &'static str;
}

type Shared = Arc<dyn Any + Send + Sync>;

struct Slot {
    generation: u32,
    object: Option<(Shared, &'static str)>,
}

struct Slots {
    tag: u64,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

static TABLE: LazyLock<RwLock<Slots>> = LazyLock::new(|| {
    let tag = RandomState::new().hash_one(std::process::id()) | 1;
    RwLock::new(Slots { tag, slots: Vec::new(), free: Vec::new() })
});

// Every change of the table is complete when the lock is released, so a panic leaves it sound.
fn read() -> RwLockReadGuard<'static, Slots> {
    TABLE.read().unwrap_or_else(PoisonError::into_inner)
}

fn write() -> RwLockWriteGuard<'static, Slots> {
    TABLE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Takes an object in.
pub(crate) fn insert<T: Object>(object: T) -> Key {
    let object = Some((Arc::new(object) as Shared, T::NAME));
    let mut table = write();
    let slot = match table.free.pop() {
        Some(slot) => slot,
        None => {
            table.slots.push(Slot { generation: 1, object: None });
            (table.slots.len() - 1) as u32
        }
    };
    let place = &mut table.slots[slot as usize];
    place.object = object;
    Key { generation: place.generation, table: table.tag, slot }
}

/// A share in an object. It lives until the share is dropped, whoever frees the handle meanwhile.
pub(crate) fn get<T: Object>(key: Key) -> Result<Arc<T>> {
    let table = read();
    let (object, name) = table.find::<T>(key)?;
    object.clone().downcast().map_err(|_| other_type::<T>(name))
}

/// Ends a handle. The object goes with the last share in it, outside of the table's lock.
pub(crate) fn remove<T: Object>(key: Key) -> Result<Arc<T>> {
    let mut table = write();
    let (object, name) = table.find::<T>(key)?;
    let object = object.clone().downcast::<T>().map_err(|_| other_type::<T>(name))?;
    let place = &mut table.slots[key.slot as usize];
    let kept = place.object.take();
    // A slot whose numbers are used up is not given again.
    if place.generation < u32::MAX {
        place.generation += 1;
        table.free.push(key.slot);
    }
    drop(table);
    drop(kept);
    Ok(object)
}

/// How many handles are open.
pub(crate) fn count() -> usize {
    let table = read();
    table.slots.len() - table.slots.iter().filter(|slot| slot.object.is_none()).count()
}

impl Slots {
    fn find<T: Object>(&self, key: Key) -> Result<(&Shared, &'static str)> {
        if key.table != self.tag {
            let found = if key.table == 0 { "a handle that is all zero" } else { "a handle of another copy of Luna" };
            return Err(invalid::<T>("the handle was not given by this library", found));
        }
        let slot = self.slots.get(key.slot as usize);
        let given = slot.filter(|slot| slot.generation == key.generation).and_then(|slot| slot.object.as_ref());
        given
            .map(|(object, name)| (object, *name))
            .ok_or_else(|| invalid::<T>("the handle was freed", "a handle that was freed or never given"))
    }
}

fn other_type<T: Object>(found: &str) -> Failure {
    invalid::<T>("the handle is of another type", &format!("a {found}"))
}

fn invalid<T: Object>(message: &str, found: &str) -> Failure {
    let error = wrong(message)
        .expected(format!("an open {}", T::NAME))
        .found(found)
        .remedy("use a handle after it was given and before it is freed, each only once");
    Failure { status: luna_status::InvalidHandle, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Pear(u8);
    impl Object for Pear {
        const NAME: &'static str = "pear";
    }
    #[derive(Debug)]
    struct Plum;
    impl Object for Plum {
        const NAME: &'static str = "plum";
    }

    #[test]
    fn stale_foreign_and_mistaken_keys_are_refused() {
        let key = insert(Pear(7));
        let share = get::<Pear>(key).unwrap();
        let message = |result: Result<Arc<Plum>>| result.unwrap_err().error.to_string();
        assert!(message(get::<Plum>(key)).contains("found a pear"));
        assert!(message(remove::<Plum>(key)).contains("found a pear"));
        assert!(get::<Pear>(Key { table: key.table ^ 2, ..key }).is_err());
        assert!(get::<Pear>(Key { slot: u32::MAX, ..key }).is_err());
        remove::<Pear>(key).unwrap();
        assert_eq!(share.0, 7);
        let again = insert(Pear(8));
        assert_ne!(again, key);
        assert_eq!(remove::<Pear>(key).unwrap_err().status, luna_status::InvalidHandle);
        assert_eq!(remove::<Pear>(again).unwrap().0, 8);
    }
}
