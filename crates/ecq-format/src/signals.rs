//! Signals by which a system ends a process for what is wrong with a file; a program can have errors instead.
//!
//! A page of a mapped file that is not there any more (the file was cut short), or that the disk cannot read, is no error
//! of a call: the thread that reads it gets SIGBUS. The handler here puts zeros in its place and marks the map, and whoever
//! reads from one asks [`Mapped::check`](crate::Mapped::check) before anything is made of what was read.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Makes errors of SIGBUS in a mapped file ([`Error::Changed`](crate::Error::Changed)) and of SIGXFSZ, a file that outgrows
/// the limit of the process (an error of the write). For programs, at their start; a library leaves signals to the program
/// that uses it. Where there are no such signals, it does nothing.
///
/// A SIGBUS that is not of a map goes to the handler that was there before; SIGXFSZ is ignored, whoever handled it.
///
/// Error: the system takes no handler.
pub fn into_errors() -> std::io::Result<()> {
    #[cfg(unix)]
    handler::install()?;
    Ok(())
}

/// Where one file is mapped. Nodes of the list are used again and never freed: a handler may be looking at them.
#[derive(Debug)]
pub(crate) struct Watched {
    taken: AtomicBool,
    /// The addresses from `start` to `end`; none while they are equal.
    start: AtomicUsize,
    end: AtomicUsize,
    failed: AtomicBool,
    next: OnceLock<Box<Watched>>,
}

/// The first of all maps.
static FIRST: Watched = Watched::new();

impl Watched {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            next: OnceLock::new(),
        }
    }

    /// Watches a map until [`Self::release`].
    pub(crate) fn claim(map: &[u8]) -> &'static Self {
        let mut node = &FIRST;
        while node.taken.swap(true, Ordering::AcqRel) {
            node = node.next.get_or_init(|| Box::new(Self::new()));
        }
        let range = map.as_ptr_range();
        node.failed.store(false, Ordering::Release);
        node.start.store(range.start as usize, Ordering::Release);
        node.end.store(range.end as usize, Ordering::Release);
        node
    }

    /// Before the map goes.
    pub(crate) fn release(&self) {
        self.end.store(0, Ordering::Release);
        self.start.store(0, Ordering::Release);
        self.taken.store(false, Ordering::Release);
    }

    /// Whether a page of the map could not be read, and is zeros since.
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The map that an address lies in, and where it ends. Waits for nothing and allocates nothing.
    #[cfg(unix)]
    fn at(address: usize) -> Option<(&'static Self, usize)> {
        let mut node = Some(&FIRST);
        while let Some(watched) = node {
            let start = watched.start.load(Ordering::Acquire);
            let end = watched.end.load(Ordering::Acquire);
            // a node that is used again meanwhile has another start
            let same = watched.start.load(Ordering::Acquire) == start;
            if same && (start..end).contains(&address) {
                return Some((watched, end));
            }
            node = watched.next.get().map(|next| &**next);
        }
        None
    }
}

#[cfg(unix)]
#[allow(unsafe_code)]
mod handler {
    use std::ffi::c_int;
    use std::io::{Error, Result};
    use std::mem::zeroed;
    use std::ptr::{null, null_mut};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Watched;

    /// Who handled SIGBUS before.
    static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();
    static PAGE: AtomicUsize = AtomicUsize::new(0);

    pub(super) fn install() -> Result<()> {
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        PAGE.store(usize::try_from(page).map_err(|_| Error::last_os_error())?, Ordering::Release);
        // SAFETY: ignoring a signal runs no code.
        if unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(Error::last_os_error());
        }
        // SAFETY: zeros are a valid `sigaction`: the default, no flags, an empty mask.
        let (mut before, mut ours): (libc::sigaction, libc::sigaction) = unsafe { (zeroed(), zeroed()) };
        // SAFETY: asks who handles the signal; `before` is written and lives.
        if unsafe { libc::sigaction(libc::SIGBUS, null(), &mut before) } != 0 {
            return Err(Error::last_os_error());
        }
        if BEFORE.set(before).is_err() {
            return Ok(()); // installed already
        }
        ours.sa_sigaction = on_bus_error as *const () as usize;
        // on the stack for signals, which Rust gives every thread, for an overflow of the other is this signal on some systems
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler calls nothing that may not be called in one (see there), and has the form that the flags say.
        match unsafe { libc::sigaction(libc::SIGBUS, &ours, null_mut()) } {
            0 => Ok(()),
            _ => Err(Error::last_os_error()),
        }
    }

    /// Zeros for the rest of the map that the address lies in. Loads and stores atomics, and calls `mmap`, which is a plain
    /// system call; everything else is only done for signals that would end the process.
    extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the system passes a valid siginfo, with an address unless a process sent the signal (then the code is no
        // positive number).
        let (sent, address) = unsafe { ((*info).si_code <= 0, (*info).si_addr() as usize) };
        if !sent && let Some((watched, end)) = Watched::at(address) {
            let page = PAGE.load(Ordering::Acquire);
            let start = address & !(page - 1);
            let len = end.next_multiple_of(page) - start;
            // the mark before the zeros: whoever sees these sees it
            watched.failed.store(true, Ordering::SeqCst);
            let (read, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
            // SAFETY: the pages are the rest of a map of ours that is only read, and are readable bytes before and after.
            let zeros = unsafe { libc::mmap(start as *mut _, len, read, flags, -1, 0) };
            if zeros != libc::MAP_FAILED {
                return;
            }
        }
        // SAFETY: passes on what the system passed.
        unsafe { pass_on(signal, info, context) }
    }

    /// What would have happened without us.
    ///
    /// # Safety
    /// The arguments are those of a handler.
    unsafe fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let default = || {
            // SAFETY: the default ends the process as soon as the signal comes again, which it does if it is of an address;
            // it is sent again in case it is not.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
        };
        let Some(before) = BEFORE.get() else { return default() };
        match before.sa_sigaction {
            libc::SIG_DFL | libc::SIG_IGN => default(),
            handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
                // SAFETY: a handler with this flag has this form.
                let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                    unsafe { std::mem::transmute(handler) };
                handler(signal, info, context);
            }
            handler => {
                // SAFETY: a handler without the flag has this form.
                let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
                handler(signal);
            }
        }
    }
}
