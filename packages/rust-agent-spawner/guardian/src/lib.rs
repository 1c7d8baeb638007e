//! The packets between a host and its guardian: one definition for both ends.
//!
//! Responsible for the byte layout only. It starts no process and knows no file descriptor; the
//! program in `main.rs` and the host's `agent::process` do. Integers are little-endian, strings are
//! NUL-terminated, and every packet is one `SOCK_SEQPACKET` message.

mod hello;

pub use hello::Hello;

/// Bumped whenever a packet changes: an old guardian under a new host must be told apart.
pub const VERSION: u32 = 4;

/// The guardian's end of the socket to its host, at start.
pub const HOST_FD: i32 = 3;

/// A spawn request that does not fit in a packet travels in a memfd beside it.
pub const MAX_INLINE: usize = 128 * 1024;

/// Size of the fixed part of a [`Spawn`] packet in bytes.
pub const SPAWN_HEADER: usize = 80;

/// Size of every [`Report`] in bytes.
pub const REPORT: usize = 64;

/// Sentinel for "leave the inherited value" in limits, niceness and umask.
pub const INHERIT: u64 = u64::MAX;

/// Where a start failed, as sent in [`Report::Failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    Request = 1,
    Credentials = 2,
    Fork = 3,
    Session = 4,
    Stdio = 5,
    Limits = 6,
    WorkingDirectory = 7,
    Exec = 8,
    Cgroup = 9,
}

impl Stage {
    /// The word shown to users.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Request => "request",
            Stage::Credentials => "credentials",
            Stage::Fork => "fork",
            Stage::Session => "session",
            Stage::Stdio => "stdio",
            Stage::Limits => "limits",
            Stage::WorkingDirectory => "working_directory",
            Stage::Exec => "exec",
            Stage::Cgroup => "cgroup",
        }
    }

    const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Stage::Request,
            2 => Stage::Credentials,
            3 => Stage::Fork,
            4 => Stage::Session,
            5 => Stage::Stdio,
            6 => Stage::Limits,
            7 => Stage::WorkingDirectory,
            8 => Stage::Exec,
            9 => Stage::Cgroup,
            _ => return None,
        })
    }
}

/// Limits that travel with a request, in the order of their place in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// RLIMIT_NOFILE.
    pub open_files: u64,
    /// RLIMIT_CPU in seconds.
    pub cpu_seconds: u64,
    /// RLIMIT_FSIZE in bytes.
    pub file_size: u64,
    /// Absolute niceness + 20 (0..=39).
    pub nice: u64,
    /// memory.max of the agent's cgroup in bytes.
    pub memory: u64,
    /// pids.max of the agent's cgroup.
    pub processes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            open_files: INHERIT,
            cpu_seconds: INHERIT,
            file_size: INHERIT,
            nice: INHERIT,
            memory: INHERIT,
            processes: INHERIT,
        }
    }
}

/// An environment as it travels, ready to be used for many agents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `NAME=value`, each NUL-terminated.
    entries: Vec<u8>,
    count: u32,
}

impl Environment {
    /// Adds an entry; the caller vouches that its name is new here and that no part holds NUL.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        for part in [name, b"=", value, b"\0"] {
            self.entries.extend_from_slice(part);
        }
        self.count += 1;
    }
}

/// A request to start one agent. `program` is an absolute path: no search happens in the guardian.
///
/// File descriptors beside it, in order: for a guardian the socket of the leash that it is to make;
/// stdin, stdout, stderr; with [`MAX_INLINE`] exceeded a memfd holding the strings. A leash that
/// has no agent takes a request as its guardian does, but for the socket.
#[derive(Clone, Copy, Debug)]
pub struct Spawn<'a> {
    pub grace_ms: u32,
    pub umask: u32,
    pub limits: Limits,
    pub program: &'a [u8],
    pub directory: &'a [u8],
    /// The cgroup2 directory to make for the agent; empty for none.
    pub cgroup: &'a [u8],
    pub argc: u32,
    pub envc: u32,
    /// argv then environment, each NUL-terminated.
    pub strings: &'a [u8],
}

impl<'a> Spawn<'a> {
    /// Header and strings of a request, to be sent as one packet or as header plus memfd. `mark` is
    /// one more entry of the environment.
    pub fn encode(
        &self,
        argv: &[&[u8]],
        environment: &Environment,
        mark: &[u8],
    ) -> (Vec<u8>, Vec<u8>) {
        let mut strings = Vec::with_capacity(environment.entries.len() + 1024);
        let texts = [self.program, self.directory, self.cgroup];
        for text in texts.iter().chain(argv).chain(&[mark]) {
            strings.extend_from_slice(text);
            strings.push(0);
        }
        strings.extend_from_slice(&environment.entries);
        let mut header = Vec::with_capacity(SPAWN_HEADER);
        header.extend_from_slice(&VERSION.to_le_bytes());
        for value in [
            self.grace_ms,
            self.umask,
            count(argv.len()),
            environment.count.saturating_add(1),
            count(strings.len()),
        ] {
            header.extend_from_slice(&value.to_le_bytes());
        }
        for value in [
            self.limits.open_files,
            self.limits.cpu_seconds,
            self.limits.file_size,
            self.limits.nice,
            self.limits.memory,
            self.limits.processes,
        ] {
            header.extend_from_slice(&value.to_le_bytes());
        }
        header.resize(SPAWN_HEADER, 0);
        (header, strings)
    }

    /// The grace in a header, which is all that the guardian itself reads; 0 if it is not ours.
    pub fn grace_ms_of(header: &[u8]) -> u32 {
        read_u32(header, 4).unwrap_or(0)
    }

    /// Length in bytes of the strings that belong to a header; `None` if the header is not ours.
    pub fn strings_len(header: &[u8]) -> Option<usize> {
        if header.len() < SPAWN_HEADER || read_u32(header, 0)? != VERSION {
            return None;
        }
        usize::try_from(read_u32(header, 20)?).ok()
    }

    /// Reads a request; `None` for anything that is not exactly one.
    pub fn decode(header: &[u8], strings: &'a [u8]) -> Option<Self> {
        if Self::strings_len(header)? != strings.len() {
            return None;
        }
        let (argc, envc) = (read_u32(header, 12)?, read_u32(header, 16)?);
        let (program, rest) = split_nul(strings)?;
        let (directory, rest) = split_nul(rest)?;
        let (cgroup, rest) = split_nul(rest)?;
        let wanted = usize::try_from(argc)
            .ok()?
            .checked_add(usize::try_from(envc).ok()?)?;
        let found = memchr::memchr_iter(0, rest).count();
        if argc == 0 || found != wanted || (!rest.is_empty() && *rest.last()? != 0) {
            return None;
        }
        if program.first() != Some(&b'/') || directory.first() != Some(&b'/') {
            return None;
        }
        if cgroup.first().is_some_and(|first| *first != b'/') {
            return None;
        }
        Some(Self {
            grace_ms: Self::grace_ms_of(header),
            umask: read_u32(header, 8)?,
            limits: Limits {
                open_files: read_u64(header, 24)?,
                cpu_seconds: read_u64(header, 32)?,
                file_size: read_u64(header, 40)?,
                nice: read_u64(header, 48)?,
                memory: read_u64(header, 56)?,
                processes: read_u64(header, 64)?,
            },
            program,
            directory,
            cgroup,
            argc,
            envc,
            strings: rest,
        })
    }
}

/// What the host asks of a leash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Send a signal to the leader's group; SIGTERM is followed by SIGCONT.
    Signal(u8),
    /// Force: kill until nothing is left.
    Kill,
}

impl Order {
    /// Two bytes: kind, signal.
    pub const fn encode(self) -> [u8; 2] {
        match self {
            Order::Signal(number) => [1, number],
            Order::Kill => [2, 0],
        }
    }

    /// Reads an order; `None` for anything else.
    pub const fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [1, number] if *number > 0 && *number < 65 => Some(Order::Signal(*number)),
            [2, 0] => Some(Order::Kill),
            _ => None,
        }
    }
}

/// Who ended a tree, as sent in [`Report::Swept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EndedBy {
    /// The leader exited by itself or by a signal that was not ours.
    Itself = 0,
    /// The host asked.
    Host = 1,
    /// The host is gone.
    HostDeath = 2,
    /// The guardian is gone.
    GuardianDeath = 3,
}

/// What a leash tells its host; a packet may hold several, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A new leash has the request. A program on a file system that does not answer holds its leash
    /// up until it has begun.
    Born { leash: i32 },
    /// The program runs.
    Started { pid: i32, leash: i32 },
    /// It could not be started.
    Failed { errno: i32, stage: Stage },
    /// The leader ended: a wait status as of wait(2), with its resource usage.
    Exited {
        code: i32,
        signal: i32,
        user_us: u64,
        system_us: u64,
        max_rss_kib: u64,
    },
    /// Nothing is left but `survivors`; `killed` processes were still there after the leader's end.
    Swept {
        by: EndedBy,
        killed: u32,
        survivors: u32,
        /// Which limits of the agent's cgroup the kernel enforced.
        breach: Breach,
        /// CPU time of everything that was reaped: the whole tree, if none survives.
        cpu_us: u64,
    },
    /// One process that outlived force, sent before `Swept`: its name and where in the kernel it
    /// waits (proc_pid_wchan(5)), both cut to their place and filled with NUL.
    Survivor {
        pid: i32,
        name: [u8; 16],
        channel: [u8; 32],
    },
}

/// Limits of a cgroup that the kernel enforced at least once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breach {
    pub memory: bool,
    pub processes: bool,
}

impl Report {
    /// A [`Report::Swept`] of counts as a program has them.
    pub fn swept(
        by: EndedBy,
        killed: usize,
        survivors: usize,
        breach: Breach,
        cpu_us: u64,
    ) -> Self {
        Report::Swept {
            by,
            killed: count(killed),
            survivors: count(survivors),
            breach,
            cpu_us,
        }
    }

    /// The packet, always [`REPORT`] bytes.
    pub fn encode(self) -> [u8; REPORT] {
        let mut out = [0_u8; REPORT];
        let (kind, small, words): (u8, [i32; 2], [u64; 3]) = match self {
            Report::Started { pid, leash } => (1, [pid, leash], [0; 3]),
            Report::Failed { errno, stage } => (2, [errno, i32::from(stage as u8)], [0; 3]),
            Report::Exited {
                code,
                signal,
                user_us,
                system_us,
                max_rss_kib,
            } => (3, [code, signal], [user_us, system_us, max_rss_kib]),
            Report::Swept {
                by,
                killed,
                survivors,
                breach,
                cpu_us,
            } => (
                4,
                [
                    i32::from(by as u8),
                    i32::from(breach.memory) | i32::from(breach.processes) << 1,
                ],
                [u64::from(killed), u64::from(survivors), cpu_us],
            ),
            Report::Survivor { pid, name, channel } => {
                out[16..32].copy_from_slice(&name);
                out[32..64].copy_from_slice(&channel);
                (5, [pid, 0], [0; 3])
            }
            Report::Born { leash } => (6, [leash, 0], [0; 3]),
        };
        out[0] = kind;
        for (place, value) in [4, 8].into_iter().zip(small) {
            out[place..place + 4].copy_from_slice(&value.to_le_bytes());
        }
        if kind != 5 {
            for (place, value) in [16, 24, 32].into_iter().zip(words) {
                out[place..place + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        out
    }

    /// Reads a report; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != REPORT {
            return None;
        }
        let small = |at| read_u32(bytes, at).map(u32::cast_signed);
        Some(match bytes[0] {
            1 => Report::Started {
                pid: small(4)?,
                leash: small(8)?,
            },
            2 => Report::Failed {
                errno: small(4)?,
                stage: Stage::from_u8(u8::try_from(small(8)?).ok()?)?,
            },
            3 => Report::Exited {
                code: small(4)?,
                signal: small(8)?,
                user_us: read_u64(bytes, 16)?,
                system_us: read_u64(bytes, 24)?,
                max_rss_kib: read_u64(bytes, 32)?,
            },
            4 => Report::Swept {
                by: match small(4)? {
                    0 => EndedBy::Itself,
                    1 => EndedBy::Host,
                    2 => EndedBy::HostDeath,
                    3 => EndedBy::GuardianDeath,
                    _ => return None,
                },
                killed: u32::try_from(read_u64(bytes, 16)?).ok()?,
                survivors: u32::try_from(read_u64(bytes, 24)?).ok()?,
                breach: Breach {
                    memory: small(8)? & 1 != 0,
                    processes: small(8)? & 2 != 0,
                },
                cpu_us: read_u64(bytes, 32)?,
            },
            5 => Report::Survivor {
                pid: small(4)?,
                name: bytes[16..32].try_into().ok()?,
                channel: bytes[32..64].try_into().ok()?,
            },
            6 => Report::Born { leash: small(4)? },
            _ => return None,
        })
    }
}

fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn split_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Spawn<'static> {
        Spawn {
            grace_ms: 250,
            umask: 0o22,
            limits: Limits::default(),
            program: b"/bin/true",
            directory: b"/",
            cgroup: b"",
            argc: 0,
            envc: 0,
            strings: b"",
        }
    }

    #[test]
    fn a_request_survives_the_packet() {
        let mut environment = Environment::default();
        environment.push(b"A", b"1");
        let (header, strings) = request().encode(&[b"true", b""], &environment, b"MARK=2");
        assert_eq!(header.len(), SPAWN_HEADER);
        let read = Spawn::decode(&header, &strings).expect("our own packet");
        assert_eq!((read.argc, read.envc, read.grace_ms), (2, 2, 250));
        assert_eq!(
            (read.program, read.strings),
            (&b"/bin/true"[..], &b"true\0\0MARK=2\0A=1\0"[..])
        );
    }

    #[test]
    fn a_damaged_request_is_refused() {
        let (header, strings) = request().encode(&[b"true"], &Environment::default(), b"M=1");
        for cut in 0..strings.len() {
            assert!(
                Spawn::decode(&header, &strings[..cut]).is_none(),
                "cut at {cut}"
            );
        }
        for cut in 0..header.len() {
            assert!(
                Spawn::decode(&header[..cut], &strings).is_none(),
                "header cut at {cut}"
            );
        }
        let (header, strings) = Spawn {
            program: b"true",
            ..request()
        }
        .encode(&[b"true"], &Environment::default(), b"M=1");
        assert!(
            Spawn::decode(&header, &strings).is_none(),
            "a relative program"
        );
        let (header, strings) = request().encode(&[b"a\0b"], &Environment::default(), b"M=1");
        assert!(
            Spawn::decode(&header, &strings).is_none(),
            "a NUL inside an argument"
        );
    }

    #[test]
    fn reports_and_orders_survive_the_packet() {
        for report in [
            Report::Born { leash: 6 },
            Report::Started { pid: 7, leash: 6 },
            Report::Failed {
                errno: 2,
                stage: Stage::Exec,
            },
            Report::Exited {
                code: 0,
                signal: 9,
                user_us: 1,
                system_us: 2,
                max_rss_kib: 3,
            },
            Report::Swept {
                by: EndedBy::HostDeath,
                killed: 3,
                survivors: 1,
                breach: Breach {
                    memory: false,
                    processes: true,
                },
                cpu_us: 9,
            },
            Report::Survivor {
                pid: 4,
                name: [b'n'; 16],
                channel: [b'c'; 32],
            },
        ] {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
        for order in [Order::Signal(15), Order::Kill] {
            assert_eq!(Order::decode(&order.encode()), Some(order));
        }
        assert_eq!(Order::decode(&[1, 0]), None);
        assert_eq!(Report::decode(&[9; REPORT]), None);
    }
}
