//! LoRA: files of small differences from a model's weights, stacked at will by each request. Enters: files, strengths,
//! a frozen model. Leaves: patches that a call takes along, and a report of what became of every adapter. The model is
//! never changed, and nothing is locked.

mod adapter;
mod coverage;
mod delta;
mod factor;
mod family;
mod file;
mod fit;
mod merge;
mod name;
mod pair;
mod peft;
mod rotation;
mod stack;
mod target;

pub use adapter::DoraConvention;
pub use coverage::{Applied, Coverage, FileCoverage, Unmatched, Unsupported, WrongShape};
pub use file::LoraFile;
pub use merge::{ApplyMode, MergedCopies, NotMerged, Prepared};
pub use stack::{LoraStack, ResolveOptions, Resolved, ResolvedText, StackEntry};
