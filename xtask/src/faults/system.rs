//! What the system does not give: room on a disk, in a file, in memory; permission; a sector.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Part, Place, failed, nothing_left};
use crate::shell;

/// Sizes of disks and files, from next to nothing to just too small.
const SIZES: u64 = 20;
const PAGE: u64 = 4096;
/// Limits of memory, from the least with which the program starts.
const LIMITS: u64 = 64;

/// Converts on a disk of its own. What it leaves there is printed, and whether the old file is another.
const ON_DISK: &str = r#"mount -t tmpfs -o "size=$1" none "$2" || exit 99
if [ -n "$3" ]; then printf old > "$2/out.ecq"; fi
"$4" convert "$5" --output "$2/out.ecq" --scheme int8 --force --quiet
code=$?
ls -A "$2"
if [ -n "$3" ] && [ "$(cat "$2/out.ecq")" != old ]; then echo changed; fi
exit $code"#;

/// Reads a model from a disk that ends within it: the device is longer than the file in which it is.
const ON_BAD_DISK: &str = r#"truncate -s 16M "$1" || exit 99
device=$(losetup --find --show --direct-io=on "$1") || exit 99
trap 'umount "$2"; losetup --detach "$device"' EXIT
mkfs.ext4 -q "$device" && mount "$device" "$2" && cp "$3" "$2/model.safetensors" && umount "$2" || exit 99
for end in 15 14 13 12 11 10 9 8 7 6 5 4; do
    truncate -s "${end}M" "$1"
    mount -o ro,noload "$device" "$2" || exit 99
    cat "$2/model.safetensors" > "$5" && { umount "$2"; continue; }
    rm -f "$5"
    "$4" convert "$2/model.safetensors" --output "$5" --scheme int8 --quiet
    exit
done
exit 99"#;

/// A shell in which file systems can be mounted that nobody else sees; `None` if there is none.
fn mounting(place: &Place) -> Result<Option<impl Fn(&str) -> Command + use<>>> {
    let folder = place.empty("mounted")?;
    for namespaces in ["-m", "-Urm"] {
        let unshare = move || {
            let mut command = shell::command("unshare");
            command.arg(namespaces).stdin(Stdio::null());
            command
        };
        if shell::works(unshare().args(["mount", "-t", "tmpfs", "none"]).arg(&folder)) {
            return Ok(Some(move |script: &str| {
                let mut command = unshare();
                command.args(["sh", "-c", script, "sh"]);
                command
            }));
        }
    }
    Ok(None)
}

/// A full disk.
pub(super) fn disks(place: &Place) -> Result<Part> {
    let Some(shell) = mounting(place)? else {
        let what = "full disks: neither root nor allowed to `unshare -Urm` (Linux, util-linux)";
        return Ok(Part::Missing(what.into()));
    };
    let folder = place.path("mounted");
    let run = |pages: u64, old: &str| -> Result<(Output, String)> {
        let size = (pages * PAGE).to_string();
        let mut command = shell(ON_DISK);
        command.arg(size).arg(&folder).arg(old).arg(&place.ecq).arg(&place.model);
        let output = command.output().context("cannot start unshare")?;
        let listing = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok((output, listing))
    };
    let needed = (place.good.len() as u64).div_ceil(PAGE);
    for i in 0..SIZES {
        let pages = 1 + i * (needed - 2) / (SIZES - 1);
        for (old, expected) in [("", ""), ("old", "out.ecq")] {
            // the old file takes a page
            let (output, listing) = run(pages + old.len().div_ceil(3) as u64, old)?;
            failed(&output, &["out.ecq: cannot", "No space left on device"])
                .with_context(|| format!("a disk of {pages} pages of {PAGE} bytes"))?;
            ensure!(listing == expected, "on a disk of {pages} pages there is '{listing}'");
        }
    }
    let (output, listing) = run(needed + 64, "")?;
    ensure!(output.status.success() && listing == "out.ecq", "a disk with room: {}", output.status);
    Ok(Part::Done(format!(
        "full disks:                  {SIZES} of {SIZES}, and {SIZES} of {SIZES} with an old output (an error, nothing left)"
    )))
}

/// Runs a program under a limit of the shell, in the shell's units.
fn limited(flag: &str, value: u64, command: &Command) -> Result<Output> {
    let mut shell = shell::command("sh");
    shell.args(["-c", &format!("ulimit {flag} {value} && exec \"$@\""), "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.stdin(Stdio::null()).output().context("cannot start sh")
}

/// A limit of the length of files.
pub(super) fn file_sizes(place: &Place) -> Result<String> {
    let folder = place.empty("limited")?;
    let output = folder.join("out.ecq");
    // units of 512 bytes, in some shells 1,024
    let needed = place.good.len() as u64 / 1024;
    for i in 0..SIZES {
        let ended = limited("-f", i * (needed - 1) / (SIZES - 1), &place.convert(&place.model, &output))?;
        failed(&ended, &["out.ecq: cannot write", "File too large"])?;
        ensure!(!output.exists(), "an output that is too large");
        nothing_left(&folder)?;
    }
    Ok(format!("limits of file length:       {SIZES} of {SIZES} (an error, nothing left)"))
}

/// A limit of memory.
pub(super) fn memory(place: &Place) -> Result<Part> {
    let folder = place.empty("memory")?;
    let output = folder.join("out.ecq");
    let mut version = shell::command(&place.ecq);
    version.arg("--version");
    let starts = |mib: u64| Ok::<_, anyhow::Error>(limited("-v", mib << 10, &version)?.status.success());
    if starts(1)? {
        return Ok(Part::Missing("limits of memory: `ulimit -v` is not kept to here (Linux)".into()));
    }
    // below, the system cannot even load the program
    let mut least = 2;
    while !starts(least)? {
        least += 1;
    }
    let convert = |mib: u64| limited("-v", mib << 10, &place.convert(&place.model, &output));
    let mut enough = least;
    while !convert(enough)?.status.success() {
        enough += 16;
    }
    let (mut done, mut left) = (0, 0);
    for i in 0..LIMITS {
        if output.exists() {
            fs::remove_file(&output)?;
        }
        let kib = (least << 10) + i * ((enough - least) << 10) / (LIMITS - 1);
        let ended = limited("-v", kib, &place.convert(&place.model, &output))?;
        if ended.status.success() {
            ensure!(place.complete(&output, None)?, "success, and no output");
            done += 1;
        } else {
            let message = failed(&ended, &["ecq: "]).with_context(|| format!("with {kib} KiB"))?;
            ensure!(message.lines().count() == 1, "more than a line: {message}");
            ensure!(!output.exists(), "an output in spite of an error");
        }
        left += super::unfinished(&folder)?.len().min(1);
    }
    shell::run(&mut place.convert(&place.model, &output))?;
    nothing_left(&folder)?;
    Ok(Part::Done(format!(
        "limits of memory:            {LIMITS} of {LIMITS} from {least} to {enough} MiB ({done} complete; {left} left a \
         temporary file, the run after them none)"
    )))
}

/// Places that cannot be read or written.
pub(super) fn places(place: &Place) -> Result<Part> {
    let (folder, locked) = (place.empty("places")?, place.empty("places/locked")?);
    let (hidden, unreadable) = (place.empty("places/hidden")?, folder.join("unreadable.safetensors"));
    let file = folder.join("file");
    fs::write(&file, "")?;
    fs::copy(&place.model, &unreadable)?;
    let mode = |mode: &str, path: &Path| shell::run(shell::command("chmod").arg(mode).arg(path));
    for (bits, path) in [("777", &folder), ("555", &locked), ("000", &hidden), ("000", &unreadable)] {
        mode(bits, path)?;
    }
    // root may do everything
    let nobody: &[&str] = if fs::read_dir(&hidden).is_ok() {
        &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    } else {
        &["env"]
    };
    let run = |model: &Path, output: &Path| {
        let convert = place.convert(model, output);
        let words: Vec<OsString> = convert.get_args().map(Into::into).collect();
        let mut command = shell::command(nobody[0]);
        command.args(&nobody[1..]).arg(convert.get_program()).args(words).stdin(Stdio::null());
        command.output().with_context(|| format!("cannot start {}", nobody[0]))
    };
    let control = folder.join("control.ecq");
    if !run(&place.model, &control).is_ok_and(|output| output.status.success()) {
        let what = "places without permission: needs `setpriv` and a target folder that others can read";
        return Ok(Part::Missing(what.into()));
    }
    let cases: [(&Path, &Path, &[&str]); 6] = [
        (
            &unreadable,
            &folder.join("a.ecq"),
            &["unreadable.safetensors: cannot be read", "Permission denied"],
        ),
        (&place.model, &locked.join("out.ecq"), &["out.ecq: cannot create", "Permission denied"]),
        (&place.model, &hidden.join("out.ecq"), &["out.ecq: cannot", "Permission denied"]),
        (&place.model, &folder.join("none/out.ecq"), &["out.ecq: cannot create", "No such file"]),
        (&place.model, &file.join("out.ecq"), &["out.ecq: cannot create", "Not a directory"]),
        (&place.model, &locked, &["locked: is no name for a file"]),
    ];
    let before = fs::read_dir(&folder)?.count();
    for (model, output, needles) in cases {
        let ended = run(model, output)?;
        failed(&ended, needles).with_context(|| format!("{} to {}", model.display(), output.display()))?;
        ensure!(fs::read_dir(&folder)?.count() == before, "something new in {}", folder.display());
    }
    mode("777", &hidden)?; // or else it could not be removed
    nothing_left(&hidden)?;
    nothing_left(&locked)?;
    let count = cases.len();
    Ok(Part::Done(format!("places without permission:   {count} of {count} (an error, nothing new)")))
}

/// A disk that cannot read the middle of a model.
pub(super) fn bad_sector(place: &Place) -> Result<Part> {
    let (mounted, output) = (place.empty("bad")?, place.path("bad.ecq"));
    let mut command = shell::command("unshare");
    command.args(["-m", "sh", "-c", ON_BAD_DISK, "sh"]).arg(place.path("disk")).arg(&mounted);
    command.arg(&place.model).arg(&place.ecq).arg(&output).stdin(Stdio::null());
    let Ok(ended) = command.output().map(|ended| (ended.status.code(), ended)) else {
        return Ok(Part::Missing("a disk with errors: no `unshare` (Linux, util-linux)".into()));
    };
    // 99: the script could not make the disk; what `unshare` is not allowed to, it says itself
    let said = String::from_utf8_lossy(&ended.1.stderr);
    if ended.0 == Some(99) || ended.0 == Some(1) && !said.contains("ecq: ") {
        return Ok(Part::Missing("a disk with errors: needs root, loop devices and ext4".into()));
    }
    failed(&ended.1, &["model.safetensors: was cut short, or the disk could not read it"])?;
    ensure!(!output.exists(), "an output in spite of an error");
    nothing_left(place.folder.path())?;
    Ok(Part::Done("a disk with errors:          1 of 1 (an error, nothing left)".into()))
}
