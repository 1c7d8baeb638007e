//! The transcript: what host and agent said to each other, appended as it was said.
//!
//! One record per line: `<` (from the agent) or `>` (from the host), Unix seconds, the bytes of
//! the line as they are; `!` for a line over the cap, with its length and its head. The first
//! record (`#`) and the last (`=`) are the host's, as JSON. The Python backend writes the same.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::time::SystemTime;

/// Who said a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    Agent,
    Host,
}

/// An open transcript. Nothing is written before [`Transcript::flush`].
#[derive(Debug)]
pub struct Transcript {
    file: File,
    pending: Vec<u8>,
}

impl Transcript {
    /// Opens the file at `path` for appending; a new one belongs to its owner alone.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &[u8]) -> io::Result<Self> {
        let path = std::ffi::OsStr::from_bytes(path);
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self {
            file,
            pending: Vec::new(),
        })
    }

    /// Notes lines of one voice; a last one without a newline is a line too.
    pub fn note(&mut self, voice: Voice, lines: &[u8]) {
        let mark = match voice {
            Voice::Agent => b'<',
            Voice::Host => b'>',
        };
        let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
        for line in lines.split(|byte| *byte == b'\n') {
            self.begin(mark);
            self.pending.extend_from_slice(line);
            self.pending.push(b'\n');
        }
    }

    /// Notes a line over the cap.
    pub fn note_oversize(&mut self, length: usize, head: &[u8]) {
        self.begin(b'!');
        let _ = write!(self.pending, "{length} ");
        self.pending.extend_from_slice(head);
        self.pending.push(b'\n');
    }

    fn begin(&mut self, mark: u8) {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let _ = write!(
            self.pending,
            "{} {}.{:06} ",
            char::from(mark),
            now.as_secs(),
            now.subsec_micros()
        );
    }

    /// Writes what was noted, in one piece.
    ///
    /// # Errors
    /// A disk that takes no more.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&self.pending);
        self.pending.clear();
        self.pending.shrink_to(64 * 1024);
        written
    }
}
