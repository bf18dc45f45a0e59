//! How much memory the system has and this process holds.

use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, System};

/// Bytes that can be allocated without swapping, within the limits of a container; `None` where the system does not tell.
pub fn available() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let host = Some(system.available_memory()).filter(|&bytes| bytes > 0)?;
    Some(system.cgroup_limits().map_or(host, |limits| host.min(limits.free_memory)))
}

/// Bytes of physical memory that there are, within the limits of a container; `None` where the system does not tell.
pub fn total() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let host = Some(system.total_memory()).filter(|&bytes| bytes > 0)?;
    Some(system.cgroup_limits().map_or(host, |limits| host.min(limits.total_memory)))
}

/// Bytes of physical memory that this process holds (its resident set); `None` where the system does not tell.
pub fn resident() -> Option<u64> {
    let process = sysinfo::get_current_pid().ok()?;
    let mut system = System::new();
    let kind = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[process]), true, kind);
    system.process(process).map(sysinfo::Process::memory)
}

/// The most bytes of physical memory this process has held; `None` where the system does not tell.
pub fn peak_resident() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_holds_less_than_the_system_has() {
        let resident = super::resident().expect("known on every tested system");
        assert!(resident > 1 << 20);
        let available = super::available().expect("known on every tested system");
        let total = super::total().expect("known on every tested system");
        assert!(available > 0 && resident < total && available <= total, "{resident}, {available} of {total}");
        if let Some(peak) = super::peak_resident() {
            assert!(peak * 2 > resident, "{peak} against {resident}");
        }
    }
}
