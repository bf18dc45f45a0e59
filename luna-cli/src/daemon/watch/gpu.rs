//! The memory of NVIDIA GPUs, told by NVML, which is loaded where there is one. Enters: nothing. Leaves: bytes in use and in
//! all, by GPU. Where there is no driver there is nothing to tell, which is no error.

use nvml_wrapper::Nvml;
use serde::Serialize;

/// A GPU's memory at a moment, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuSnapshot {
    /// As the driver counts them.
    pub index: u32,
    pub name: String,
    /// By all processes.
    pub used: u64,
    pub free: u64,
    pub total: u64,
}

/// The GPUs of this machine.
pub struct Gpus(Option<Nvml>);

impl Gpus {
    /// Loads the driver's library, if there is one.
    pub fn find() -> Self {
        match Nvml::init() {
            Ok(nvml) => Self(Some(nvml)),
            Err(error) => {
                tracing::debug!(%error, "no NVIDIA GPU is watched");
                Self(None)
            }
        }
    }

    /// All that answer.
    pub fn snapshots(&self) -> Vec<GpuSnapshot> {
        let Some(nvml) = &self.0 else { return Vec::new() };
        let snapshot = |index| {
            let device = nvml.device_by_index(index).ok()?;
            let memory = device.memory_info().ok()?;
            let name = device.name().unwrap_or_else(|_| "NVIDIA GPU".to_owned());
            Some(GpuSnapshot { index, name, used: memory.used, free: memory.free, total: memory.total })
        };
        (0..nvml.device_count().unwrap_or_default()).filter_map(snapshot).collect()
    }
}
