//! Responsible for what a replaced file keeps beside its name: owner, mode, extended attributes, and
//! ACLs, which are among them.
//!
//! The new file is born in a directory whose default ACL it inherits, and which may give strangers
//! what the old file never gave them. So what was not the old file's goes; and what of the old one
//! cannot be kept takes rights away, never adds any.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

use rustix::buffer::spare_capacity;
use rustix::fs::{
    Mode, OFlags, XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, getxattr, listxattr,
    openat,
};
use rustix::io::Errno;

use crate::root::LOOK;

/// Linux allows neither a list of names nor a value to be longer.
const MAX_ATTRIBUTES: usize = 1 << 16;
const FEW_ATTRIBUTES: usize = 1 << 8;

/// Ask with little room, which nearly always does, then with all that there can be: the system
/// makes room for as much as it is asked for, each time.
fn grown(
    room: &mut Vec<u8>,
    ask: impl Fn(&mut Vec<u8>) -> rustix::io::Result<usize>,
) -> rustix::io::Result<usize> {
    room.reserve_exact(FEW_ATTRIBUTES);
    match ask(room) {
        Err(Errno::RANGE) => {
            room.reserve_exact(MAX_ATTRIBUTES);
            ask(room)
        }
        outcome => outcome,
    }
}

const ACL: &CStr = c"system.posix_acl_access";
/// The tag of the entry for the group that owns the file.
const GROUP_OBJ: u8 = 4;
/// Labels and signatures: what the system gave the new file is right for it.
const SYSTEMS_OWN: &[u8] = b"security.";

/// The extended attributes of a file.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    names: Vec<CString>,
    /// Of those that may be read.
    values: Vec<(CString, Vec<u8>)>,
}

impl Attributes {
    /// Those of the file `name`; nothing if they cannot be told.
    pub(crate) fn of(directory: &OwnedFd, name: &OsStr) -> Option<Self> {
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let readable = flags | OFlags::RDONLY | OFlags::NONBLOCK;
        if let Ok(file) = openat(directory, name, readable, Mode::empty()) {
            return Self::read(
                |room| flistxattr(&file, spare_capacity(room)),
                |name, room| fgetxattr(&file, name, spare_capacity(room)),
            );
        }
        // An ACL may be read without the right to read the file, but not by its descriptor.
        let file = openat(directory, name, flags | LOOK, Mode::empty()).ok()?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Self::read(
            |room| listxattr(path.as_str(), spare_capacity(room)),
            |name, room| getxattr(path.as_str(), name, spare_capacity(room)),
        )
    }

    fn read(
        list: impl Fn(&mut Vec<u8>) -> rustix::io::Result<usize>,
        get: impl Fn(&CStr, &mut Vec<u8>) -> rustix::io::Result<usize>,
    ) -> Option<Self> {
        let names = listed(list)?;
        let mut values = Vec::new();
        for name in &names {
            let mut value = Vec::new();
            if grown(&mut value, |room| get(name, room)).is_ok() {
                values.push((name.clone(), value));
            }
        }
        Some(Self { names, values })
    }

    /// What the entry `group::` of the ACL allows.
    fn group_of_acl(&self) -> Option<u32> {
        let (_, value) = self
            .values
            .iter()
            .find(|(name, _)| name.as_c_str() == ACL)?;
        // A version, then entries of tag, rights and id, all of them little-endian: acl(5).
        let entries = value.get(4..)?.chunks_exact(8);
        entries
            .map(|one| (one[0], u32::from(one[2])))
            .find_map(|(tag, rights)| (tag == GROUP_OBJ).then_some(rights & 0o7))
    }

    fn has(&self, name: &CStr) -> bool {
        self.names.iter().any(|own| own.as_c_str() == name)
    }
}

/// The names of extended attributes; none where there are no such things.
fn listed(list: impl Fn(&mut Vec<u8>) -> rustix::io::Result<usize>) -> Option<Vec<CString>> {
    let mut names = Vec::new();
    match grown(&mut names, list) {
        Ok(_) => {}
        Err(Errno::NOTSUP | Errno::NOSYS) => return Some(Vec::new()),
        Err(_) => return None,
    }
    let names = names.split_inclusive(|&byte| byte == 0);
    Some(
        names
            .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
            .map(ToOwned::to_owned)
            .collect(),
    )
}

/// Give the new `file`, which has its content, what the `old` one had.
pub(crate) fn keep(file: &File, old: &Metadata, attributes: Option<&Attributes>) -> io::Result<()> {
    // First, while the file is private: an ACL would open it to the group of this process. And a
    // change of the owner takes away capabilities, which are attributes.
    let mode = keep_owner(file, old, old.mode() & 0o7777)?;
    let mode = keep_attributes(file, attributes, mode);
    // After the content: a write would clear set-id bits, and until now the file was private.
    // After an ACL too, whose mask is the mode's group bits.
    file.set_permissions(Permissions::from_mode(mode))
}

/// Gives the mode that is safe with the attributes that the file has now.
fn keep_attributes(file: &File, attributes: Option<&Attributes>, mode: u32) -> u32 {
    let inherited = listed(|room| flistxattr(file, spare_capacity(room))).unwrap_or_default();
    let mut kept_acl = false;
    if let Some(old) = attributes {
        for name in &inherited {
            if !old.has(name) && !name.to_bytes().starts_with(SYSTEMS_OWN) {
                let _ = fremovexattr(file, name.as_c_str());
            }
        }
        for (name, value) in &old.values {
            // Some belong to the system alone (labels, capabilities): kept where we may.
            let kept = fsetxattr(file, name.as_c_str(), value, XattrFlags::empty()).is_ok();
            kept_acl |= kept && name.as_c_str() == ACL;
        }
    }
    if kept_acl {
        return mode;
    }
    if inherited.iter().any(|name| name.as_c_str() == ACL)
        && !matches!(fremovexattr(file, ACL), Ok(()) | Err(Errno::NODATA))
    {
        return with_group(mode, 0);
    }
    match attributes {
        Some(old) if !old.has(ACL) => mode,
        // The group bits were the mask of an ACL, or may have been.
        lost => {
            let group = lost.and_then(Attributes::group_of_acl);
            with_group(mode, group.unwrap_or(mode & 0o7))
        }
    }
}

/// Gives the mode that is safe with the owner that the file has now.
fn keep_owner(file: &File, old: &Metadata, mode: u32) -> io::Result<u32> {
    let new = file.metadata()?;
    let same = (new.uid(), new.gid()) == (old.uid(), old.gid());
    if same || fchown(file, Some(old.uid()), Some(old.gid())).is_ok() {
        return Ok(mode);
    }
    // Only root may give a file away. Without that, set-id bits would serve the wrong owner.
    let mode = mode & 0o777;
    // One's own file may be given to any group one is in. To another, the bits would open the file.
    if new.gid() == old.gid() || fchown(file, None, Some(old.gid())).is_ok() {
        return Ok(mode);
    }
    Ok(with_group(mode, mode & 0o7))
}

/// The mode without those bits of the group that are not among the `allowed` ones.
fn with_group(mode: u32, allowed: u32) -> u32 {
    mode & (!0o070 | allowed << 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_the_old_files_goes() {
        let path = std::env::temp_dir().join(format!("vespera-kept-{}", std::process::id()));
        let file = File::create(&path).expect("made");
        if fsetxattr(&file, c"user.inherited", b"", XattrFlags::empty()).is_ok() {
            let old = file.metadata().expect("told");
            let names = || listed(|room| flistxattr(&file, spare_capacity(room)));
            keep(&file, &old, None).expect("kept");
            assert_eq!(names(), Some(vec![c"user.inherited".to_owned()]));
            keep(&file, &old, Some(&Attributes::default())).expect("kept");
            assert_eq!(names(), Some(vec![]));
        }
        std::fs::remove_file(&path).expect("removed");
    }

    #[test]
    fn a_lost_acl_leaves_the_group_its_own_entry() {
        let entries: [(u16, u16, u32); 4] = [(1, 6, !0), (2, 6, 1234), (4, 4, !0), (16, 6, !0)];
        let mut value = 2_u32.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(rights.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        let with = |values| Attributes {
            names: vec![ACL.to_owned()],
            values,
        };
        assert_eq!(with(vec![]).group_of_acl(), None);
        assert_eq!(
            with(vec![(ACL.to_owned(), value)]).group_of_acl(),
            Some(0o4)
        );
        assert_eq!(with_group(0o2664, 0o4), 0o2644);
    }
}
