//! Files and folders that get their name only when they are complete.
//!
//! Until then they stand beside it, as `.NAME.` and six letters and `.ecq-tmp`. Whoever writes one holds a lock on it. A
//! process that is killed loses its locks, so that one that can be locked is of nobody any more: the next run that writes
//! to the same name removes it.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{Error as IoError, ErrorKind, Result as IoResult};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempDir, TempPath};

use crate::{Error, Result};

/// Permissions of new files, less the umask.
const FILE: u32 = 0o666;
/// Permissions of new folders, less the umask.
const FOLDER: u32 = 0o777;

/// How names of what is unfinished end.
const SUFFIX: &str = ".ecq-tmp";
/// Letters and digits before it, by chance.
const LETTERS: usize = 6;

/// How often something new is made if another run takes it for abandoned, which it is until it is locked.
const TRIES: u32 = 100;

/// How unfinished files of this name begin.
fn prefix(name: &OsStr) -> String {
    format!(".{}.", name.to_string_lossy())
}

/// The name of what is to be written. Error: [`Error::NoFileName`].
fn file_name(path: &Path, mode: u32) -> Result<&OsStr> {
    let named = !path.as_os_str().to_string_lossy().ends_with(['/', '\\']);
    // a device or a pipe would be replaced by a file, not written to
    let other = path.metadata().is_ok_and(|found| !found.is_file());
    let name = path.file_name().filter(|_| named && !(other && mode == FILE));
    name.ok_or_else(|| Error::NoFileName(path.to_owned()))
}

fn staged<T>(
    path: &Path,
    mode: u32,
    make: impl Fn(&Builder<'_, '_>, &Path) -> IoResult<T>,
    lock: impl Fn(&T) -> std::result::Result<(), TryLockError>,
    path_of: impl Fn(&T) -> &Path,
) -> Result<T> {
    let name = file_name(path, mode)?;
    clear(folder_of(path), Some(name));
    let prefix = prefix(name);
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(SUFFIX).rand_bytes(LETTERS);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(mode)); // less the umask, as for any new file
    }
    for _ in 0..TRIES {
        let made = make(&builder, folder_of(path)).map_err(Error::io(path, "create"))?;
        // a system without locks has none for those who look, either
        let looked_at = matches!(lock(&made), Err(TryLockError::WouldBlock));
        if !looked_at && path_of(&made).symlink_metadata().is_ok() {
            return Ok(made);
        }
    }
    let gone = IoError::new(ErrorKind::Interrupted, "what is made there is removed at once");
    Err(Error::io(path, "create")(gone))
}

/// The folder that a path is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file beside `path`, removed when dropped, or by the next run that writes there.
///
/// Errors: [`Error::NoFileName`], [`Error::Io`].
pub fn file(path: &Path) -> Result<NamedTempFile> {
    staged(path, FILE, |builder, at| builder.tempfile_in(at), |f| f.as_file().try_lock(), |f| f.path())
}

/// How the name of a file ends while it is being written by a run that another one can go on with.
const UNFINISHED: &str = ".unfinished";

/// Where [`unfinished`] puts what becomes `path`.
pub fn unfinished_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(UNFINISHED);
    path.with_file_name(name)
}

/// The file `NAME.unfinished` beside `path`, new or as an interrupted run left it. It is removed when dropped: one that
/// shall be there for the next run must be [kept](NamedTempFile::keep).
///
/// Errors: [`Error::NoFileName`], [`Error::Io`], also while another run writes it, and for anything but a file of this name.
pub fn unfinished(path: &Path) -> Result<NamedTempFile> {
    file_name(path, FILE)?;
    let path = unfinished_path(path);
    let bad = |kind, why| Error::io(&path, "write")(IoError::new(kind, why));
    for _ in 0..TRIES {
        // nothing is written through a link
        if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return Err(bad(ErrorKind::AlreadyExists, "expected a file, found none or a link: remove it"));
        }
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(Error::io(&path, "write"))?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(bad(ErrorKind::WouldBlock, "another run is writing it; wait, or name another file"));
        }
        // the run that had it may have given it its name, or removed it
        if same_file(&file, &path) {
            let at = TempPath::try_from_path(&path).map_err(Error::io(&path, "write"))?;
            return Ok(NamedTempFile::from_parts(file, at));
        }
    }
    Err(bad(ErrorKind::Interrupted, "what is made there is removed at once"))
}

/// Whether a file is the one of this name.
#[cfg(unix)]
fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let pair = file.metadata().ok().zip(path.symlink_metadata().ok());
    pair.is_some_and(|(own, its)| (own.dev(), own.ino()) == (its.dev(), its.ino()))
}

#[cfg(not(unix))]
fn same_file(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Makes a staged file durable and renames it to `path`. Error: [`Error::Exists`] if it exists and must not be replaced; then
/// nothing is left.
pub fn finish(file: NamedTempFile, path: &Path, overwrite: bool) -> Result<()> {
    finish_or_return(file, path, overwrite).map_err(|both| both.1)
}

/// [`finish`], which returns the file with an error: for one that was hours of work.
pub fn finish_or_return(
    file: NamedTempFile,
    path: &Path,
    overwrite: bool,
) -> std::result::Result<(), Box<(NamedTempFile, Error)>> {
    if let Err(e) = file.as_file().sync_all() {
        return Err(Box::new((file, Error::io(path, "write")(e))));
    }
    let renamed = if overwrite { file.persist(path) } else { file.persist_noclobber(path) };
    renamed.map_err(|e| match e.error.kind() {
        ErrorKind::AlreadyExists => Box::new((e.file, Error::Exists(path.to_owned()))),
        _ => Box::new((e.file, Error::io(path, "rename the finished file to")(e.error))),
    })?;
    sync_folder(folder_of(path));
    Ok(())
}

/// A folder without its name.
pub struct Folder {
    folder: TempDir,
    /// Held while it is being filled, where the system locks folders.
    _lock: Option<File>,
}

/// A new folder beside `path`, removed when dropped, or by the next run that writes there. Errors as for [`file()`].
pub fn folder(path: &Path) -> Result<Folder> {
    let make = |builder: &Builder<'_, '_>, at: &Path| {
        let folder = builder.tempdir_in(at)?;
        let _lock = File::open(folder.path()).ok(); // a folder is no file everywhere
        Ok(Folder { folder, _lock })
    };
    let lock = |folder: &Folder| folder._lock.as_ref().map_or(Ok(()), File::try_lock);
    staged(path, FOLDER, make, lock, Folder::path)
}

impl Folder {
    /// Where it is until it is finished.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Renames it to `path`, where nothing may be but an empty folder. Its files must be durable.
    pub fn finish(self, path: &Path) -> Result<()> {
        sync_folder(self.path());
        fs::rename(self.path(), path).map_err(Error::io(path, "rename the finished folder to"))?;
        let _ = self.folder.keep(); // it has its name now, nothing is left to remove
        sync_folder(folder_of(path));
        Ok(())
    }
}

/// Makes the names in a folder durable, where the system can.
fn sync_folder(folder: &Path) {
    // what cannot be synchronised is opened by no program as a file, or is of a system that does it by itself
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

/// Removes unfinished files and folders that nobody works on any more: those of this name, or all in the folder. What
/// cannot be locked or removed stays; it is in nobody's way.
pub fn clear(folder: &Path, name: Option<&OsStr>) {
    let prefix = name.map(prefix);
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|e| is_unfinished(&e.file_name(), prefix.as_deref())) {
        if let Ok(kind) = entry.file_type() {
            let _ = remove_abandoned(&entry.path(), kind);
        }
    }
}

/// Whether something is called as what is unfinished is.
fn is_unfinished(found: &OsStr, prefix: Option<&str>) -> bool {
    let found = found.to_string_lossy();
    let Some((rest, letters)) =
        found.strip_suffix(SUFFIX).and_then(|f| f.split_at_checked(f.len().checked_sub(LETTERS)?))
    else {
        return false;
    };
    let of_name =
        prefix.map_or(rest.len() > 2 && rest.starts_with('.') && rest.ends_with('.'), |p| rest == p);
    of_name && letters.bytes().all(|letter| letter.is_ascii_alphanumeric())
}

fn remove_abandoned(path: &Path, kind: fs::FileType) -> IoResult<()> {
    // links, pipes and devices are not ours
    if kind.is_file() {
        let file = File::options().read(true).write(true).open(path)?;
        file.try_lock()?;
        fs::remove_file(path)
    } else if kind.is_dir() {
        let folder = File::open(path)?;
        folder.try_lock()?;
        fs::remove_dir_all(path)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn the_next_run_removes_what_was_left_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let strange = "a[*]?.ecq"; // nothing in it means anything
        let others = [
            ".b.ecq.abcdef.ecq-tmp",
            ".a[*]?.ecq.abc.def.ecq-tmp",
            ".a[*]?.ecq.abcde.ecq-tmp",
            ".a[*]?.ecq.abcdefg.ecq-tmp",
            ".a[*]?.ecq.äcdef.ecq-tmp",
            ".axxx.ecq.abcdef.ecq-tmp",
            "a[*]?.ecq.abcdef.ecq-tmp",
            ".a[*]?.ecq.abcdef.tmp",
            ".ecq-tmp",
        ];
        others.iter().for_each(|name| fs::write(at(name), "").unwrap());
        fs::write(at(".a[*]?.ecq.abcdef.ecq-tmp"), "left").unwrap();
        fs::create_dir(at(".a[*]?.ecq.ABC123.ecq-tmp")).unwrap();
        fs::write(at(".a[*]?.ecq.ABC123.ecq-tmp").join("inside"), "left").unwrap();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(at(others[0]), at(".a[*]?.ecq.linked.ecq-tmp")).unwrap();
        }
        let running = file(&at(strange)).unwrap();
        #[cfg(unix)]
        fs::remove_file(at(".a[*]?.ecq.linked.ecq-tmp")).expect("links stay");
        let mut expected: Vec<_> = others.iter().map(|&name| name.to_owned()).collect();
        expected.push(running.path().file_name().unwrap().to_str().unwrap().to_owned());
        expected.sort();
        assert_eq!(names(folder.path()), expected);
    }

    #[test]
    fn what_is_being_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let (first, second) = (file(&path).unwrap(), file(&path).unwrap());
        clear(folder.path(), None);
        assert_eq!(names(folder.path()).len(), 2);
        finish(first, &path, false).unwrap();
        assert!(matches!(finish(second, &path, false), Err(Error::Exists(_))));
        assert_eq!(names(folder.path()), ["out"]);
        // abandoned: still there, and not locked
        drop(file(&path).unwrap().keep().unwrap());
        assert_eq!(names(folder.path()).len(), 2);
        clear(folder.path(), None);
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[cfg(unix)]
    #[test]
    fn folders_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let (first, second) = (super::folder(&path).unwrap(), super::folder(&path).unwrap());
        fs::write(first.path().join("file"), "whole").unwrap();
        clear(folder.path(), None);
        assert_eq!(names(folder.path()).len(), 2);
        first.finish(&path).unwrap();
        fs::write(second.path().join("file"), "other").unwrap();
        assert!(second.finish(&path).is_err());
        assert_eq!(fs::read(path.join("file")).unwrap(), b"whole");
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn many_at_once_take_nothing_from_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        finish(file(&path).unwrap(), &path, true).unwrap();
                    }
                });
            }
        });
        assert_eq!(names(folder.path()), ["out"]);
    }
}
