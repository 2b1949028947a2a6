//! `cargo xtask miri`: the codecs' scalar paths under Miri, an interpreter that finds undefined behaviour.
//!
//! Miri ships with nightly toolchains only, which pinned builds do without, and a machine that has none may be unable to fetch
//! one. So it does not fail the step that it is missing, not in CI either; the step then says that it was not run.

use anyhow::{Result, bail};

use crate::shell;
use crate::test::Outcome;

/// Pointers keep their provenance, and are aligned by more than luck; fixtures are files, and proptest looks for its own.
const FLAGS: &str = "-Zmiri-strict-provenance -Zmiri-symbolic-alignment-check -Zmiri-disable-isolation";

/// What takes no more than a minute each. Miri is a thousand times slower than the CPU, so tests try fewer cases there.
const TESTS: [&str; 2] = [
    "--package rans-core --lib --test block --test codecs",
    "--package prefix-core --lib --test block --test stream -- --skip every_width --skip the_longest_codes",
];

/// Runs the tests.
pub fn run() -> Result<Outcome> {
    // xtask's own cargo is of the pinned toolchain, and only rustup's knows others
    let cargo = || {
        let mut cargo = shell::command("cargo");
        cargo.arg("+nightly").arg("miri").env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC");
        cargo
    };
    if !shell::works(cargo().arg("--version")) {
        let advice = "the scalar paths under Miri: no nightly toolchain has it (rustup toolchain install nightly --component \
                      miri,rust-src)";
        return Ok(Outcome::NotRun(advice.to_owned()));
    }
    if !shell::works(cargo().arg("setup")) {
        let advice = "the scalar paths under Miri: `cargo +nightly miri setup` fails, which builds its standard library";
        return Ok(Outcome::NotRun(advice.to_owned()));
    }
    let folder = shell::target_dir("miri-tests")?;
    // Miri has one thread, the machine mostly more
    std::thread::scope(|scope| {
        let run = |tests: &'static str| {
            let mut test = cargo();
            test.arg("test").args(tests.split(' ')).env("MIRIFLAGS", FLAGS).env("CARGO_TARGET_DIR", &folder);
            scope.spawn(move || shell::run(&mut test))
        };
        let running = TESTS.map(run);
        running.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread died")))
    })?;
    Ok(Outcome::Done)
}
