//! Files and folders of the kernel's own (proc(5), cgroups(7)), read in one go.
//!
//! They are answered from memory and never wait for a disk, so a caller may keep the interpreter
//! meanwhile: giving it away and getting it back takes a thread switch for each system call.

use crate::own_pid::own_pid;
use rustix::fs::{Mode, OFlags};
use std::path::Path;

/// The first 8 KiB of a file; `None` for one that cannot be read.
pub fn read(path: &Path) -> Option<Vec<u8>> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut page = vec![0_u8; 8192];
    let mut read = 0;
    while read < page.len() {
        match rustix::io::read(&file, &mut page[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    page.truncate(read);
    Some(page)
}

/// How many entries a folder has; `None` for one that cannot be read.
pub fn count_entries(path: &Path) -> Option<usize> {
    Some(std::fs::read_dir(path).ok()?.count())
}

/// Whether /proc shows the processes of our own pid namespace; its numbers mean nothing otherwise.
pub fn shows_own_processes() -> bool {
    let link = std::fs::read_link("/proc/self");
    let pid = link.ok().and_then(|link| link.to_str()?.parse().ok());
    pid == Some(own_pid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_processes_are_shown() {
        assert!(shows_own_processes());
    }

    #[test]
    fn what_is_there_is_read_and_what_is_not_is_told() {
        let stat = read(Path::new("/proc/self/stat")).expect("procfs is mounted");
        assert!(stat.starts_with(std::process::id().to_string().as_bytes()));
        assert_eq!(read(Path::new("/proc/self/none")), None);
        assert_eq!(read(Path::new("/proc/self")), None);
        assert!(count_entries(Path::new("/proc/self/fd")).is_some_and(|count| count > 2));
        assert_eq!(count_entries(Path::new("/proc/self/none")), None);
    }
}
