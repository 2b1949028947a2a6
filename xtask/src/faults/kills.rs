//! Killed, and asked to stop.

use std::fs;

use anyhow::{Result, ensure};

use super::{Place, nothing_left, unfinished};
use crate::shell;

/// Moments at which a conversion is killed, with no file under its name and with an old one.
const KILLS: usize = 200;
/// Moments for each of the signals that ask.
const STOPS: usize = 20;

/// What was there before.
const OLD: &[u8] = b"old";

/// SIGKILL.
pub(super) fn killed(place: &Place) -> Result<String> {
    let folder = place.empty("killed")?;
    let (output, mut complete, mut left) = (folder.join("out.ecq"), [0, 0], 0);
    for _ in 0..KILLS {
        for (old, complete) in [None, Some(OLD)].into_iter().zip(&mut complete) {
            match old {
                None if output.exists() => fs::remove_file(&output)?,
                None => {}
                Some(old) => fs::write(&output, old)?,
            }
            let mut child = place.convert(&place.model, &output).spawn()?;
            place.wait();
            child.kill()?;
            let status = child.wait()?;
            let whole = place.complete(&output, old)?;
            ensure!(whole || !status.success(), "success, and no output");
            *complete += usize::from(whole);
            left += usize::from(!unfinished(&folder)?.is_empty());
        }
    }
    ensure!(complete.iter().all(|&n| (1..KILLS).contains(&n)), "all kills came too early or too late");
    ensure!(left > 0, "no kill came while the file was being written");
    shell::run(&mut place.convert(&place.model, &output))?;
    nothing_left(&folder)?;
    let [without, with] = complete;
    let (absent, kept) = (KILLS - without, KILLS - with);
    Ok(format!(
        "kills without an old output: {KILLS} of {KILLS} ({without} complete, {absent} absent)\n\
         kills with an old output:    {KILLS} of {KILLS} ({with} complete, {kept} as it was)\n\
         {left} of them left a temporary file; the run after them left none"
    ))
}

/// SIGINT and SIGTERM.
pub(super) fn stopped(place: &Place) -> Result<String> {
    let folder = place.empty("stopped")?;
    let (output, mut complete) = (folder.join("out.ecq"), 0);
    for signal in ["-INT", "-TERM"].repeat(STOPS) {
        fs::write(&output, OLD)?;
        let child = place.convert(&place.model, &output).spawn()?;
        place.wait();
        // a child that has ended is not yet waited for, so that its number belongs to nobody else
        shell::run(shell::command("kill").args([signal, &child.id().to_string()]))?;
        let ended = child.wait_with_output()?;
        let message = String::from_utf8_lossy(&ended.stderr);
        // before the handler is there, the signal itself ends it
        ensure!(matches!(ended.status.code(), None | Some(0 | 130)), "{}: {message}", ended.status);
        let whole = place.complete(&output, Some(OLD))?;
        ensure!(whole == ended.status.success(), "{}, complete: {whole}: {message}", ended.status);
        nothing_left(&folder)?;
        complete += usize::from(whole);
    }
    let count = 2 * STOPS;
    let kept = count - complete;
    Ok(format!(
        "Ctrl-C and SIGTERM:          {count} of {count} ({complete} complete, {kept} as it was, nothing left)"
    ))
}
