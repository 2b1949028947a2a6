//! The most memory that this process had at once.

/// In bytes, mapped pages included. `None` where the system does not tell.
pub fn peak() -> Option<u64> {
    system()
}

/// What getrusage says is inherited from the process before it: a shell's child would seem as large as the shell.
#[cfg(target_os = "linux")]
fn system() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(all(unix, not(target_os = "linux")))]
fn system() -> Option<u64> {
    use nix::sys::resource::{UsageWho, getrusage};
    let most = u64::try_from(getrusage(UsageWho::RUSAGE_SELF).ok()?.max_rss()).ok()?;
    // Apple counts bytes, all others kibibytes
    most.checked_mul(if cfg!(target_vendor = "apple") { 1 } else { 1024 })
}

#[cfg(not(unix))]
fn system() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn the_peak_grows_with_what_is_held() {
        let before = peak().unwrap();
        let held = std::hint::black_box(vec![1u8; 256 << 20]);
        assert!(held.iter().all(|&b| b == 1));
        let after = peak().unwrap();
        assert!(after >= 250 << 20 && after >= before, "{before}, {after}");
        drop(held);
        // what threads count is added up now and then
        assert!(peak().unwrap() >= 250 << 20);
    }
}
