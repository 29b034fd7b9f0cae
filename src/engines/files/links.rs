//! Links on the way to what a `files` source names. A snapshot is a tree: what lies behind a link has its own place in it, and
//! the link is an entry like any other. Both are taken, so that both come back.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows.
const MOST: usize = 40;

/// Where a path leads.
#[derive(Debug)]
pub(in crate::engines) struct Followed {
    /// The links on the way, each by a path without links.
    pub links: Vec<PathBuf>,
    /// A path without links.
    pub place: PathBuf,
    /// Whether anything is there.
    pub exists: bool,
}

/// A step of a path.
enum Step {
    Root,
    Up,
    Down(OsString),
}

fn steps(path: &Path) -> impl DoubleEndedIterator<Item = Step> + '_ {
    path.components().filter_map(|part| match part {
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Down(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Follows every link of a path but those that lead to the folder of devstack.yaml: it has its own name in a snapshot.
pub(in crate::engines) fn follow(base: &Path, path: &Path) -> io::Result<Followed> {
    walk(base, path, true)
}

/// The path of a thing without the links that lead to it. It may be a link itself.
pub(in crate::engines) fn place_of(base: &Path, path: &Path) -> io::Result<PathBuf> {
    walk(base, path, false).map(|followed| followed.place)
}

fn walk(base: &Path, path: &Path, last_too: bool) -> io::Result<Followed> {
    let real_base = fs::canonicalize(base).unwrap_or_else(|_| base.to_owned());
    let (mut place, rest) = match path.strip_prefix(base) {
        Ok(below) => (base.to_owned(), below),
        Err(_) => (PathBuf::from("/"), path),
    };
    let mut ahead: VecDeque<Step> = steps(rest).collect();
    let (mut links, mut exists, mut followed) = (Vec::new(), true, 0);
    while let Some(step) = ahead.pop_front() {
        let name = match step {
            Step::Root => {
                place = PathBuf::from("/");
                continue;
            }
            Step::Up => {
                if place == base {
                    place.clone_from(&real_base);
                }
                place.pop();
                continue;
            }
            Step::Down(name) => name,
        };
        let next = place.join(name);
        let target = match fs::symlink_metadata(&next) {
            Ok(found) if found.is_symlink() && (last_too || !ahead.is_empty()) => fs::read_link(&next)?,
            found => {
                match found {
                    Ok(_) => {}
                    Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                        exists = false;
                    }
                    Err(error) => return Err(error),
                }
                place = next;
                if place == real_base {
                    place = base.to_owned();
                }
                continue;
            }
        };
        followed += 1;
        if followed > MOST {
            return Ok(Followed { links, place: next, exists: false });
        }
        if !is_the_machines(base, &next) {
            links.push(next);
        }
        for step in steps(&target).rev() {
            ahead.push_front(step);
        }
    }
    Ok(Followed { links, place, exists })
}

/// `/bin`, `/etc` on a Mac, `/var/run`: how a machine is laid out is nothing that a backup of a stack puts back.
fn is_the_machines(base: &Path, link: &Path) -> bool {
    let within = link.parent().is_some_and(|folder| folder == Path::new("/") || folder == Path::new("/var"));
    within && !link.starts_with(base)
}
