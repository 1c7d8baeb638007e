//! What a process tree uses at this moment, read from /proc.

use std::fs;
use std::time::Duration;

/// Sums over a leader and everything under it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Resident memory in bytes; pages that processes share count once per process.
    pub rss: u64,
    pub cpu_seconds: f64,
    pub processes: u64,
    pub open_files: u64,
}

/// Usage of all descendants of `leash`; a process that vanishes meanwhile counts as far as read.
pub fn of_tree(leash: i32) -> Usage {
    let mut usage = Usage::default();
    visit(leash, |pid| {
        usage.processes += 1;
        add(&mut usage, pid);
    });
    usage
}

/// What a limit needs to know of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Resident bytes; pages that processes share count once per process.
    pub rss: u64,
    pub processes: u64,
    /// Of everybody who lives or was reaped.
    pub cpu: Duration,
}

/// The size of everything under `leash`.
pub fn size_of_tree(leash: i32) -> Size {
    let mut size = Size::default();
    // Orphans are reaped by the leash, so what they used is told by its fields of children.
    let mut ticks = Stat::read(leash).reaped_ticks();
    visit(leash, |pid| {
        let stat = Stat::read(pid);
        size.processes += 1;
        size.rss += stat.rss();
        ticks += stat.own_ticks() + stat.reaped_ticks();
    });
    size.cpu = Duration::from_secs_f64(seconds(ticks));
    size
}

/// The fields of proc_pid_stat(5) by their numbers there; zeros of a process that is gone.
struct Stat(Vec<u64>);

impl Stat {
    fn read(pid: i32) -> Self {
        // The name in field 2 may hold spaces and parentheses: count from its last one.
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        Self(text.rsplit_once(')').map_or(Vec::new(), |(_, rest)| {
            rest.split_ascii_whitespace()
                .map(|word| word.parse().unwrap_or(0))
                .collect()
        }))
    }

    fn field(&self, number: usize) -> u64 {
        self.0.get(number - 3).copied().unwrap_or(0)
    }

    fn own_ticks(&self) -> u64 {
        self.field(14) + self.field(15)
    }

    fn reaped_ticks(&self) -> u64 {
        self.field(16) + self.field(17)
    }

    fn rss(&self) -> u64 {
        self.field(24) * rustix::param::page_size() as u64
    }
}

#[allow(clippy::cast_precision_loss, reason = "centuries fit")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

fn visit(leash: i32, mut each: impl FnMut(i32)) {
    let mut pending = children(leash);
    while let Some(pid) = pending.pop() {
        pending.extend(children(pid));
        each(pid);
    }
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .filter_map(Result::ok)
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            text.split_ascii_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect::<Vec<i32>>()
        })
        .collect()
}

fn add(usage: &mut Usage, pid: i32) {
    let stat = Stat::read(pid);
    usage.cpu_seconds += seconds(stat.own_ticks());
    usage.rss += stat.rss();
    usage.open_files +=
        fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    #[test]
    fn a_child_of_ours_is_counted() {
        let mut child = Command::new("sleep")
            .arg("20")
            .stdin(Stdio::null())
            .spawn()
            .expect("sleep starts");
        // The kernel counts pages in batches: a process this small can read 0 for a moment.
        let deadline = Instant::now() + Duration::from_secs(10);
        let own = i32::try_from(std::process::id()).expect("a pid");
        let mut usage = of_tree(own);
        while usage.rss == 0 && Instant::now() < deadline {
            std::thread::yield_now();
            usage = of_tree(own);
        }
        child.kill().expect("our child");
        child.wait().expect("our child");
        assert!(usage.processes >= 1, "{usage:?}");
        assert!(usage.rss > 0 && usage.open_files > 0, "{usage:?}");
    }
}
