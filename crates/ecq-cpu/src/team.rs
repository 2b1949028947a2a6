//! Threads that stay awake between the products of a pass.
//!
//! A pass through a model is hundreds of products of some ten microseconds each, one after another. Waking a thread takes as
//! long as such a product, so for the time of a pass the threads of rayon's pool wait for work without sleeping.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, TryLockError};

use rayon::prelude::*;

/// What a job does for each number below its count.
type Each = dyn Fn(usize) + Sync;

/// A job for all threads.
#[derive(Clone, Copy)]
struct Job {
    each: &'static Each,
    count: usize,
}

/// Waiting threads, and the job that they share.
#[derive(Default)]
struct Team {
    /// Who works on a job holds the lock for reading.
    job: RwLock<Option<Job>>,
    /// Counts jobs.
    jobs: AtomicUsize,
    /// The number that the next free thread takes.
    next: AtomicUsize,
    over: AtomicBool,
}

thread_local! {
    static TEAM: RefCell<Option<Arc<Team>>> = const { RefCell::new(None) };
}

/// How often a waiting thread looks for work before it offers its core to others: some ten microseconds.
const LOOKS: u32 = 2000;

/// Runs `pass` while the other threads of rayon's current pool wait awake for what [`for_each`] gives them. Inside, nothing may
/// wait for that pool by other means.
pub fn awake<R>(pass: impl FnOnce() -> R) -> R {
    let helpers = rayon::current_num_threads() - 1;
    if helpers == 0 || TEAM.with_borrow(Option::is_some) {
        return pass();
    }
    /// Sends the team home, also when the pass panics.
    struct Leave(Arc<Team>);
    impl Drop for Leave {
        fn drop(&mut self) {
            TEAM.set(None);
            self.0.over.store(true, Ordering::Release);
        }
    }
    let team = Arc::new(Team::default());
    rayon::in_place_scope(|scope| {
        for _ in 0..helpers {
            let team = team.clone();
            scope.spawn(move |_| team.help());
        }
        TEAM.set(Some(team.clone()));
        let _leave = Leave(team);
        pass()
    })
}

/// Calls `each` for all numbers below `count`, in no order: on the team of [`awake`], else on rayon's current pool.
pub fn for_each(count: usize, each: impl Fn(usize) + Sync) {
    if count < 2 || rayon::current_num_threads() == 1 {
        return (0..count).for_each(each);
    }
    match TEAM.take() {
        // while it works, the team is not there: jobs inside of jobs are rare and go to nobody
        Some(team) => {
            team.run(count, &each);
            TEAM.set(Some(team));
        }
        None => (0..count).into_par_iter().for_each(&each),
    }
}

impl Team {
    /// Does jobs until the pass is over.
    fn help(&self) {
        let (mut seen, mut looks) = (0, 0);
        while !self.over.load(Ordering::Acquire) {
            let jobs = self.jobs.load(Ordering::Acquire);
            if jobs == seen {
                looks += 1;
                if looks < LOOKS {
                    std::hint::spin_loop()
                } else {
                    std::thread::yield_now()
                }
                continue;
            }
            (seen, looks) = (jobs, 0);
            if let Ok(job) = self.job.try_read() {
                self.work(&job);
            }
        }
    }

    /// Takes numbers until there are none.
    fn work(&self, job: &RwLockReadGuard<'_, Option<Job>>) {
        if let Some(Job { each, count }) = **job {
            loop {
                let next = self.next.fetch_add(1, Ordering::Relaxed);
                if next >= count {
                    return;
                }
                each(next);
            }
        }
    }

    /// Does a job together.
    #[allow(unsafe_code)]
    fn run(&self, count: usize, each: &(dyn Fn(usize) + Sync)) {
        /// Takes the job back when no thread works on it any more, also when the leader panics.
        struct TakeBack<'a>(&'a Team);
        impl Drop for TakeBack<'_> {
            fn drop(&mut self) {
                self.0.set(None);
            }
        }
        self.next.store(0, Ordering::Relaxed);
        // SAFETY: the reference is used only by threads that hold `job` for reading, and `TakeBack` removes it, for which it
        // waits until none does, before this function ends in any way
        let each = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static Each>(each) };
        let back = TakeBack(self);
        self.set(Some(Job { each, count }));
        self.jobs.fetch_add(1, Ordering::Release);
        if let Ok(job) = self.job.read() {
            self.work(&job);
        }
        drop(back);
    }

    /// Changes the job when nobody reads it.
    fn set(&self, job: Option<Job>) {
        loop {
            match self.job.try_write() {
                Ok(mut now) => {
                    *now = job;
                    return;
                }
                // nothing that a writer does panics, so this is never reached
                Err(TryLockError::Poisoned(now)) => {
                    *now.into_inner() = job;
                    return;
                }
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
    }
}
