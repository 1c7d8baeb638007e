//! What /proc says of one process.

use rustix::fs::{Mode, OFlags};
use std::ffi::CStr;
use std::fs;
use std::io::Write;

/// What is wanted of proc_pid_stat(5); zeros of a process that is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    pub parent: i32,
    /// Clock ticks after boot. A pid names one process only together with it.
    start: u64,
    /// Of the process, in clock ticks.
    pub own_ticks: u64,
    /// Of its children that were waited for.
    pub reaped_ticks: u64,
    resident_pages: u64,
    has_ended: bool,
}

impl Stat {
    pub(crate) fn read(pid: i32) -> Self {
        let mut fields = [0; 22];
        let mut text = [0_u8; 1024];
        // Read at once into the stack: the file is short, and asking for its length tells nothing.
        let length = with_path(pid, "stat", |path| {
            let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::read(&file, &mut text)
        });
        let length = length.unwrap_or(0);
        // The name in field 2 may hold spaces and parentheses: count from its last one.
        let text = &text[..length];
        let from = memchr::memrchr(b')', text).map_or(length, |at| at + 1);
        let words = text[from..].split(|byte| *byte == b' ').skip(1);
        for (field, word) in fields.iter_mut().zip(words) {
            *field = number(word);
        }
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        Self {
            parent: i32::try_from(field(4)).unwrap_or(0),
            start: field(22),
            own_ticks: field(14) + field(15),
            reaped_ticks: field(16) + field(17),
            resident_pages: field(24),
            has_ended: matches!(text.get(from + 1), Some(b'Z' | b'X')),
        }
    }

    pub(crate) fn is_there(&self) -> bool {
        self.start != 0
    }

    /// Whether its children have been given to another parent.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(crate) fn is_same_process(&self, other: &Self) -> bool {
        self.start == other.start
    }

    pub(crate) fn rss(&self) -> u64 {
        self.resident_pages * rustix::param::page_size() as u64
    }
}

pub(crate) fn open_files(pid: i32) -> u64 {
    // Since Linux 6.2 the directory's size is their number; before that it is 0.
    let size = with_path(pid, "fd", |path| rustix::fs::stat(path)).map_or(0, |found| found.st_size);
    match u64::try_from(size) {
        Ok(count) if count > 0 => count,
        _ => fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64),
    }
}

/// The number that a word is; 0 for one that is none, such as a state.
fn number(word: &[u8]) -> u64 {
    word.iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |number, byte| number * 10 + u64::from(byte - b'0'))
}

/// Calls `with` with `/proc/<pid>/<name>`; thousands are looked at, so it is made on the stack.
fn with_path<T>(
    pid: i32,
    name: &str,
    with: impl FnOnce(&CStr) -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    let mut path = [0_u8; 32];
    let mut rest = &mut path[..];
    let _ = write!(rest, "/proc/{pid}/{name}");
    with(CStr::from_bytes_until_nul(&path).map_err(|_| rustix::io::Errno::INVAL)?)
}
