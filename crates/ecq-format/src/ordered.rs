//! Work on all cores whose results are wanted in order, of which only a few exist at a time.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;

/// Makes `count` things with `make(i, thing)` on rayon's threads and hands them to `sink` in order, on this one.
///
/// Neither waits for the other but where it must: about two things a thread are under way or waiting. `make` gets a
/// thing that was in the sink already, or a default one, so that its buffers are used again. The first error of the
/// sink ends the work.
pub fn ordered<T: Default + Send, E>(
    count: usize,
    make: impl Fn(usize, &mut T) + Sync,
    mut sink: impl FnMut(&mut T) -> Result<(), E>,
) -> Result<(), E> {
    if count <= 1 || rayon::current_thread_index().is_some() {
        // a thread of the pool that waited could be the one that is waited for
        let mut thing = T::default();
        return (0..count).try_for_each(|i| {
            make(i, &mut thing);
            sink(&mut thing)
        });
    }
    let window = 2 * rayon::current_num_threads() + 1;
    let (sender, receiver) = mpsc::channel();
    rayon::in_place_scope(|scope| {
        let start = |i: usize, mut thing: T| {
            let (sender, make) = (sender.clone(), &make);
            scope.spawn(move |_| {
                let made = catch_unwind(AssertUnwindSafe(|| make(i, &mut thing)));
                // nobody receives after an error of the sink
                let _ = sender.send((i, made.map(|()| thing)));
            });
        };
        (0..window.min(count)).for_each(|i| start(i, T::default()));
        let mut waiting = BTreeMap::new();
        for next in 0..count {
            let mut thing = loop {
                if let Some(thing) = waiting.remove(&next) {
                    break thing;
                }
                // the sender above lives as long as this loop
                let Ok((i, made)) = receiver.recv() else { unreachable!("a sender is left") };
                waiting.insert(i, made.unwrap_or_else(|panic| resume_unwind(panic)));
            };
            sink(&mut thing)?;
            if next + window < count {
                start(next + window, thing);
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_from_few_things() {
        let mut seen = Vec::new();
        let make = |i: usize, thing: &mut Vec<usize>| {
            let used = thing.first().map_or(0, |n| n + 1);
            *thing = vec![used, i];
            std::thread::sleep(std::time::Duration::from_micros((i as u64 * 7919) % 300));
        };
        let all: Result<(), ()> = ordered(500, make, |thing| {
            seen.push((thing[1], thing[0]));
            Ok(())
        });
        all.unwrap();
        assert!(seen.iter().map(|s| s.0).eq(0..500));
        let fresh = seen.iter().filter(|s| s.1 == 0).count();
        assert!(fresh <= 2 * rayon::current_num_threads() + 1, "{fresh} things");
    }

    #[test]
    fn an_error_of_the_sink_ends_the_work_and_a_panic_passes_through() {
        let sink = |i: &mut usize| if *i == 20 { Err(*i) } else { Ok(()) };
        assert_eq!(ordered(1_000_000, |i, thing: &mut usize| *thing = i, sink), Err(20));
        let work = || ordered(50, |i, _: &mut ()| assert_ne!(i, 30, "on purpose"), |_| Ok::<(), ()>(()));
        assert!(catch_unwind(work).is_err());
    }

    #[test]
    fn a_thread_of_the_pool_does_it_alone() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let mut seen = 0;
        let sum: Result<(), ()> = pool.install(|| {
            ordered(
                100,
                |i, thing: &mut usize| *thing = i,
                |thing| {
                    seen += *thing;
                    Ok(())
                },
            )
        });
        sum.unwrap();
        assert_eq!(seen, 4950);
    }
}
