//! What a session is opened with, and what it tells of itself, as the header has it.

use crate::call::luna_log_function;
use std::ffi::{c_char, c_void};

crate::handle::records!(luna_open_options, luna_connect_options, luna_stats);

/// Options of `luna_open`. All zeros but `size` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_open_options {
    /// `sizeof(luna_open_options)`.
    pub size: usize,
    /// Threads that compute; 0 for one for each core. They start with the first model.
    pub threads: u32,
    /// 0.
    pub reserved: u32,
    /// The most bytes of weights in memory: idle models go when another needs room. 0 for no bound.
    pub budget_bytes: u64,
    /// The device that computes, such as `cpu` or `cuda:0`; NULL for `cpu`.
    pub device: *const c_char,
    /// The folder that pictures are saved below; NULL if none are to be saved. It is made with the first job.
    pub output_folder: *const c_char,
    /// The folder that durable save jobs are kept in until they are done; NULL for none. One process at a time.
    pub spool_folder: *const c_char,
    /// Hears what is done in this session; may be NULL.
    pub log: luna_log_function,
    /// Handed to `log`.
    pub user_data: *mut c_void,
    /// Folders that LoRAs are looked up in by name, with all folders below them.
    pub lora_folders: *const *const c_char,
    /// How many there are.
    pub lora_folder_count: usize,
    /// The most bytes of LoRAs to keep in memory; 0 for 2 GiB.
    pub lora_cache_bytes: u64,
    /// The most bytes of layers merged with LoRAs; 0 for the memory that is available when the first
    /// stack is made.
    pub merged_bytes: u64,
    /// The most bytes of the first-block cache, which samplings ask for in `luna_forward_options`; 0 for 256 MiB.
    pub step_cache_bytes: u64,
}

/// Options of `luna_connect`. All zeros but `size` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_connect_options {
    /// `sizeof(luna_connect_options)`.
    pub size: usize,
    /// Who this is: connections of one name count as one client. NULL for none.
    pub name: *const c_char,
    /// The daemon's token, where it asks for one; NULL for none.
    pub token: *const c_char,
    /// For how many milliseconds a daemon that does not answer is tried again.
    pub connect_for_ms: u32,
    /// Whether calls wait where the daemon is busy, instead of `LUNA_STATUS_BUSY`: 0 or 1.
    pub wait_when_busy: u32,
    /// Hears what is done in this session; may be NULL.
    pub log: luna_log_function,
    /// Handed to `log`.
    pub user_data: *mut c_void,
}

/// What a session holds and has done. What a daemon does not tell is 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_stats {
    /// `sizeof(luna_stats)`, set by the caller.
    pub size: usize,
    /// Models in memory.
    pub models: u64,
    /// Bytes of their weights.
    pub weight_bytes: u64,
    /// The most bytes of weights allowed.
    pub budget_bytes: u64,
    /// Bytes of memory that this process holds; 0 where the system does not tell.
    pub resident_bytes: u64,
    /// Bytes that can be allocated without swapping; 0 where the system does not tell.
    pub available_bytes: u64,
    /// Threads that compute; 0 before the first model.
    pub threads: u64,
    /// Handles of all kinds that are open in this process.
    pub handles: u64,
    /// Save jobs taken in.
    pub save_jobs: u64,
    /// Save jobs whose every picture has its fate.
    pub save_jobs_finished: u64,
    /// Pictures written.
    pub pictures_written: u64,
    /// Pictures that failed.
    pub pictures_failed: u64,
    /// LoRAs in memory.
    pub loras: u64,
    /// Bytes they take.
    pub lora_bytes: u64,
    /// Bytes of layers that are merged with LoRAs.
    pub merged_bytes: u64,
    /// Samplings in the first-block cache.
    pub step_sequences: u64,
    /// Bytes they take.
    pub step_cache_bytes: u64,
}

/// Of what is not known, nothing is told.
pub(super) const NO_STATS: luna_stats = luna_stats {
    size: 0,
    models: 0,
    weight_bytes: 0,
    budget_bytes: 0,
    resident_bytes: 0,
    available_bytes: 0,
    threads: 0,
    handles: 0,
    save_jobs: 0,
    save_jobs_finished: 0,
    pictures_written: 0,
    pictures_failed: 0,
    loras: 0,
    lora_bytes: 0,
    merged_bytes: 0,
    step_sequences: 0,
    step_cache_bytes: 0,
};
