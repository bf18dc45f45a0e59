//! Qwen3-VL's own parts: its vision tower, how pictures become patches, and places in three directions.

mod pictures;
mod places;
mod tower;

pub(super) use pictures::PictureRules;
pub(super) use places::{places, rotary_angles};
pub(super) use tower::Tower;
