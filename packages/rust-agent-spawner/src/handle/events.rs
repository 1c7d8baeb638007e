//! A caller takes the events of its session, or does not.

use super::Handle;
use crate::agent::queue::{Event, Stretch};
use crate::reactor::Command;
use bytes::Bytes;

impl Handle {
    /// Begins or ends to keep events.
    pub fn listen(&self, listening: bool) {
        // What nobody takes any more keeps no agent waiting.
        if self.shared.listen(listening) {
            self.reactor.post(Command::Resume { id: self.id });
        }
    }

    /// Reads what was spilled to disk, as far as the oldest undelivered event is on it, by `read`,
    /// which may wait.
    ///
    /// # Errors
    /// A disk that does not give back what was spilled to it.
    pub fn bring_events(
        &self,
        read: impl FnOnce(&Stretch) -> std::io::Result<Bytes>,
    ) -> std::io::Result<()> {
        let stretch = self.shared.queue().stretch();
        if let Some(stretch) = stretch {
            let bytes = read(&stretch)?;
            self.shared.queue().restore(&stretch, bytes);
        }
        Ok(())
    }

    /// Up to `limit` undelivered events, oldest first, of those in memory.
    pub fn take_events(&self, limit: usize) -> Vec<Event> {
        let (events, was_full, is_full) = {
            let mut queue = self.shared.queue();
            let was_full = queue.is_full();
            let events = queue.take(limit);
            (events, was_full, queue.is_full())
        };
        if was_full && !is_full {
            self.reactor.post(Command::Resume { id: self.id });
        }
        crate::metrics::count_lag(&events);
        events
    }
}
