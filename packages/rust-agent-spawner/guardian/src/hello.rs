//! The guardian's first words to its host.

use crate::{VERSION, read_u32};

/// The guardian's first words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    pub version: u32,
    pub pid: i32,
    /// Whether /proc shows the guardian's own pid namespace: nobody's children are found otherwise.
    pub sees_processes: bool,
}

impl Hello {
    /// Length of every one in bytes.
    pub const LENGTH: usize = 12;

    /// Of this version.
    pub const fn new(pid: i32, sees_processes: bool) -> Self {
        Self {
            version: VERSION,
            pid,
            sees_processes,
        }
    }

    /// The packet.
    pub fn encode(self) -> [u8; Self::LENGTH] {
        let mut out = [0; Self::LENGTH];
        out[..4].copy_from_slice(&self.version.to_le_bytes());
        out[4..8].copy_from_slice(&self.pid.to_le_bytes());
        out[8] = u8::from(self.sees_processes);
        out
    }

    /// Reads one; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == Self::LENGTH && bytes[8] < 2).then_some(())?;
        Some(Self {
            version: read_u32(bytes, 0)?,
            pid: read_u32(bytes, 4)?.cast_signed(),
            sees_processes: bytes[8] == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_survives_the_packet() {
        let hello = Hello::new(7, true);
        assert_eq!(Hello::decode(&hello.encode()), Some(hello));
        assert_eq!(Hello::decode(&[2; Hello::LENGTH]), None);
    }
}
