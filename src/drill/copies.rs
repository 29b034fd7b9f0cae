//! Fills the copies that containers of the drill bind in place of host paths: from what the run's files were restored to,
//! or, for what any machine has of its own, from this one.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use super::error::DrillError;
use super::isolation::{CopyFrom, ScratchCopy};
use crate::model::compose::Bound;
use crate::model::plan::Note;

/// A link that leads on more often than this goes round in a circle.
const MOST_LINKS: usize = 40;

/// Puts every copy in place. `root` holds the run's files by their paths on the machine. What is not in the run is an empty
/// folder, as a recovery makes it, and stands among the notes; what was a file then has to be there, and so has a secret or a
/// config.
pub(super) fn fill(
    copies: &[ScratchCopy],
    root: &Path,
    scratch: &Path,
    run: &str,
    binds: &BTreeMap<PathBuf, Bound>,
) -> Result<Vec<Note>, DrillError> {
    let mut notes = Vec::new();
    // A folder stands before what is in it.
    for copy in copies {
        refuse_links(scratch, &copy.scratch)?;
        // A part of a copy that is there.
        if copy.scratch.symlink_metadata().is_ok() {
            continue;
        }
        let filled = match copy.from {
            CopyFrom::Machine => of_machine(&copy.host, &copy.scratch),
            CopyFrom::Run => inside(root, &copy.host).and_then(|source| linked(&source, &copy.scratch)),
        };
        match filled {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_file = |at: &String| at.starts_with("secrets.") || at.starts_with("configs.");
                let was = binds.get(&copy.host);
                if copy.used_at.iter().any(is_file) || was == Some(&Bound::File) {
                    return Err(DrillError::NotInRun { place: copy.host.clone(), run: run.to_owned() });
                }
                let failed = || DrillError::io("making the folder", &copy.scratch);
                fs::create_dir_all(&copy.scratch).map_err(failed())?;
                if let Some(Bound::Folder { mode, uid, gid }) = was {
                    // As a recovery makes it; without the right to give it away it stays ours.
                    match std::os::unix::fs::chown(&copy.scratch, Some(*uid), Some(*gid)) {
                        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(failed()(error)),
                        _ => {}
                    }
                    let mode = fs::Permissions::from_mode(mode & 0o7777);
                    fs::set_permissions(&copy.scratch, mode).map_err(failed())?;
                }
                let text = format!(
                    "{} is not in run {run}, so an empty folder stood in its place, as in a recovery",
                    copy.host.display()
                );
                notes.extend(copy.used_at.iter().map(|at| Note::new(at.clone(), text.clone())));
            }
            Err(error) => return Err(DrillError::io("copying", &copy.host)(error)),
        }
    }
    Ok(notes)
}

/// Docker follows a link in a path that it binds, and that would lead out of the drill.
fn refuse_links(scratch: &Path, path: &Path) -> Result<(), DrillError> {
    let below = path.strip_prefix(scratch).unwrap_or(path);
    let mut at = scratch.to_owned();
    for part in below.components() {
        at.push(part);
        if at.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(DrillError::Link { path: at });
        }
    }
    Ok(())
}

/// Where a path of the machine leads below `root`, with `root` standing for `/` to every link on the way.
fn inside(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let parts = |path: &Path| -> VecDeque<OsString> {
        let named = path.components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
        named.map(|part| part.as_os_str().to_owned()).collect()
    };
    let mut open = parts(path);
    let (mut at, mut links) = (root.to_owned(), 0);
    while let Some(part) = open.pop_front() {
        if part == ".." {
            if at != root {
                at.pop();
            }
            continue;
        }
        let next = at.join(&part);
        if !next.symlink_metadata()?.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(io::Error::other("its links go round in a circle"));
        }
        let target = fs::read_link(&next)?;
        if target.is_absolute() {
            at = root.to_owned();
        }
        let mut rest = parts(&target);
        rest.append(&mut open);
        open = rest;
    }
    Ok(at)
}

/// The same files under another name: what a container writes into them is what the engines of devstack then look at.
fn linked(source: &Path, target: &Path) -> io::Result<()> {
    let metadata = source.symlink_metadata()?;
    if metadata.is_symlink() {
        let to = fs::read_link(source)?;
        return std::os::unix::fs::symlink(to, target);
    }
    if !metadata.is_dir() {
        return fs::hard_link(source, target);
    }
    fs::DirBuilder::new().mode(0o700).create(target)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        linked(&entry.path(), &target.join(entry.file_name()))?;
    }
    // Without the right to give files away they stay the restoring user's, as in the restore itself.
    match std::os::unix::fs::chown(target, Some(metadata.uid()), Some(metadata.gid())) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        _ => {}
    }
    fs::set_permissions(target, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}

/// With every link followed: a time zone is a link into another folder.
fn of_machine(source: &Path, target: &Path) -> io::Result<()> {
    if !source.metadata()?.is_dir() {
        return fs::copy(source, target).map(drop);
    }
    fs::create_dir(target)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        match of_machine(&entry.path(), &target.join(entry.file_name())) {
            // A link to nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn copy(host: &str, scratch: &Path, used_at: &str) -> ScratchCopy {
        ScratchCopy {
            host: host.into(),
            scratch: scratch.to_owned(),
            from: CopyFrom::Run,
            writable: true,
            used_at: vec![used_at.to_owned()],
        }
    }

    #[test]
    fn links_of_the_run_lead_to_the_run_and_never_to_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let (root, scratch) = (folder.path().join("root"), folder.path().to_owned());
        fs::create_dir_all(root.join("srv/releases/3")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("srv/releases/3/a"), "of the run").unwrap();
        fs::write(root.join("etc/hostname"), "of the run").unwrap();
        symlink("releases/3", root.join("srv/current")).unwrap();
        symlink("/etc/hostname", root.join("srv/name")).unwrap();
        symlink("../../../../../etc/hostname", root.join("srv/up")).unwrap();
        symlink("round", root.join("srv/round")).unwrap();
        for (nth, (host, file)) in
            [("/srv/current", "a"), ("/srv/current/a", ""), ("/srv/name", ""), ("/srv/up", "")].into_iter().enumerate()
        {
            let to = scratch.join(format!("b{nth}"));
            fill(&[copy(host, &to, "services.a.volumes[0]")], &root, &scratch, "r", &BTreeMap::new()).unwrap();
            let read = if file.is_empty() { fs::read_to_string(&to) } else { fs::read_to_string(to.join(file)) };
            assert_eq!(read.unwrap(), "of the run", "{host}");
            assert!(!to.symlink_metadata().unwrap().is_symlink());
        }
        let round = fill(&[copy("/srv/round", &scratch.join("b9"), "x")], &root, &scratch, "r", &BTreeMap::new());
        assert!(round.unwrap_err().to_string().contains("/srv/round"));
    }

    #[test]
    fn what_the_run_lacks_is_an_empty_folder_and_said_and_a_secret_stops_the_drill() {
        let folder = tempfile::tempdir().unwrap();
        let (root, scratch) = (folder.path().join("root"), folder.path().to_owned());
        fs::create_dir(&root).unwrap();
        let to = scratch.join("b1");
        let notes =
            fill(&[copy("/var/log/app", &to, "services.a.volumes[0]")], &root, &scratch, "r-1", &BTreeMap::new())
                .unwrap();
        assert!(notes[0].text.contains("/var/log/app") && notes[0].text.contains("r-1"), "{notes:?}");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
        let refused = fill(
            &[copy("/srv/key", &scratch.join("b2"), "secrets.key.file")],
            &root,
            &scratch,
            "r-1",
            &BTreeMap::new(),
        );
        assert!(matches!(refused, Err(DrillError::NotInRun { .. })));
    }

    #[test]
    fn a_file_that_the_run_lacks_is_never_made_a_folder_and_a_folder_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (root, scratch) = (folder.path().join("root"), folder.path().to_owned());
        fs::create_dir(&root).unwrap();
        let own = folder.path().metadata().unwrap();
        let was = Bound::Folder { mode: 0o750, uid: own.uid(), gid: own.gid() };
        let binds = BTreeMap::from([("/srv/data".into(), was), ("/srv/app.conf".into(), Bound::File)]);
        let to = scratch.join("b1");
        fill(&[copy("/srv/data", &to, "services.a.volumes[0]")], &root, &scratch, "r", &binds).unwrap();
        assert_eq!(to.metadata().unwrap().mode() & 0o7777, 0o750);
        let refused =
            fill(&[copy("/srv/app.conf", &scratch.join("b2"), "services.a.volumes[1]")], &root, &scratch, "r", &binds);
        assert!(matches!(refused, Err(DrillError::NotInRun { .. })), "{refused:?}");
    }

    #[test]
    fn a_copy_within_a_copy_is_never_reached_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (root, scratch) = (folder.path().join("root"), folder.path().to_owned());
        fs::create_dir_all(root.join("srv")).unwrap();
        symlink("/etc", root.join("srv/out")).unwrap();
        let copies =
            [copy("/srv", &scratch.join("b1"), "x"), copy("/srv/out/passwd", &scratch.join("b1/out/passwd"), "y")];
        assert!(matches!(fill(&copies, &root, &scratch, "r", &BTreeMap::new()), Err(DrillError::Link { .. })));
    }
}
