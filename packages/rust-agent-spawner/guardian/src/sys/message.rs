//! Packets with file descriptors and the sender's credentials, sent and received without waiting.

use super::{close, errno};
use std::cell::UnsafeCell;
use std::mem::{size_of, zeroed};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use vespera_guardian::{MAX_INLINE, Report, SPAWN_HEADER, Spawn, Stage};

/// File descriptors that came with a packet; what is not taken is closed with them.
pub struct Fds {
    fds: [i32; 8],
    len: usize,
}

impl Fds {
    pub fn get(&self, place: usize) -> Option<i32> {
        (place < self.len).then(|| self.fds[place])
    }

    /// The first is the caller's from now on, and the second comes first.
    pub fn take_first(&mut self) -> Option<i32> {
        let first = self.get(0)?;
        self.fds.copy_within(1.., 0);
        self.len -= 1;
        Some(first)
    }
}

impl Drop for Fds {
    fn drop(&mut self) {
        for fd in &self.fds[..self.len] {
            close(*fd);
        }
    }
}

/// The longest packet.
const LONGEST: usize = SPAWN_HEADER + MAX_INLINE;

/// Part of the program: mapping room for each request costs a leash more than reading it, and of
/// this only what was written to takes memory.
#[repr(C, align(4096))]
struct Room(UnsafeCell<[u8; LONGEST]>);

// SAFETY: this program has one thread, and `Buffer` gives the room to one owner at a time.
unsafe impl Sync for Room {}

static ROOM: Room = Room(UnsafeCell::new([0; LONGEST]));
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The room, while nobody else has it.
struct Buffer {
    used: usize,
}

impl Buffer {
    /// So much may stay written to; a leash lives as long as its agents, and there may be thousands.
    const KEPT: usize = 8 * 1024;

    fn take() -> Option<Self> {
        (!IS_TAKEN.swap(true, Ordering::Relaxed)).then_some(Self { used: 0 })
    }

    #[expect(clippy::unused_self, reason = "only the room's owner may write to it")]
    fn start(&mut self) -> *mut u8 {
        ROOM.0.get().cast()
    }

    /// All whole pages behind what is kept: pages are larger than 4 KiB on some systems, and what
    /// shares one with the room is somebody else's.
    fn give_pages_back(&mut self) {
        // SAFETY: takes and gives a number.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let Ok(page @ 1..) = usize::try_from(size) else {
            return;
        };
        let room = self.start();
        let start = room.addr();
        let from = (start + Self::KEPT).next_multiple_of(page);
        let to = (start + LONGEST) / page * page;
        if from < to {
            // SAFETY: whole pages inside the room, which read as zeros from here on.
            unsafe {
                libc::madvise(
                    room.add(from - start).cast(),
                    to - from,
                    libc::MADV_DONTNEED,
                )
            };
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: initialised memory of the program, which nobody but us can write to.
        unsafe { std::slice::from_raw_parts(ROOM.0.get().cast(), self.used) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.used > Self::KEPT {
            self.give_pages_back();
        }
        IS_TAKEN.store(false, Ordering::Relaxed);
    }
}

/// One packet with its descriptors and who sent it.
pub struct Packet {
    buffer: Buffer,
    pub fds: Fds,
    /// Pid, user and group as the kernel saw them; a program cannot choose them.
    sender: Option<libc::ucred>,
}

impl Packet {
    pub fn bytes(&self) -> &[u8] {
        self.buffer.bytes()
    }

    /// Whether it comes from the process `host` with the rights that we have.
    pub fn is_from(&self, host: i32) -> bool {
        // Neither a guardian nor a leash ever changes its own.
        static OURS: OnceLock<(libc::uid_t, libc::gid_t)> = OnceLock::new();
        // SAFETY: cannot fail and touch no memory.
        let (user, group) = *OURS.get_or_init(|| unsafe { (libc::getuid(), libc::getgid()) });
        self.sender
            .is_some_and(|sender| sender.pid == host && sender.uid == user && sender.gid == group)
    }
}

/// What one receive gave.
pub enum Received {
    Packet(Packet),
    Later,
    Gone,
}

/// Never blocks: a peer that does not read is not waited for. Whether the packet is on its way.
pub fn send(fd: i32, bytes: &[u8]) -> bool {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: pointer and length of one live slice.
    unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) >= 0 }
}

/// As [`send`], of reports in one packet.
pub fn tell<const N: usize>(fd: i32, reports: [Report; N]) -> bool {
    send(fd, reports.map(Report::encode).as_flattened())
}

/// Tells a host that its agent was not started: why, and at which step.
pub fn refuse(socket: i32, errno: i32, stage: Stage) {
    tell(socket, [Report::Failed { errno, stage }]);
}

#[repr(C, align(8))]
struct ControlBuffer([u8; 256]);

// The casts' alignment does not matter: what they point to is read unaligned.
#[allow(clippy::cast_ptr_alignment)]
/// Takes what is there, without waiting for more.
pub fn receive(fd: i32) -> Received {
    let Some(mut buffer) = Buffer::take() else {
        return Received::Later;
    };
    let mut control = ControlBuffer([0; 256]);
    let mut part = libc::iovec {
        iov_base: buffer.start().cast(),
        iov_len: LONGEST,
    };
    // SAFETY: an all-zero msghdr is valid.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: every pointer in `message` refers to a live local of the given length.
    let read = unsafe {
        libc::recvmsg(
            fd,
            &raw mut message,
            libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC,
        )
    };
    let Ok(len) = usize::try_from(read) else {
        return match errno() {
            libc::EAGAIN | libc::EINTR => Received::Later,
            _ => Received::Gone,
        };
    };
    if len == 0 {
        return Received::Gone;
    }
    buffer.used = len;
    let mut fds = Fds {
        fds: [-1; 8],
        len: 0,
    };
    let mut sender = None;
    // SAFETY: the kernel filled the control buffer and set its length; CMSG_* walk stays inside,
    // and the payload of each kind is read unaligned with the size that its header states.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            let data = libc::CMSG_DATA(header);
            #[allow(clippy::unnecessary_cast)]
            let payload = ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                for place in 0..payload / size_of::<i32>() {
                    let received = data.cast::<i32>().add(place).read_unaligned();
                    if fds.len < fds.fds.len() {
                        fds.fds[fds.len] = received;
                        fds.len += 1;
                    } else {
                        close(received);
                    }
                }
            } else if (*header).cmsg_level == libc::SOL_SOCKET
                && (*header).cmsg_type == libc::SCM_CREDENTIALS
            {
                sender = Some(data.cast::<libc::ucred>().read_unaligned());
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Received::Packet(Packet {
        buffer,
        fds,
        sender,
    })
}

/// What of a request did not fit into its packet.
pub fn spilled(header: &[u8], memfd: Option<i32>) -> Option<Vec<u8>> {
    let length = Spawn::strings_len(header).filter(|length| *length > MAX_INLINE)?;
    read_exact(memfd?, length)
}

/// Reads exactly `length` bytes from the start of a file.
fn read_exact(fd: i32, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0_u8; length];
    let mut done = 0;
    while done < length {
        let rest = &mut bytes[done..];
        let offset = libc::off_t::try_from(done).ok()?;
        // SAFETY: pointer and length of one live slice.
        let read = unsafe { libc::pread(fd, rest.as_mut_ptr().cast(), rest.len(), offset) };
        match usize::try_from(read) {
            Ok(0) => return None,
            Ok(read) => done += read,
            Err(_) if errno() == libc::EINTR => {}
            Err(_) => return None,
        }
    }
    Some(bytes)
}
