//! What models compute with: a device, threads and recycled buffers. One runtime serves any number of models and calls.

use crate::{Device, Error, ErrorKind, Result, nn::Buffers};
use luna_kernels::Workspace;
use std::{num::NonZeroUsize, sync::Arc};

/// A device with its threads. Clones share both; the threads end with the last clone. They sleep when idle.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    device: Device,
    handle: candle_core::Device,
    threads: rayon::ThreadPool,
    workspace: Workspace,
    buffers: Buffers,
}

impl Runtime {
    /// The CPU with one thread for each core this process may use.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn cpu() -> Result<Self> {
        Self::new(Device::Cpu, None)
    }

    /// `device` with this number of CPU threads, or one for each core this process may use.
    ///
    /// # Errors
    /// `Device` if the device cannot be opened, `Io` if the system refuses threads.
    pub fn new(device: Device, threads: Option<NonZeroUsize>) -> Result<Self> {
        let threads = threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("luna-{index}"))
            .build()
            .map_err(|error| Error::new(ErrorKind::Io, format!("cannot start threads: {error}")).source(error))?;
        Ok(Self(Arc::new(Inner {
            device,
            handle: device.open()?,
            threads,
            workspace: Workspace::default(),
            buffers: Buffers::default(),
        })))
    }

    /// The device it was made for.
    pub fn device(&self) -> Device {
        self.0.device
    }

    /// The number of CPU threads.
    pub fn threads(&self) -> usize {
        self.0.threads.current_num_threads()
    }

    /// Runs `work` on the threads of this runtime, so that kernels divide it among them.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.threads.install(work)
    }

    pub(crate) fn handle(&self) -> &candle_core::Device {
        &self.0.handle
    }

    pub(crate) fn buffers(&self) -> &Buffers {
        &self.0.buffers
    }

    /// Measures what the CPU threads reach at most together, in f32 operations a second (a multiply-add counts as two);
    /// takes about 200 ms and 200 MB. `None` for other devices.
    pub fn measure_peak(&self) -> Option<f64> {
        const TIME: std::time::Duration = std::time::Duration::from_millis(200);
        let cx = luna_kernels::Context::new(&self.0.workspace);
        let peak = (self.device() == Device::Cpu).then(|| self.run(|| luna_kernels::peak(TIME, &cx).gflops * 1e9));
        self.trim();
        peak
    }

    /// Gives the buffers that finished calls left for the next ones back to the system.
    pub fn trim(&self) {
        self.0.workspace.trim();
        self.0.buffers.clear();
    }

    pub(crate) fn workspace(&self) -> &Workspace {
        &self.0.workspace
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Runtime({}, {} threads)", self.device(), self.threads())
    }
}
