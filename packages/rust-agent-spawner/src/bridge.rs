//! Tells an event loop which agents have news: one eventfd per loop, rung once per batch.
//!
//! The reactor never attaches to an interpreter: it notes the agent's number here, and the loop's
//! own thread comes and takes all numbers at once.

use crate::descriptor::Descriptor;
use rustix::event::EventfdFlags;
use rustix::fd::AsRawFd;
use std::io;
use std::sync::{Mutex, PoisonError};

/// The news of one event loop.
#[derive(Debug)]
pub struct Bridge {
    bell: Descriptor,
    news: Mutex<Vec<u64>>,
}

impl Bridge {
    /// A bridge without news.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            bell: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?.into(),
            news: Mutex::default(),
        })
    }

    /// What the loop is to watch for reading.
    pub fn descriptor(&self) -> i32 {
        self.bell.as_raw_fd()
    }

    /// Notes that an agent has news.
    pub fn note(&self, number: u64) {
        let first = {
            let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
            news.push(number);
            news.len() == 1
        };
        if first {
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    /// Takes the numbers of all agents with news.
    pub fn take(&self) -> Vec<u64> {
        let mut count = [0_u8; 8];
        // Silenced before the list is taken: a note that comes between rings again.
        let _ = rustix::io::read(&self.bell, &mut count);
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
