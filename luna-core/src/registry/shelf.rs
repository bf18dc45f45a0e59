//! The models a registry holds and which of them goes next. Pure bookkeeping: it loads nothing and waits for nobody.

use std::{
    any::Any,
    collections::{HashMap, HashSet},
    hash::Hash,
    path::{Path, PathBuf},
    sync::Arc,
};

type Shared = Arc<dyn Any + Send + Sync>;

pub(super) struct Shelf<K> {
    items: HashMap<K, Item>,
    loading: HashSet<K>,
    clock: u64,
}

pub(super) struct Item {
    pub(super) model: Shared,
    pub(super) bytes: u64,
    pub(super) path: PathBuf,
    pub(super) pinned: bool,
    last_used: u64,
}

/// What a caller that wants a model is to do.
pub(super) enum Claim {
    /// Take it.
    Ready(Shared),
    /// Wait for the one who loads it.
    Loading,
    /// Load it: everybody else waits.
    Yours,
}

impl<K> Default for Shelf<K> {
    fn default() -> Self {
        Self { items: HashMap::new(), loading: HashSet::new(), clock: 0 }
    }
}

impl<K: Copy + Eq + Hash> Shelf<K> {
    pub(super) fn claim(&mut self, key: K) -> Claim {
        self.clock += 1;
        match self.items.get_mut(&key) {
            Some(item) => {
                item.last_used = self.clock;
                Claim::Ready(item.model.clone())
            }
            None if self.loading.insert(key) => Claim::Yours,
            None => Claim::Loading,
        }
    }

    /// Ends a claim, whether or not the model was put.
    pub(super) fn abandon(&mut self, key: K) {
        self.loading.remove(&key);
    }

    pub(super) fn put(&mut self, key: K, model: Shared, bytes: u64, path: &Path) {
        self.clock += 1;
        self.items.insert(key, Item { model, bytes, path: path.to_owned(), pinned: false, last_used: self.clock });
    }

    /// Takes out the idle model that was used least recently.
    pub(super) fn evict(&mut self) -> Option<Shared> {
        let idle = self.items.iter().filter(|(_, item)| !item.pinned && Arc::strong_count(&item.model) == 1);
        let key = *idle.min_by_key(|(_, item)| item.last_used)?.0;
        self.items.remove(&key).map(|item| item.model)
    }

    pub(super) fn remove(&mut self, matches: impl Fn(&K) -> bool) -> Vec<Shared> {
        self.items.extract_if(|key, _| matches(key)).map(|(_, item)| item.model).collect()
    }

    pub(super) fn pin(&mut self, matches: impl Fn(&K) -> bool, pinned: bool) -> bool {
        let mut found = false;
        for (_, item) in self.items.iter_mut().filter(|(key, _)| matches(key)) {
            (item.pinned, found) = (pinned, true);
        }
        found
    }

    pub(super) fn bytes(&self) -> u64 {
        self.items.values().map(|item| item.bytes).sum()
    }

    /// Least recently used first.
    pub(super) fn items(&self) -> Vec<(&K, &Item)> {
        let mut items: Vec<_> = self.items.iter().collect();
        items.sort_by_key(|(_, item)| item.last_used);
        items
    }
}
