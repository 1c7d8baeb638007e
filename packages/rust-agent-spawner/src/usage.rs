//! What a process tree uses at this moment, read from /proc.

use crate::process_stat::{Stat, open_files};
use crate::process_table::{Process, Table};
use std::collections::HashMap;
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
        usage.add(&Stat::read(pid), open_files(pid));
    });
    usage
}

/// Usage of all descendants of each of `leashes`, in their order.
///
/// One pass over /proc: a walk asks every thread of every process for its children, and an agent
/// CLI has a dozen threads. The memory of a process that has not run may be ten seconds old.
pub fn of_trees(leashes: &[i32]) -> Vec<Usage> {
    let mut usages = vec![Usage::default(); leashes.len()];
    survey(leashes, |at, pid, process| {
        if pid != leashes[at] {
            usages[at].add(&process.stat, process.open_files(pid));
        }
    });
    usages
}

/// Calls `each` with every leash and everybody under it, and the leash's place in the list.
fn survey(leashes: &[i32], mut each: impl FnMut(usize, i32, &Process)) {
    // 0 is the leash of an agent that has none (any more), and the parent of the first process.
    let roots: HashMap<i32, usize> = leashes
        .iter()
        .copied()
        .zip(0..)
        .filter(|(leash, _)| *leash > 0)
        .collect();
    Table::look(|table| {
        let mut owners: HashMap<i32, Option<usize>> = HashMap::with_capacity(table.len());
        for (leash, at) in &roots {
            if table.contains_key(leash) {
                owners.insert(*leash, Some(*at));
            }
        }
        for (pid, process) in table {
            if let Some(at) = owner(*pid, table, &mut owners) {
                each(at, *pid, process);
            }
        }
    });
}

/// Under which leash a process is; what is found out on the way is remembered.
fn owner(
    pid: i32,
    table: &HashMap<i32, Process>,
    known: &mut HashMap<i32, Option<usize>>,
) -> Option<usize> {
    let mut path = Vec::new();
    let mut at = pid;
    let found = loop {
        if let Some(found) = known.get(&at) {
            break *found;
        }
        path.push(at);
        // A table that was read while processes came and went may hold a circle.
        match table.get(&at).map(|process| process.stat.parent) {
            Some(parent) if path.len() <= table.len() => at = parent,
            _ => break None,
        }
    };
    known.extend(path.into_iter().map(|pid| (pid, found)));
    found
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

/// Below so many trees, walking each costs less than reading all of /proc.
const FEW: usize = 8;

/// The size of everything under each of `leashes`, in their order.
pub fn sizes_of_trees(leashes: &[i32]) -> Vec<Size> {
    let mut sizes = vec![(Size::default(), 0); leashes.len()];
    let mut add = |at: usize, pid: i32, stat: &Stat| {
        let (size, ticks): &mut (Size, u64) = &mut sizes[at];
        // Orphans are reaped by the leash, so what they used is told by its fields of children.
        *ticks += stat.reaped_ticks;
        if pid != leashes[at] {
            *ticks += stat.own_ticks;
            size.processes += 1;
            size.rss += stat.rss();
        }
    };
    if leashes.len() < FEW {
        for (at, leash) in leashes.iter().enumerate().filter(|(_, leash)| **leash > 0) {
            add(at, *leash, &Stat::read(*leash));
            visit(*leash, |pid| add(at, pid, &Stat::read(pid)));
        }
    } else {
        survey(leashes, |at, pid, process| add(at, pid, &process.stat));
    }
    let told = sizes.into_iter().map(|(size, ticks)| Size {
        cpu: Duration::from_secs_f64(seconds(ticks)),
        ..size
    });
    told.collect()
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

impl Usage {
    fn add(&mut self, stat: &Stat, open_files: u64) {
        self.processes += 1;
        self.cpu_seconds += seconds(stat.own_ticks);
        self.rss += stat.rss();
        self.open_files += open_files;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    #[test]
    fn who_has_no_leash_uses_nothing() {
        assert_eq!(of_trees(&[0, -1]), [Usage::default(); 2]);
        assert_eq!(sizes_of_trees(&[0; FEW]), [Size::default(); FEW]);
    }

    #[test]
    fn one_pass_finds_what_the_walks_find() {
        let shell = |script: &str| {
            Command::new("sh")
                .args(["-c", script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("a shell starts")
        };
        let mut trees = [
            shell("sleep 20 & a=$!; sleep 20 & echo; read line; kill $a $!"),
            shell("echo; read line"),
        ];
        for tree in &mut trees {
            let out = tree.stdout.as_mut().expect("piped");
            out.read_exact(&mut [0]).expect("it runs");
        }
        let roots = trees
            .each_ref()
            .map(|tree| i32::try_from(tree.id()).expect("a pid"));
        let wanted = roots.map(|root| of_tree(root).processes);
        let found: Vec<u64> = of_trees(&roots)
            .iter()
            .map(|usage| usage.processes)
            .collect();
        for tree in &mut trees {
            drop(tree.stdin.take());
            tree.wait().expect("our child");
        }
        assert_eq!(found, wanted);
        assert_eq!(found[1], 0);
    }

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
