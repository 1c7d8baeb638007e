//! Starts the leader: the agent program itself, as a child of the leash.
//!
//! Everything is prepared before the child exists. The child shares the leash's memory until it
//! execs (vfork), so it only makes system calls and writes down where it failed.

use crate::sys;
use std::ffi::CString;
use vespera_guardian::{INHERIT, Limits, Spawn, Stage};

/// Makes the kernel's OOM killer prefer agents to guardian and host; raising needs no privilege.
const OOM_SCORE_ADJ: &[u8] = b"500";

/// Starts `request` with the given stdin, stdout and stderr.
///
/// # Errors
/// The errno and the step that failed.
pub fn start(request: &Spawn<'_>, stdio: [i32; 3]) -> Result<i32, (i32, Stage)> {
    let refuse = (libc::EINVAL, Stage::Request);
    let program = CString::new(request.program).map_err(|_| refuse)?;
    let directory = CString::new(request.directory).map_err(|_| refuse)?;
    let mut texts = request
        .strings
        .split_inclusive(|byte| *byte == 0)
        .map(<[u8]>::as_ptr)
        .map(<*const u8>::cast);
    let mut list = |length: u32| {
        let mut pointers: Vec<*const libc::c_char> = texts.by_ref().take(length as usize).collect();
        pointers.push(std::ptr::null());
        pointers
    };
    let argv = list(request.argc);
    let envp = list(request.envc);
    let mut child = Child {
        program: program.as_ptr(),
        directory: directory.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        stdio,
        limits: request.limits,
        umask: request.umask,
        leash: sys::pid(),
        failure: None,
    };
    let pid = sys::vfork_into(run, &mut child).map_err(|errno| (errno, Stage::Fork))?;
    match child.failure {
        None => Ok(pid),
        Some(failure) => {
            sys::reap(pid);
            Err(failure)
        }
    }
}

struct Child {
    program: *const libc::c_char,
    directory: *const libc::c_char,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    stdio: [i32; 3],
    limits: Limits,
    umask: u32,
    leash: i32,
    failure: Option<(i32, Stage)>,
}

extern "C" fn run(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `vfork_into` passes the `Child` that `start` keeps alive and does not touch until
    // this process has exec'd or exited.
    let child = unsafe { &mut *argument.cast::<Child>() };
    child.failure = Some(attempt(child));
    sys::exit_now(127)
}

/// Returns only with a failure.
fn attempt(child: &Child) -> (i32, Stage) {
    sys::reset_signals();
    if !sys::new_session() {
        return (sys::errno(), Stage::Session);
    }
    for (place, fd) in (0..).zip(child.stdio) {
        if !sys::place_fd(fd, place) {
            return (sys::errno(), Stage::Stdio);
        }
    }
    for (resource, value) in [
        (libc::RLIMIT_NOFILE, child.limits.open_files),
        (libc::RLIMIT_CPU, child.limits.cpu_seconds),
        (libc::RLIMIT_FSIZE, child.limits.file_size),
    ] {
        if value != INHERIT && !sys::limit(resource, value) {
            return (sys::errno(), Stage::Limits);
        }
    }
    if child.limits.nice != INHERIT && !sys::renice(child.limits.nice) {
        return (sys::errno(), Stage::Limits);
    }
    sys::write_file(c"/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    sys::set_umask(child.umask);
    // Armed late and checked once: a leash that died before this line could not be noticed.
    sys::die_with_parent();
    if sys::parent() != child.leash {
        return (libc::ESRCH, Stage::Session);
    }
    if !sys::change_directory(child.directory) {
        return (sys::errno(), Stage::WorkingDirectory);
    }
    sys::close_from(3);
    sys::execute(child.program, child.argv, child.envp);
    (sys::errno(), Stage::Exec)
}
