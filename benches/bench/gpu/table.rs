//! The table of a GPU: on the terminal, as JSON, and as a record.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ecq_gpu::variant::Lanes;
use ecq_gpu::wgpu::Features;
use ecq_gpu::{Clock, Engine, Gpu};
use serde::Serialize;

use super::contest::{Contest, Runner, Way};
use super::flat::Flat;
use super::tensors::{Kind, Shape};
use crate::report::{Report, digits, slug};

/// A line.
#[derive(Debug, Serialize)]
struct Row {
    /// What is done with the weights.
    way: String,
    /// Vectors at once; none for decoding.
    vectors: usize,
    /// Median of seconds.
    seconds: f64,
    /// Best round, in seconds.
    best: f64,
    /// Bytes of weights that are read.
    bytes: u64,
    /// 10^9 of them a second.
    gb_s: f64,
    /// 10^9 weights a second.
    g_weights_s: f64,
    /// Bytes a second beside those of a copy.
    of_copy: f64,
    /// Time beside that of plain nibbles with as many vectors, or with one.
    to_plain: f64,
    /// Copies that take turns.
    copies: usize,
}

/// What lines are about.
pub struct Section {
    /// Of the matrix.
    pub shape: Shape,
    /// What the weights became.
    pub kind: Kind,
    /// Bits a weight in the file, in the prefix code and in rANS.
    pub bits: [f64; 2],
    /// Largest error of a product.
    pub error: f64,
    /// A product from a single stream, if there was one.
    pub flat: Option<Flat>,
}

/// Lines about the same weights.
#[derive(Debug, Serialize)]
struct Part {
    shape: Shape,
    weights: String,
    bits_prefix: f64,
    bits_rans: f64,
    /// Largest error of a product, relative to the norm.
    error: f64,
    rows: Vec<Row>,
}

/// All lines, and where they were measured.
#[derive(Debug, Serialize)]
pub struct Table {
    /// The adapter's name.
    adapter: String,
    /// All that matters of the device.
    device: Vec<String>,
    /// Operating system and CPU.
    machine: String,
    commit: String,
    date: String,
    /// Bytes a second that a copy reads and writes.
    copy_bandwidth: f64,
    notes: Vec<String>,
    parts: Vec<Part>,
}

impl Table {
    /// Without lines.
    pub fn new(gpu: &Gpu, engine: &Engine, clock: &Clock) -> Self {
        let Report { machine, commit, date, .. } = Report::new();
        let machine = format!("{} {}, {machine}", std::env::consts::OS, std::env::consts::ARCH);
        let (info, limits) = (gpu.adapter.get_info(), engine.limits());
        let lanes = match engine.lanes() {
            Lanes::Subgroups(size) => format!("subgroups of {size}"),
            Lanes::Barriers => "no subgroups: kernels with barriers".into(),
        };
        let (least, most) = (info.subgroup_min_size, info.subgroup_max_size);
        let has = |feature| if gpu.device.features().contains(feature) { "yes" } else { "no" };
        let device = vec![
            format!("{}, {:?}, {:?}", info.name, info.device_type, info.backend),
            format!("driver: {} {}", info.driver, info.driver_info),
            format!("{lanes} (the adapter says {least} to {most}); f16: {}", has(Features::SHADER_F16)),
            format!(
                "limits: {} bytes in a buffer, {} in a binding; {} bytes and {} invocations in a workgroup",
                limits.max_buffer_size,
                limits.max_storage_buffer_binding_size,
                limits.max_compute_workgroup_storage_size,
                limits.max_compute_invocations_per_workgroup
            ),
            format!("times: {}", kind(clock)),
        ];
        let adapter = info.name;
        let (copy_bandwidth, notes, parts) = (0.0, Vec::new(), Vec::new());
        let made = Self { adapter, device, machine, commit, date, copy_bandwidth, notes, parts };
        eprint!("{}", made.head());
        made
    }

    /// Whether it has no lines.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Something that a reader must know.
    pub fn note(&mut self, note: &str) {
        eprintln!("{note}");
        self.notes.push(note.into());
    }

    /// What a copy of buffers of `size` bytes reaches.
    pub fn copies(&mut self, bandwidth: f64, size: u64) {
        self.copy_bandwidth = bandwidth;
        self.note(&format!(
            "A copy from buffer to buffer, {} MiB each, reads and writes {} GB/s together",
            size >> 20,
            digits(bandwidth * 1e-9)
        ));
    }

    /// Adds the lines of a race, and shows them on standard error, so that one sees the benchmark work.
    pub fn add(&mut self, section: Section, contest: &Contest<'_>, runners: &[Runner]) -> Result<()> {
        let Section { shape, kind, bits: [bits_prefix, bits_rans], error, flat } = section;
        let copied = self.copy_bandwidth;
        let line =
            |way: String, vectors: usize, (seconds, best): (f64, f64), bytes: u64, to_plain: f64| Row {
                way,
                vectors,
                seconds,
                best,
                bytes,
                gb_s: bytes as f64 / seconds * 1e-9,
                g_weights_s: shape.weights() as f64 / seconds * 1e-9,
                of_copy: bytes as f64 / seconds / copied,
                to_plain,
                copies: 1,
            };
        let plain = |vectors: usize| {
            let plain = runners.iter().find(|r| r.way == Way::Nibbles && r.vectors == vectors);
            plain.context("plain nibbles are in every race")
        };
        let row = |runner: &Runner| -> Result<Row> {
            let Runner { way, vectors, y, .. } = *runner;
            let (name, times) = (way.name(contest.packed_bits()), (runner.median(), runner.best()));
            let row = line(name, vectors, times, contest.bytes(way), runner.ratio(plain(vectors)?));
            Ok(Row { copies: contest.copies(way), vectors: y.map_or(0, |_| vectors), ..row })
        };
        let mut rows = runners.iter().map(row).collect::<Result<Vec<_>>>()?;
        if let Some(Flat { seconds, best, bytes }) = flat {
            let ratio = seconds / plain(runners[0].vectors)?.median();
            rows.push(line("one stream, rANS".into(), 1, (seconds, best), bytes, ratio));
        }
        let part = Part { shape, weights: kind.to_string(), bits_prefix, bits_rans, error, rows };
        eprint!("\n{}", part.text());
        self.parts.push(part);
        Ok(())
    }

    fn head(&self) -> String {
        let lines =
            [self.device.join("\n"), self.machine.clone(), format!("commit {}, {}", self.commit, self.date)];
        lines.map(|line| line + "\n").concat()
    }

    /// The table as text.
    pub fn text(&self) -> String {
        let mut text = self.head();
        for note in &self.notes {
            text += &format!("{note}\n");
        }
        for part in &self.parts {
            text += &format!("\n{}", part.text());
        }
        text
    }

    /// Writes the record: a page for people. Returns its path.
    pub fn record(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(format!("gpu-{}-{}.md", slug(&self.adapter), self.date));
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        let page = format!(
            "# gpu\n\nMade by `cargo xtask bench {}`. Medians, and the best round. GB/s are of the weights that are read, \
             in the form that the line has them, and `of copy` is beside what a copy reads and writes; `x plain` is the \
             time beside that of plain nibbles with as many vectors in the same rounds (decoding: with one).\n\n\
             ```text\n{}```\n",
            arguments.join(" "),
            self.text()
        );
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Part {
    fn text(&self) -> String {
        let mut text = format!(
            "{} {}: {:.3} bits a weight in the prefix code, {:.3} in rANS; products off by {:.1e} of the norm at most\n",
            self.shape, self.weights, self.bits_prefix, self.bits_rans, self.error
        );
        text +=
            "                  vectors      time      best    GB/s  G weights/s  of copy  x plain  copies\n";
        for row in &self.rows {
            let vectors = if row.vectors == 0 { String::new() } else { row.vectors.to_string() };
            let (time, best) = (duration(row.seconds), duration(row.best));
            let numbers = [row.gb_s, row.g_weights_s, row.of_copy, row.to_plain].map(digits);
            let [gb_s, g_weights_s, of_copy, to_plain] = numbers;
            // writing to a String cannot fail
            let _ = writeln!(
                text,
                "  {:<16} {vectors:>6} {time:>9} {best:>9} {gb_s:>7} {g_weights_s:>12} {of_copy:>8} {to_plain:>8} {:>7}",
                row.way, row.copies
            );
        }
        text
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{} us", digits(s * 1e6)),
        s if s < 1.0 => format!("{} ms", digits(s * 1e3)),
        s => format!("{} s", digits(s)),
    }
}

/// What the times are.
fn kind(clock: &Clock) -> &'static str {
    match clock.has_timestamps() {
        true => "timestamps of the device before and after all repetitions",
        false => "wall time of a submission with all repetitions (no usable timestamps)",
    }
}
