//! All processes at one moment, more or less. Who has not run since the last look is not read
//! again: an agent waits for its model most of its time, and its tools' parents wait for them.
//!
//! A process's CPU clock tells whether it has run, in nanoseconds, for a twentieth of what reading
//! its files costs (docs/decisions/0021).

use crate::kernel_files::shows_own_processes;
use crate::own_pid::own_pid;
use crate::process_stat::{self, Stat};
use std::cell::Cell;
use std::collections::HashMap;
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// For how long what was read is good at most: memory shrinks without its owner (reclaim, swap).
const GOOD_FOR: Duration = Duration::from_secs(10);

/// One process as it was when it had run last.
#[derive(Debug)]
pub(crate) struct Process {
    pub stat: Stat,
    /// Read before all else: what changes while the rest is read is seen the next time.
    clock: Option<u64>,
    /// The period of its own in which it was read.
    period: u64,
    read_now: bool,
    was_there: bool,
    open_files: Cell<Option<u64>>,
}

impl Process {
    /// A process as it is now; `None` if it is gone.
    fn of(pid: i32, before: Option<Self>, clock: Option<u64>, period: u64) -> Option<Self> {
        if let Some(known) = before.as_ref()
            && clock.is_some()
            && (known.clock, known.period) == (clock, period)
        {
            return before.map(|known| Self {
                read_now: false,
                was_there: true,
                ..known
            });
        }
        let stat = Stat::read(pid);
        stat.is_there().then(|| Self {
            stat,
            clock,
            period,
            read_now: true,
            was_there: before.is_some_and(|known| known.stat.is_same_process(&stat)),
            open_files: Cell::new(None),
        })
    }

    /// Asked for only when wanted, which is rarer than the rest.
    pub(crate) fn open_files(&self, pid: i32) -> u64 {
        self.open_files.get().unwrap_or_else(|| {
            let count = process_stat::open_files(pid);
            self.open_files.set(Some(count));
            count
        })
    }
}

/// Everybody, as of the last look.
#[derive(Debug)]
pub(crate) struct Table {
    processes: HashMap<i32, Process>,
    host: u32,
    since: Instant,
}

/// Between two looks. Whoever looks takes it out: nobody waits for another's look, and a fork
/// meanwhile leaves the child no lock that nobody opens.
static KEPT: Mutex<Option<Table>> = Mutex::new(None);

impl Table {
    /// Calls `with` with everybody who is there now.
    pub(crate) fn look<T>(with: impl FnOnce(&HashMap<i32, Process>) -> T) -> T {
        let kept = KEPT.try_lock().ok().and_then(|mut kept| kept.take());
        let mut table = Self::of(own_pid(), kept);
        table.refresh(table.since.elapsed());
        let told = with(&table.processes);
        if let Ok(mut kept) = KEPT.try_lock() {
            *kept = Some(table);
        }
        told
    }

    /// A forked child starts anew: it may be in another pid namespace.
    fn of(host: u32, kept: Option<Self>) -> Self {
        kept.filter(|table| table.host == host)
            .unwrap_or_else(|| Self {
                processes: HashMap::new(),
                host,
                since: Instant::now(),
            })
    }

    /// Reads who is there, so long after the table was made.
    fn refresh(&mut self, now: Duration) {
        // Clocks are told by our own namespace's numbers.
        let has_clocks = shows_own_processes();
        let mut before = std::mem::take(&mut self.processes);
        self.processes.reserve(before.len());
        for pid in pids() {
            let clock = if has_clocks { clock(pid) } else { None };
            let found = Process::of(pid, before.remove(&pid), clock, period(pid, now));
            self.processes.extend(found.map(|process| (pid, process)));
        }
        self.ask_orphans();
    }

    /// Who has not run has another parent all the same when its own has ended.
    fn ask_orphans(&mut self) {
        let lives_on = |pid| {
            let found: Option<&Process> = self.processes.get(&pid);
            found.is_some_and(|process| process.was_there && !process.stat.has_ended())
        };
        let mut orphans = Vec::new();
        for (pid, process) in &self.processes {
            if !process.read_now && !lives_on(process.stat.parent) {
                orphans.push(*pid);
            }
        }
        for pid in orphans {
            let stat = Stat::read(pid);
            if !stat.is_there() {
                self.processes.remove(&pid);
            } else if let Some(process) = self.processes.get_mut(&pid) {
                process.stat = stat;
            }
        }
    }
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// How long a process has run, in nanoseconds; `None` where nobody tells that precisely.
fn clock(pid: i32) -> Option<u64> {
    /// CPUCLOCK_SCHED of a whole process (linux/posix-timers.h). Reading it takes no right.
    const SCHED: libc::clockid_t = 2;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes into a live local; a number that is no clock is refused.
    if unsafe { libc::clock_gettime((!pid << 3) | SCHED, &raw mut time) } != 0 {
        return None;
    }
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).ok()?);
    precise(seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).ok()?))
}

/// A clock that ticks (sandboxes have such) stands still for who runs between two ticks. One that
/// has not begun would be everybody's.
fn precise(clock: Duration) -> Option<u64> {
    let nanos = u64::try_from(clock.as_nanos()).ok()?;
    (nanos % 1000 != 0).then_some(nanos)
}

/// Each process has periods of its own, so that not everybody is due in the same look.
fn period(pid: i32, now: Duration) -> u64 {
    // Spreads neighbours: the processes of a fleet were started together.
    let shift = Duration::from_millis(617) * pid.unsigned_abs();
    (now + shift).as_secs() / GOOD_FOR.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Child, Command, Stdio};

    fn shell(script: &str) -> Child {
        Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell starts")
    }

    fn pid_of(child: &Child) -> i32 {
        i32::try_from(child.id()).expect("a pid")
    }

    /// What it says next; it has run and waits then, or is about to.
    fn said(child: &mut Child) -> String {
        let mut line = Vec::new();
        let out = child.stdout.as_mut().expect("piped");
        loop {
            let mut byte = [0];
            out.read_exact(&mut byte).expect("it runs");
            if byte == *b"\n" {
                return String::from_utf8(line).expect("text");
            }
            line.extend(byte);
        }
    }

    fn ended(mut child: Child) {
        drop(child.stdin.take());
        child.wait().expect("our child");
    }

    fn table() -> Table {
        Table::of(own_pid(), None)
    }

    impl Table {
        /// Whether a process was read in a look that is made now.
        fn reads(&mut self, pid: i32) -> bool {
            self.refresh(Duration::ZERO);
            self.processes[&pid].read_now
        }

        /// Looks until a process waits that is about to: not once, as a look may come in between.
        fn settle(&mut self, pid: i32) {
            let deadline = Instant::now() + Duration::from_secs(10);
            let mut still = 0;
            while still < 3 {
                assert!(Instant::now() < deadline, "{:?}", self.processes[&pid]);
                std::thread::sleep(Duration::from_millis(10));
                still = if self.reads(pid) { 0 } else { still + 1 };
            }
        }
    }

    #[test]
    fn who_has_run_is_read_again_and_nobody_else() {
        let mut child = shell("echo; while read line; do echo; done");
        said(&mut child);
        let (pid, mut table) = (pid_of(&child), table());
        table.settle(pid);
        for _ in 0..10 {
            let stdin = child.stdin.as_mut().expect("piped");
            stdin.write_all(b"go\n").expect("it reads");
            said(&mut child);
            // Its clock is told by when it stopped, or by the last tick.
            std::thread::sleep(Duration::from_millis(20));
            assert!(table.reads(pid));
            table.settle(pid);
        }
        ended(child);
        table.refresh(Duration::ZERO);
        assert!(!table.processes.contains_key(&pid));
    }

    #[test]
    fn who_lost_its_parent_has_another_without_running() {
        let mut child = shell("sleep 20 & echo $!; read line");
        let (pid, mut table) = (pid_of(&child), table());
        let sleeper: i32 = said(&mut child).parse().expect("a pid");
        table.settle(pid);
        table.settle(sleeper);
        assert_eq!(table.processes[&sleeper].stat.parent, pid);
        drop(child.stdin.take());
        // A zombie of ours, whose number is still in the listing.
        while !Stat::read(pid).has_ended() {
            std::thread::yield_now();
        }
        table.refresh(Duration::ZERO);
        let orphan = &table.processes[&sleeper];
        assert!(!orphan.read_now, "by its clock it has not run");
        assert_ne!(orphan.stat.parent, pid);
        // SAFETY: kill(2) touches no memory.
        unsafe { libc::kill(sleeper, libc::SIGKILL) };
        ended(child);
    }

    #[test]
    fn a_number_that_is_given_again_inherits_nothing() {
        let mut children = ["echo; read line", "echo; read line"].map(shell);
        let (pids, mut table) = (children.each_ref().map(pid_of), table());
        for child in &mut children {
            said(child);
            table.settle(pid_of(child));
        }
        let other = table.processes.remove(&pids[0]).expect("it is there");
        let own = table.processes.insert(pids[1], other);
        assert!(table.reads(pids[1]));
        assert_eq!(
            Some(table.processes[&pids[1]].stat),
            own.map(|own| own.stat)
        );
        children.into_iter().for_each(ended);
    }

    #[test]
    fn who_has_the_number_of_a_parent_is_not_the_parent() {
        let mut child = shell("sleep 20 & echo $!; read line; kill $!");
        let (pid, mut table) = (pid_of(&child), table());
        let sleeper: i32 = said(&mut child).parse().expect("a pid");
        table.settle(pid);
        table.settle(sleeper);
        let known = table.processes.get_mut(&sleeper).expect("it is there");
        known.stat.own_ticks = 999;
        let predecessor = table.processes.get_mut(&pid).expect("it is there");
        (predecessor.stat, predecessor.clock) = (Stat::default(), Some(1));
        table.refresh(Duration::ZERO);
        assert_ne!(table.processes[&sleeper].stat.own_ticks, 999);
        ended(child);
    }

    #[test]
    fn a_clock_that_tells_nothing_equals_no_other() {
        assert_eq!(precise(Duration::ZERO), None);
        assert_eq!(precise(Duration::from_millis(1240)), None);
        assert_eq!(precise(Duration::from_nanos(1_000_001)), Some(1_000_001));
        let own = own_pid().cast_signed();
        let known = Process::of(own, None, None, 7);
        assert!(Process::of(own, known, None, 7).is_some_and(|process| process.read_now));
    }

    #[test]
    fn everybody_is_read_within_the_time_but_not_at_once() {
        let second = Duration::from_secs(1);
        let due = |pid, now: u32| period(pid, second * now) != period(pid, second * (now + 1));
        for now in 0..20 {
            let count = (3000..4000).filter(|pid| due(*pid, now)).count();
            assert!((90..=110).contains(&count), "{count}");
        }
        let mut child = shell("echo; read line");
        said(&mut child);
        let (pid, mut table) = (pid_of(&child), table());
        table.settle(pid);
        table.refresh(GOOD_FOR);
        assert!(table.processes[&pid].read_now);
        ended(child);
    }

    #[test]
    fn a_forked_child_starts_without_and_nobody_waits_for_another() {
        let mut used = table();
        used.refresh(Duration::ZERO);
        let other = used.host + 1;
        assert!(Table::of(other, Some(used)).processes.is_empty());
        let own = own_pid().cast_signed();
        let inner = |_: &HashMap<i32, Process>| Table::look(|all| all.contains_key(&own));
        assert!(Table::look(inner));
    }
}
