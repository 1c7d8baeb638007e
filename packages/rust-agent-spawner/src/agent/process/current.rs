//! Which guardian this process has, and whether that still has the host's rights.

use super::super::mourning::{reap_former, wait_for};
use super::{Guardian, Moment, Sender};
use crate::diagnostics::{self, Level};
use crate::own_pid::own_pid;
use crate::rights;
use std::cell::Cell;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

static CURRENT: Mutex<Option<Arc<Guardian>>> = Mutex::new(None);

/// Where the loop starts what has waited, in a moment of its own, the rights of so long ago do: the
/// run might have started then. Who asks for an agent gets it with the rights of now.
const LOOKED_FOR: Duration = Duration::from_millis(20);

/// Who asks for an agent, and the umask that it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub by: Sender,
    pub umask: u32,
}

/// When a thread's rights were last found to be a guardian's own.
#[derive(Clone, Copy)]
struct Looked {
    at: Instant,
    guardian: libc::pid_t,
    asked: Asked,
}

thread_local! {
    static LOOKED: Cell<Option<Looked>> = const { Cell::new(None) };
}

impl Looked {
    /// What the calling thread found of that guardian, not long ago and as the same user.
    fn lately(guardian: &Guardian) -> Option<Self> {
        LOOKED.try_with(Cell::get).ok().flatten().filter(|looked| {
            looked.guardian == guardian.pid
                && looked.at.elapsed() < LOOKED_FOR
                // The kernel tells a leash whose request it is.
                && looked.asked.by == Sender::here()
        })
    }

    fn now(guardian: &Guardian, at: Instant, asked: Asked) {
        let looked = Self {
            at,
            guardian: guardian.pid,
            asked,
        };
        // A thread that is ending has no place for it.
        let _ = LOOKED.try_with(|last| last.set(Some(looked)));
    }
}

/// The guardian of this process, started at first use and again when it has died or when the
/// host's rights have changed, and who asks for it.
///
/// # Errors
/// What the system said when it could not be started.
pub fn guardian(moment: Moment) -> io::Result<(Arc<Guardian>, Asked)> {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = current.as_ref()
        && moment != 0
        && running.rights.pid == own_pid()
        && running.is_alive_in(moment)
    {
        if let Some(asked) = running.asked_in(moment) {
            return Ok((Arc::clone(running), asked));
        }
        if let Some(looked) = Looked::lately(running) {
            running.note_asked(moment, looked.asked);
            return Ok((Arc::clone(running), looked.asked));
        }
    }
    reap_former();
    let at = Instant::now();
    let (rights, umask) = rights::now();
    let asked = Asked {
        by: Sender::here(),
        umask,
    };
    if let Some(running) = current.as_ref()
        && running.rights == rights
        && running.is_alive()
    {
        running.note_asked(moment, asked);
        Looked::now(running, at, asked);
        return Ok((Arc::clone(running), asked));
    }
    let own = rights.pid;
    let started = Arc::new(Guardian::start(rights)?);
    let pid = started.pid;
    let last = current
        .replace(Arc::clone(&started))
        .filter(|last| last.rights.pid == own);
    if let Some(last) = last {
        crate::metrics::GUARDIAN_RESTARTS.add(1);
        last.retire();
        let why = if last.is_alive() {
            "the host's rights have changed"
        } else if wait_for(last.pid) == 0 {
            "the last one does not answer"
        } else {
            last.mourn_if_dead();
            "the last one died, and its agents with it"
        };
        diagnostics::note(Level::Warning, "guardian", "", || {
            format!("started again as pid {pid}: {why} (pid {})", last.pid)
        });
    } else {
        diagnostics::note(Level::Info, "guardian", "", || format!("started pid {pid}"));
    }
    Ok((started, asked))
}

/// Whether [`spawn`](super::spawn) will not wait for a guardian to start.
pub fn is_ready(moment: Moment) -> bool {
    CURRENT.try_lock().is_ok_and(|current| {
        current
            .as_ref()
            .is_some_and(|running| running.rights.pid == own_pid() && running.is_alive_in(moment))
    })
}

/// What a guardian knows of its host's present moment.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Who asked in it, when the host's rights were last found to be the guardian's own.
    asked: (Moment, Asked),
    /// When the guardian was last found alive in it.
    alive: Option<(Moment, Instant)>,
}

/// So long a guardian that was alive is taken to be: a moment in which many start asks the kernel
/// once for several of them. Who was asked of one that has died since is told so by its socket, or
/// by its leash's end, as if it had died a little later.
const ALIVE_FOR: Duration = Duration::from_millis(1);

impl Guardian {
    /// As [`Guardian::is_alive`], as it was a short time ago in the same moment.
    fn is_alive_in(&self, moment: Moment) -> bool {
        let mut checked = self.checked();
        let now = Instant::now();
        let lately = checked
            .alive
            .is_some_and(|(when, at)| when == moment && now - at < ALIVE_FOR);
        if moment != 0 && lately && !self.gone.load(Ordering::Acquire) {
            return true;
        }
        let is_alive = self.is_alive();
        checked.alive = is_alive.then_some((moment, now));
        is_alive
    }

    /// Who asked earlier in this moment, when it had the host's rights.
    fn asked_in(&self, moment: Moment) -> Option<Asked> {
        let (when, asked) = self.checked().asked;
        (when == moment).then_some(asked)
    }

    fn note_asked(&self, moment: Moment, asked: Asked) {
        self.checked().asked = (moment, asked);
    }

    fn checked(&self) -> MutexGuard<'_, Checked> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
