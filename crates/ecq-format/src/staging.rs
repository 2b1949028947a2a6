//! Files and folders that get their name only when they are complete.

use std::path::Path;

use tempfile::{Builder, NamedTempFile, TempDir};

use crate::{Error, Result};

/// Permissions of new files, less the umask.
const FILE: u32 = 0o666;

fn staged<T>(
    path: &Path,
    mode: u32,
    make: impl FnOnce(&mut Builder<'_, '_>, &Path) -> std::io::Result<T>,
) -> Result<T> {
    let named = path.file_name().is_some() && !path.as_os_str().to_string_lossy().ends_with(['/', '\\']);
    // a device or a pipe would be replaced by a file, not written to
    let other = path.metadata().is_ok_and(|found| !found.is_file());
    if !named || (other && mode == FILE) {
        return Err(Error::NoFileName(path.to_owned()));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(".ecq-tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(mode)); // less the umask, as for any new file
    }
    let _ = mode;
    make(&mut builder, folder).map_err(Error::io(path, "create"))
}

/// A new file beside `path`, removed when dropped.
pub fn file(path: &Path) -> Result<NamedTempFile> {
    staged(path, FILE, |builder, folder| builder.tempfile_in(folder))
}

/// A new folder beside `path`, removed when dropped.
pub fn folder(path: &Path) -> Result<TempDir> {
    staged(path, 0o777, |builder, folder| builder.tempdir_in(folder))
}

/// Makes a staged file durable and renames it to `path`. Error: [`Error::Exists`] if it exists and must not be replaced.
pub fn finish(file: NamedTempFile, path: &Path, overwrite: bool) -> Result<()> {
    file.as_file().sync_all().map_err(Error::io(path, "write"))?;
    let renamed = if overwrite { file.persist(path) } else { file.persist_noclobber(path) };
    renamed.map(drop).map_err(|e| match e.error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::Exists(path.to_owned()),
        _ => Error::io(path, "rename the finished file to")(e.error),
    })
}
