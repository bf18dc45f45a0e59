//! Requests and replies of save jobs.

use super::head::is_default;
use crate::{
    files::IfExists,
    save::{Gate, Verdict},
};
use serde::{Deserialize, Serialize};

/// `save_images_async`: pictures to files below the daemon's output folder, in the background. The tensors are `image_0`,
/// `image_1`, …, `[batch, height, width, 1 or 3 or 4]`, F32 in 0..1 or U8.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaveImagesAsync {
    /// What belongs to each picture tensor; defaults for those that are not here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<SaveImageWish>,
    /// The folder as the caller knows it: it must be the daemon's output folder, or below it. The output folder if not
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Folders below it; a template without a counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// The file's name without extension, a template such as `%time:YYYY-mm-dd%_%seed%_%counter:5%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the templates may ask for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub values: SaveValues,
    /// Keys and texts that every file says about its making: `prompt` and `workflow` (JSON), `parameters`, others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<(String, String)>,
    /// An XMP packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xmp: Option<String>,
    /// What a picture must reach to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// What happens where a file of the name exists: `number`, `replace`, `refuse`; a number is added if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_exists: Option<IfExists>,
    /// Whether the job survives the daemon.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub durable: bool,
    /// The moment that `%time%` stands for, in seconds since 1970; now if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unix_seconds: Option<u64>,
    /// Minutes that the caller's clocks are ahead of UTC.
    #[serde(default, skip_serializing_if = "is_default")]
    pub utc_offset_minutes: i32,
}

/// What belongs to one picture tensor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaveImageWish {
    /// `png`, `png16`, `webp`, `webp_lossless`, `jpeg`, `avif`; `png` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Of `webp`, `jpeg` and `avif`: 0 or 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<u8>,
    /// Of `png` and `png16`: 0 to 9, as zlib counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
    /// Of `png` and `png16`: the least work that still compresses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fast: bool,
    /// A word behind the name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub affix: String,
    /// Whether it goes into a folder named like its affix.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub subfolder: bool,
}

/// What templates may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SaveValues {
    /// The model's path below its models folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_path: Option<String>,
    /// The seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// A number of the caller's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// The prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
}

/// `submit_async`: a job by the name of its kind. There is one kind, `save_images`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitAsync {
    /// What is to be done.
    pub task_name: TaskName,
    /// With what.
    pub task_data: SaveImagesAsync,
}

/// The kinds of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskName {
    /// As `save_images_async`.
    SaveImages,
}

/// The reply to `save_images_async` and `submit_async`: the job is taken in, and will be finished even if the client goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAccepted {
    /// What `job_status` and `job_cancel` take: 16 hexadecimal digits.
    pub job_id: String,
    /// Pictures in it.
    pub num_images: usize,
    /// Where they go.
    pub output: String,
}

/// `job_status`: a job as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobStatus {
    /// The job.
    pub job_id: String,
}

/// The reply to `job_status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobState {
    /// The job.
    pub job_id: String,
    /// `queued`, `writing`, `done`, `failed`, `rejected`, `cancelled`.
    pub state: String,
    /// Whether every picture has its fate.
    pub finished: bool,
    /// Whether it survives the daemon.
    pub durable: bool,
    /// Each picture, in order.
    pub pictures: Vec<PictureState>,
}

/// One picture of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PictureState {
    /// Which picture tensor.
    pub image: usize,
    /// Which of its batch.
    pub index: usize,
    /// `waiting`, `writing`, `written`, `rejected`, `failed`, `cancelled`.
    pub state: String,
    /// The file, where one was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<SavedFile>,
    /// What the gate found, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<super::Fault>,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedFile {
    /// Where it stands, on the daemon's machine.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
    /// How long it took to judge, encode and write it.
    pub milliseconds: f64,
}

/// `job_cancel`: what has not been written of a job is not written. Its reply is the job as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobCancel {
    /// The job.
    pub job_id: String,
}
