//! What /proc says of one process.

use rustix::fs::{Mode, OFlags};
use std::ffi::CStr;
use std::fs;
use std::io::Write;

/// What is wanted of proc_pid_stat(5); zeros of a process that is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    pub parent: i32,
    pub session: i32,
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
        let mut found = [0; 22];
        let mut text = [0_u8; 1024];
        // Read at once into the stack: the file is short, and asking for its length tells nothing.
        let length = with_path(pid, "stat", |path| {
            let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::read(&file, &mut text)
        });
        let text = &text[..length.unwrap_or(0)];
        for (number, word) in found.iter_mut().zip(fields(text)) {
            *number = self::number(word);
        }
        let field = |number: usize| found.get(number - 3).copied().unwrap_or(0);
        Self {
            parent: i32::try_from(field(4)).unwrap_or(0),
            session: i32::try_from(field(6)).unwrap_or(0),
            start: field(22),
            own_ticks: field(14) + field(15),
            reaped_ticks: field(16) + field(17),
            resident_pages: field(24),
            has_ended: matches!(fields(text).next(), Some(b"Z" | b"X")),
        }
    }

    pub(crate) fn is_there(&self) -> bool {
        self.start != 0
    }

    /// Clock ticks after boot; 0 of a process that is gone.
    pub(crate) fn start(&self) -> u64 {
        self.start
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

/// Has memory, but no place in it for an environment, not even for an empty one: between two images
/// of `execve`.
pub(crate) fn is_between_images(pid: i32) -> bool {
    let Ok(text) = fs::read(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let field = |at: usize| fields(&text).nth(at - 3).map(number);
    // What has no memory of its own (field 23, and 51 of its environment): a kernel thread, or the
    // dead.
    field(23).is_some_and(|size| size != 0) && field(51) == Some(0)
}

pub(crate) fn open_files(pid: i32) -> u64 {
    // Since Linux 6.2 the directory's size is their number; before that it is 0.
    let size = with_path(pid, "fd", |path| rustix::fs::stat(path)).map_or(0, |found| found.st_size);
    match u64::try_from(size) {
        Ok(count) if count > 0 => count,
        _ => fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64),
    }
}

/// The words of proc_pid_stat(5) from field 3 on.
fn fields(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    // The name in field 2 may hold spaces and parentheses: count from its last one.
    let from = memchr::memrchr(b')', text).map_or(text.len(), |at| at + 1);
    text[from..].trim_ascii().split(|byte| *byte == b' ')
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    #[test]
    fn a_name_may_look_like_the_fields_after_it() {
        let name = std::env::temp_dir().join(format!("{}) Z 1 2", std::process::id()));
        std::os::unix::fs::symlink("/bin/sleep", &name).expect("a link");
        let mut command = Command::new(&name);
        command.arg("20").stdin(Stdio::null());
        // SAFETY: setsid(2) may be called between fork and exec.
        unsafe {
            // Our own session may be that of a process outside our pid namespace, which is 0.
            command.pre_exec(|| Ok(rustix::process::setsid().map(|_| ())?));
        }
        let mut child = command.spawn().expect("sleep starts");
        let pid = i32::try_from(child.id()).expect("a pid");
        let stat = Stat::read(pid);
        child.kill().expect("our child");
        child.wait().expect("our child");
        fs::remove_file(&name).expect("our link");
        let own = Stat::read(i32::try_from(std::process::id()).expect("a pid"));
        assert!(stat.is_there() && !stat.has_ended());
        assert_eq!(
            stat.parent,
            i32::try_from(std::process::id()).expect("a pid")
        );
        assert_eq!(stat.session, pid);
        assert!(stat.start() >= own.start());
    }
}
