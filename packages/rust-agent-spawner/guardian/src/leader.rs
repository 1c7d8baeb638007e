//! Starts the leader: the agent program itself, as a child of the leash.
//!
//! Everything is prepared before the child exists. The child shares the leash's memory until it
//! execs (vfork), so it only makes system calls and writes down where it failed.

use crate::cgroup::Cgroup;
use crate::sys::birth::{self, OomScore};
use crate::sys::{self, children};
use vespera_guardian::{INHERIT, Limits, Spawn, Stage};

/// From SIGXCPU to SIGKILL.
const CPU_SLACK_SECONDS: u64 = 2;

/// Starts `request`, as [`Spawn::decode`] gave it, with the given stdin, stdout and stderr: each of its
/// texts has a NUL behind it, and there are as many as it counts.
///
/// # Errors
/// The errno and the step that failed.
pub fn start(
    request: &Spawn<'_>,
    cgroup: Option<&Cgroup>,
    stdio: [i32; 3],
    oom_score: &OomScore,
    leash: i32,
) -> Result<i32, (i32, Stage)> {
    let (lists, envp) = birth::lists_of(request);
    let mut child = Child {
        program: request.program.as_ptr().cast(),
        directory: request.directory.as_ptr().cast(),
        argv: lists.as_ptr(),
        envp: lists[envp..].as_ptr(),
        stdio,
        cgroup: cgroup.map(Cgroup::door),
        limits: request.limits,
        umask: request.umask,
        leash,
        failure: None,
    };
    let pid = oom_score
        .raised(|| sys::vfork_into(run, &mut child))
        .map_err(|errno| (errno, Stage::Fork))?;
    match child.failure {
        None => Ok(pid),
        Some(failure) => {
            children::reap(pid);
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
    cgroup: Option<*const libc::c_char>,
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
    birth::reset_signals();
    if !birth::new_session() {
        return (sys::errno(), Stage::Session);
    }
    for (place, fd) in (0..).zip(child.stdio) {
        if !birth::place_fd(fd, place) {
            return (sys::errno(), Stage::Stdio);
        }
    }
    // SIGXCPU says why before SIGKILL follows; the others have no second step.
    let limits = &child.limits;
    for (resource, value, slack) in [
        (libc::RLIMIT_NOFILE, limits.open_files, 0),
        (libc::RLIMIT_CPU, limits.cpu_seconds, CPU_SLACK_SECONDS),
        (libc::RLIMIT_FSIZE, limits.file_size, 0),
    ] {
        if value != INHERIT && !birth::limit(resource, value, slack) {
            return (sys::errno(), Stage::Limits);
        }
    }
    if limits.nice != INHERIT && !birth::renice(limits.nice) {
        return (sys::errno(), Stage::Limits);
    }
    if let Some(door) = child.cgroup {
        // SAFETY: the leash's C string, live until this process has exec'd or exited.
        let door = unsafe { std::ffi::CStr::from_ptr(door) };
        if let Err(errno) = birth::write_file(door, b"0") {
            return (errno, Stage::Cgroup);
        }
    }
    birth::give_way_no_more();
    birth::set_umask(child.umask);
    // Armed late and checked once: a leash that died before this line could not be noticed.
    birth::die_with_parent();
    if sys::parent() != child.leash {
        return (libc::ESRCH, Stage::Session);
    }
    if !birth::change_directory(child.directory) {
        return (sys::errno(), Stage::WorkingDirectory);
    }
    sys::close_from(3);
    birth::execute(child.program, child.argv, child.envp);
    (sys::errno(), Stage::Exec)
}
