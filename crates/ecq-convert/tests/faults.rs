//! Sources that are changed or cut short while they are being read: an error that says so, never a panic or half a file.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ecq_convert::convert::{Options, Treatment, convert, convert_source};
use ecq_convert::rates::{RateControl, Target};
use ecq_convert::recode::recode;
use ecq_convert::restore::restore;
use ecq_convert::source::{Source, SourceError, SourceLimits};
use ecq_convert::verify::verify;
use ecq_convert::{Error, Progress, Silent};
use ecq_format::encode::Profile;
use ecq_format::{Limits, Reader};
use ecq_quant::{Granularity, Scheme};

/// Models of all kinds: plain, blocks, packed.
const SOURCES: [&str; 7] =
    ["tiny.safetensors", "floats.safetensors", "blocks.gguf", "kquants.gguf", "gptq4-order", "mlx4", "nf4"];

/// Longer than the ticks of file systems' clocks.
const TICK: Duration = Duration::from_millis(30);

/// Copies a fixture to where it may be changed. Returns what to open, and the file with the weights.
fn copy(name: &str, folder: &Path) -> (PathBuf, PathBuf) {
    let from = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/sources")).join(name);
    let to = folder.join(name);
    if from.is_file() {
        fs::copy(from, &to).unwrap();
        return (to.clone(), to);
    }
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    (to.clone(), to.join("model.safetensors"))
}

fn treatments() -> Vec<Options> {
    let shared = |target| {
        let (sensitivities, row_scales, column_scales) = (Default::default(), false, false);
        Treatment::Shared(RateControl { target, sensitivities, row_scales, column_scales })
    };
    let group = Granularity::Group(32);
    let all = [
        Treatment::Lossless,
        Treatment::Lossy(Scheme::Nf4(group)),
        Treatment::Lossy(Scheme::Int8(Granularity::Tensor)),
        shared(Target::Bits(3.0)),
        shared(Target::Sqnr(20.0)),
    ];
    let profiles = [Profile::Cpu, Profile::Gpu];
    let with = |treatment: &Treatment| {
        profiles.map(|profile| Options { profile, overwrite: true, ..Options::new(treatment.clone()) })
    };
    all.iter().flat_map(with).collect()
}

fn is_change(error: &Error) -> bool {
    matches!(
        error,
        Error::Source(SourceError::Changed { .. }) | Error::Format(ecq_format::Error::Changed { .. })
    )
}

#[test]
fn sources_that_change_all_the_time_make_nothing_panic() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.ecq");
    let mut noticed = 0;
    for name in SOURCES {
        let (model, weights) = copy(name, folder.path());
        let whole = fs::read(&weights).unwrap();
        let (done, written) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let file = File::options().write(true).open(&weights).unwrap();
                let mut state = 1u64;
                while !done.load(Ordering::Relaxed) {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // behind the headers, which are read once
                    let at = whole.len() / 4 + (state >> 20) as usize % (whole.len() / 4 * 3 - 64);
                    let bytes = if state >> 63 == 0 {
                        whole[at..at + 64].to_vec()
                    } else {
                        vec![(state >> 9) as u8; 64]
                    };
                    write_at(&file, &bytes, at as u64);
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
            for options in treatments() {
                for _ in 0..5 {
                    let converted = convert(&model, &output, &options, &Silent);
                    noticed += usize::from(converted.is_err_and(|e| is_change(&e)));
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(written.into_inner() > 0);
    }
    assert!(noticed > 0);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".ecq-tmp")), "{left:?}");
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at).unwrap();
}

#[cfg(windows)]
fn write_at(file: &File, bytes: &[u8], at: u64) {
    assert_eq!(std::os::windows::fs::FileExt::seek_write(file, bytes, at).unwrap(), bytes.len());
}

/// Does something once, when it is asked for the `at`-th time whether to stop.
struct Then<F: Fn() + Sync> {
    at: usize,
    asked: AtomicUsize,
    act: F,
}

impl<F: Fn() + Sync> Progress for Then<F> {
    fn cancelled(&self) -> bool {
        if self.asked.fetch_add(1, Ordering::Relaxed) == self.at {
            (self.act)();
        }
        false
    }
}

#[test]
fn a_source_that_is_written_at_any_moment_is_not_converted() {
    let folder = tempfile::tempdir().unwrap();
    let (model, weights) = copy("tiny.safetensors", folder.path());
    let output = folder.path().join("out.ecq");
    let whole = fs::read(&weights).unwrap();
    for options in treatments() {
        for at in [0, 1, 2, 3, 5, 8] {
            fs::write(&weights, &whole).unwrap();
            std::thread::sleep(TICK);
            let source = Source::open(&model, &SourceLimits::default()).unwrap();
            fs::write(&output, "old").unwrap();
            let change = || write_at(&File::options().write(true).open(&weights).unwrap(), &whole[..8], 0);
            let then = Then { at, asked: AtomicUsize::new(0), act: change };
            let converted = convert_source(&source, &output, &options, &then);
            if then.asked.into_inner() > at {
                let error = converted.unwrap_err();
                assert!(is_change(&error), "{error}");
                assert!(error.to_string().contains("tiny.safetensors: was changed"), "{error}");
                assert_eq!(fs::read(&output).unwrap(), b"old");
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn a_small_file_of_another_length_is_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (model, _) = copy("mlx4", folder.path());
    let (config, output) = (model.join("config.json"), folder.path().join("out.ecq"));
    let whole = fs::read(&config).unwrap();
    for changed in [[&whole[..], b" "].concat(), whole[1..].to_vec(), vec![]] {
        fs::write(&config, &whole).unwrap();
        let source = Source::open(&model, &SourceLimits::default()).unwrap();
        fs::write(&config, changed).unwrap();
        let error =
            convert_source(&source, &output, &Options::new(Treatment::Lossless), &Silent).unwrap_err();
        assert!(error.to_string().contains("config.json: was changed"), "{error}");
        assert!(!output.exists());
    }
}

#[test]
fn files_that_are_cut_short_are_told_from_damaged_ones() {
    ecq_format::signals::into_errors().unwrap();
    let folder = tempfile::tempdir().unwrap();
    // long enough that its end is in other pages
    let (model, weights) = (folder.path().join("model.gguf"), folder.path().join("model.gguf"));
    let fixture = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/sources/kquants.gguf"));
    let (coded, output) = (folder.path().join("model.ecq"), folder.path().join("out"));
    let cut = |path: &Path| File::options().write(true).open(path).unwrap().set_len(5000).unwrap();
    fs::copy(fixture, &model).unwrap();
    convert(&model, &coded, &Options::new(Treatment::Lossless), &Silent).unwrap();
    let whole = fs::read(&coded).unwrap();

    let source = Source::open(&model, &SourceLimits::default()).unwrap();
    cut(&weights);
    let error = convert_source(&source, &output, &Options::new(Treatment::Lossless), &Silent).unwrap_err();
    assert!(is_change(&error) && error.to_string().contains("model.gguf: was cut short"), "{error}");

    let again = |what: &dyn Fn(&Reader) -> ecq_convert::Result<()>| {
        fs::write(&coded, &whole).unwrap();
        let reader = Reader::open(&coded, Limits::default()).unwrap();
        cut(&coded);
        let error = what(&reader).unwrap_err();
        assert!(is_change(&error) && error.to_string().contains("model.ecq: was cut short"), "{error}");
    };
    again(&|reader| verify(reader, None, &Silent).map(drop));
    again(&|reader| restore(reader, &output, None, false, &Silent).map(drop));
    again(&|reader| recode(reader, &output, Profile::Gpu, false, &Silent).map(drop));
    assert!(!output.exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}
