//! Inputs that are cut short or written while they are mapped.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::{Place, failed, nothing_left};
use crate::shell;

/// Moments for each way to change an input.
const MOMENTS: usize = 30;

/// Longer than a tick of the clocks of file systems, within which a change is not seen.
const TICK: Duration = Duration::from_millis(20);

/// What a changed file is called.
const CHANGES: [&str; 2] = ["was cut short", "was changed"];

/// A model that is cut short or written over.
pub(super) fn sources(place: &Place) -> Result<String> {
    let folder = place.empty("inputs")?;
    let (model, output) = (folder.join("model.safetensors"), folder.join("out.ecq"));
    let whole = fs::read(&place.model)?;
    let mut counts = [0; 3];
    for cut in [true, false].repeat(MOMENTS) {
        fs::write(&model, &whole)?;
        std::thread::sleep(TICK);
        let child = place.convert(&model, &output).spawn()?;
        place.wait();
        change(place, &model, cut)?;
        let ended = child.wait_with_output()?;
        if ended.status.success() {
            // it was changed before it was opened, or after all was done
            let found = fs::read(&output)?;
            if found != place.good {
                ensure!(!cut, "an output of a model that is cut short");
                shell::run(&mut place.convert(&model, &output))?;
                ensure!(found == fs::read(&output)?, "an output of neither the old model nor the new");
            }
            fs::remove_file(&output)?;
        }
        ensure!(!output.exists(), "an output in spite of an error");
        nothing_left(&folder)?;
        counts[kind(&ended, "model.safetensors")?] += 1;
    }
    line("a model cut short or written", counts)
}

/// A `.ecq` file that is cut short or written over while it is verified.
pub(super) fn coded(place: &Place) -> Result<String> {
    let folder = place.empty("coded")?;
    let file = folder.join("model.ecq");
    let mut counts = [0; 3];
    for cut in [true, false].repeat(MOMENTS) {
        fs::write(&file, &place.good)?;
        std::thread::sleep(TICK);
        let mut verify = shell::command(&place.ecq);
        verify
            .arg("verify")
            .arg(&file)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped());
        let child = verify.spawn()?;
        std::thread::sleep(Duration::from_micros(place.below(place.time.as_micros() as u64 / 3)));
        change(place, &file, cut)?;
        counts[kind(&child.wait_with_output()?, "model.ecq")?] += 1;
    }
    line("a .ecq file likewise", counts)
}

/// Cuts a file short at a random place, or writes some bytes over others.
fn change(place: &Place, path: &Path, cut: bool) -> Result<()> {
    let mut file = File::options().write(true).open(path)?;
    let at = place.below(file.metadata()?.len() - 4096);
    if cut {
        return Ok(file.set_len(at)?);
    }
    file.seek(SeekFrom::Start(at))?;
    Ok(file.write_all(&[0x3c; 64])?)
}

/// How it ended: well, with a change that was noticed, or with a file that was damaged when it was opened.
fn kind(ended: &Output, name: &str) -> Result<usize> {
    if ended.status.success() {
        return Ok(0);
    }
    let message = failed(ended, &[name])?;
    let noticed = CHANGES.iter().any(|change| message.contains(change));
    Ok(if noticed { 1 } else { 2 })
}

fn line(what: &str, [well, noticed, refused]: [usize; 3]) -> Result<String> {
    if noticed == 0 {
        bail!("{what}: no change came while it was being read");
    }
    let count = 2 * MOMENTS;
    Ok(format!(
        "{:<28} {count} of {count} ({noticed} told so, {refused} refused as damaged before, {well} done before)",
        format!("{what}:")
    ))
}
