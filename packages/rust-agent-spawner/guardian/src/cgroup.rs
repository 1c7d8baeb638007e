//! The agent's own cgroup, where the operator gave us a place for one: the kernel ends all of it at
//! once, and keeps limits that no process can step around.

use crate::sys::birth::write_file;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use vespera_guardian::{Breach, INHERIT, Limits};

/// A cgroup2 directory that this leash made and removes.
pub struct Cgroup {
    path: String,
    door: CString,
}

impl Cgroup {
    /// Makes the cgroup and sets its limits.
    ///
    /// # Errors
    /// The errno; nothing is left then.
    pub fn make(path: &[u8], limits: &Limits) -> Result<Self, i32> {
        let path = String::from_utf8(path.to_vec()).map_err(|_| libc::EINVAL)?;
        let door = CString::new(format!("{path}/cgroup.procs")).map_err(|_| libc::EINVAL)?;
        fs::create_dir(&path).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
        let cgroup = Self { path, door };
        match cgroup.limit(limits) {
            Ok(()) => Ok(cgroup),
            Err(errno) => {
                cgroup.remove();
                Err(errno)
            }
        }
    }

    /// The file that a process writes 0 to in order to come in.
    pub fn door(&self) -> *const libc::c_char {
        self.door.as_ptr()
    }

    /// Ends everybody inside; kernels before 5.14 refuse, and the loop over children remains.
    pub fn kill(&self) {
        let _ = self.write("cgroup.kill", "1");
    }

    /// Which limits the kernel enforced so far.
    pub fn breach(&self) -> Breach {
        Breach {
            memory: self.count("memory.events", "oom_kill") > 0,
            processes: self.count("pids.events", "max") > 0,
        }
    }

    /// Only an empty cgroup can be removed; its last process may still be on its way out.
    pub fn remove(&self) {
        remove_groups(Path::new(&self.path));
    }

    fn limit(&self, limits: &Limits) -> Result<(), i32> {
        if limits.memory != INHERIT {
            self.write("memory.max", &limits.memory.to_string())?;
            // Absent without a swap controller; then there is nothing to escape to.
            let _ = self.write("memory.swap.max", "0");
            // One agent is one thing: a tree that lost an arbitrary part is of no use.
            let _ = self.write("memory.oom.group", "1");
        }
        if limits.processes != INHERIT {
            self.write("pids.max", &limits.processes.to_string())?;
        }
        Ok(())
    }

    fn write(&self, file: &str, text: &str) -> Result<(), i32> {
        let path = CString::new(format!("{}/{file}", self.path)).map_err(|_| libc::EINVAL)?;
        write_file(&path, text.as_bytes())
    }

    fn count(&self, file: &str, key: &str) -> u64 {
        fs::read_to_string(format!("{}/{file}", self.path))
            .ok()
            .and_then(|text| {
                text.lines()
                    .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
            })
            .unwrap_or(0)
    }
}

/// A cgroup and those that its processes made in it, the innermost first.
fn remove_groups(path: &Path) {
    // The entries' names are kept, not the open directory: who goes down needs no descriptors.
    let inner: Vec<PathBuf> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    for group in &inner {
        remove_groups(group);
    }
    let _ = fs::remove_dir(path);
}
