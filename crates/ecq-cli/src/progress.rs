//! A progress bar on a terminal, nothing in a pipe; Ctrl-C stops the work cleanly.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

pub struct Bar {
    bar: Mutex<ProgressBar>,
    quiet: bool,
    stop: Arc<AtomicBool>,
    leaves_nothing: Arc<AtomicBool>,
}

/// Time in which work that was asked to stop can do so by itself.
const PATIENCE: Duration = Duration::from_millis(200);

impl Bar {
    pub fn new(quiet: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let leaves_nothing = Arc::new(AtomicBool::new(false));
        let (asked, nothing) = (Arc::clone(&stop), Arc::clone(&leaves_nothing));
        // the first Ctrl-C lets the work remove its temporary file, the second ends the process at once
        let set = ctrlc::set_handler(move || {
            if asked.swap(true, Ordering::Relaxed) {
                std::process::exit(crate::STOPPED.into());
            }
            if nothing.load(Ordering::Relaxed) {
                std::thread::sleep(PATIENCE);
                eprintln!("ecq: stopped");
                std::process::exit(crate::STOPPED.into());
            }
        });
        if let Err(e) = set {
            tracing::warn!("Ctrl-C will leave a temporary file behind: {e}");
        }
        Self { bar: Mutex::new(ProgressBar::hidden()), quiet, stop, leaves_nothing }
    }

    fn bar(&self) -> std::sync::MutexGuard<'_, ProgressBar> {
        self.bar.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether from here on there is nothing to remove: if the work then does not soon stop by itself, the process ends.
    pub fn leaves_nothing(&self, nothing: bool) {
        self.leaves_nothing.store(nothing, Ordering::Relaxed);
    }

    pub fn finish(&self) {
        self.bar().finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
    }
}

impl ecq_convert::Progress for Bar {
    fn begin(&self, what: &str, total: u64) {
        if self.quiet {
            return;
        }
        // indicatif itself draws nothing when standard error is no terminal
        let bar = ProgressBar::new(total);
        // bytes, tokens, tensors: what is counted is told by who counts
        let style = ProgressStyle::with_template("{msg} [{bar:30}] {percent:>3} %, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_message(what.to_owned());
        *self.bar() = bar;
    }

    fn advance(&self, done: u64) {
        self.bar().inc(done);
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
