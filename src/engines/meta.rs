//! What a snapshot keeps of a file beside its content.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;

use crate::repository::EntryMeta;

/// Owners by number: the names may mean other people on the machine that restores. Times to the nanosecond.
pub(super) fn meta(metadata: &Metadata) -> EntryMeta {
    EntryMeta {
        mode: metadata.mode() & 0o7777,
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        uid: Some(metadata.uid()),
        gid: Some(metadata.gid()),
        user: None,
        group: None,
        inode: metadata.ino(),
        device: metadata.dev(),
        links: metadata.nlink(),
        size: metadata.len(),
        xattrs: Vec::new(),
    }
}

/// None for a time that no calendar holds.
fn time(seconds: i64, nanoseconds: i64) -> Option<Timestamp> {
    Timestamp::new(seconds, i32::try_from(nanoseconds).ok()?).ok()
}

/// With the extended attributes; none where the file system has no such thing.
pub(super) fn with_xattrs(mut meta: EntryMeta, path: &Path) -> io::Result<EntryMeta> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(meta),
        Err(error) => return Err(error),
    };
    for name in names {
        let Some(text) = name.to_str() else {
            return Err(io::Error::other(format!("{} has an attribute whose name is not text", path.display())));
        };
        // One that was removed between the listing and the look is gone, as it would be a moment later.
        if let Some(value) = xattr::get(path, &name)? {
            meta.xattrs.push((text.to_owned(), value));
        }
    }
    Ok(meta)
}
