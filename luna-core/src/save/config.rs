//! Settings of a saver. Enters: nothing. Leaves: settings with defaults that suit a desktop.

use std::{fmt, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

use super::{status::SaveEvent, target::Target};
use crate::pool::Scaling;

/// Hears of what happens in a saver. Called from its threads; should return quickly.
pub type SaveListener = Arc<dyn Fn(&SaveEvent) + Send + Sync>;

/// Settings of a [`SavePool`](super::SavePool). Made by [`SaveConfig::new`]; every field may be set.
#[derive(Clone)]
#[non_exhaustive]
pub struct SaveConfig {
    /// The output folder, made if it is missing, or a prefix in an object store. No picture is written elsewhere.
    pub root: Target,
    /// Where durable jobs are kept until they are done; without it there are none. One process at a time.
    pub spool: Option<PathBuf>,
    /// Threads that judge, write and wait for the disk: 2 to 4 by default.
    pub scaling: Scaling,
    /// Threads that the encoders share; one for each core by default.
    pub encoders: Option<NonZeroUsize>,
    /// Bytes of pixels and metadata that may wait or be worked on: 2 GiB by default.
    pub queue_bytes: u64,
    /// How many finished jobs are remembered at most: 1000 by default.
    pub keep_results: usize,
    /// For how long: an hour by default.
    pub keep_results_for: Duration,
    /// Pauses before each further attempt where one can help (disk full, folder gone): three by default.
    pub retry_delays: Vec<Duration>,
    /// Hears of everything that happens.
    pub listener: Option<SaveListener>,
}

impl SaveConfig {
    /// Defaults, with this output folder or [`Target`].
    pub fn new(root: impl Into<Target>) -> Self {
        Self {
            root: root.into(),
            spool: None,
            scaling: Scaling::default(),
            encoders: None,
            queue_bytes: 2 << 30,
            keep_results: 1000,
            keep_results_for: Duration::from_secs(3600),
            retry_delays: [50, 250, 1000].map(Duration::from_millis).to_vec(),
            listener: None,
        }
    }
}

impl fmt::Debug for SaveConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaveConfig").field("root", &self.root).field("spool", &self.spool).finish_non_exhaustive()
    }
}
