//! What a process tree uses at this moment, read from /proc.

use std::fs;

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

/// Resident bytes and processes under `leash`: what a limit needs to know, and cheap to read.
pub fn size_of_tree(leash: i32) -> (u64, u64) {
    let (mut pages, mut processes) = (0, 0);
    visit(leash, |pid| {
        processes += 1;
        // proc_pid_statm(5): the second field is the resident set.
        pages += fs::read_to_string(format!("/proc/{pid}/statm"))
            .ok()
            .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok())
            .unwrap_or(0);
    });
    (pages * rustix::param::page_size() as u64, processes)
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
    // The name in field 2 may hold spaces and parentheses: count from its last one.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| {
        rest.split_ascii_whitespace().collect()
    });
    let field = |number: usize| {
        fields
            .get(number - 3)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let ticks = rustix::param::clock_ticks_per_second();
    #[allow(clippy::cast_precision_loss)]
    {
        usage.cpu_seconds += (field(14) + field(15)) as f64 / ticks as f64;
    }
    usage.rss += field(24) * rustix::param::page_size() as u64;
    usage.open_files +=
        fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

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
