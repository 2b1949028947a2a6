//! `cargo xtask ops`: instructions of a kernel's inner loop on AMD's RDNA 3, counted without such a chip.
//!
//! Mesa's driver compiles for a chip that is not there and prints what it made. It reads its settings from the environment,
//! so it runs in a process of its own: this program again, with `--compile`.

mod disassembly;
mod kernel;
mod radv;

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Parser;

use disassembly::Counts;

#[derive(Parser)]
#[command(name = "cargo xtask ops", about = "Counts the instructions of kernels' inner loops on RDNA 3")]
struct Args {
    /// Kernels in WGSL
    #[arg(required_unless_present = "compile")]
    files: Vec<PathBuf>,
    /// Invocations of a subgroup: 32 or 64, as the chip has
    #[arg(long, default_value_t = 32, value_parser = subgroup)]
    subgroup: u32,
    /// Weights that an invocation multiplies in one iteration (otherwise: its fused multiply-adds)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    weights: Option<u32>,
    /// Print what the driver made of each kernel, too
    #[arg(long)]
    disassembly: bool,
    /// Compile the kernel on standard input and let the driver speak; for this program itself
    #[arg(long, hide = true)]
    compile: bool,
}

/// A kernel to count.
struct Job {
    name: String,
    wgsl: String,
    /// Invocations of a subgroup.
    subgroup: u32,
    /// Weights of an iteration, if that is not the number of multiply-adds.
    weights: Option<u32>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}"); // the chain of causes, without a backtrace
            ExitCode::FAILURE
        }
    }
}

fn subgroup(word: &str) -> Result<u32, String> {
    word.parse().ok().filter(|size| [32, 64].contains(size)).ok_or_else(|| "32 or 64".to_owned())
}

fn run(args: &Args) -> Result<()> {
    if args.compile {
        let mut wgsl = String::new();
        std::io::stdin().read_to_string(&mut wgsl)?;
        return radv::compile(&kernel::translate(&wgsl)?, args.subgroup);
    }
    let mut rows = Vec::new();
    for job in jobs(args)? {
        let text = disassemble(&job).with_context(|| format!("kernel {}", job.name))?;
        if args.disassembly {
            println!("{}:\n{text}\n", job.name);
        }
        let counts = disassembly::inner_loop(&text).with_context(|| {
            format!("kernel {}: no loop with a multiply-add in what the driver printed", job.name)
        })?;
        rows.push((job, counts));
    }
    print!("{}", table(&rows));
    Ok(())
}

fn jobs(args: &Args) -> Result<Vec<Job>> {
    let job = |path: &PathBuf| {
        let wgsl = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Job { name, wgsl, subgroup: args.subgroup, weights: args.weights })
    };
    args.files.iter().map(job).collect()
}

/// What the driver prints of a kernel.
fn disassemble(job: &Job) -> Result<String> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut child = Command::new(program);
    child.args(["--compile", "--subgroup", &job.subgroup.to_string()]);
    child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = child.envs(radv::environment()?).spawn().context("cannot start this program again")?;
    let mut stdin = child.stdin.take().context("the child has no standard input")?;
    // it reads everything before it says anything
    stdin.write_all(job.wgsl.as_bytes()).context("cannot write to the child")?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        let lines: Vec<_> = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        let from = lines.len().saturating_sub(20);
        bail!("the driver cannot compile it ({}): {}", output.status, lines[from..].join("\n"));
    }
    Ok(said)
}

/// A table in Markdown. All counts are of one iteration of the inner loop, of one invocation.
fn table(rows: &[(Job, Counts)]) -> String {
    let width = rows.iter().map(|(job, _)| job.name.len()).max().unwrap_or(0).max("kernel".len());
    let mut text = format!(
        "| {:width$} | wave | VALU | SALU | LDS | VMEM | FMA | weights | VALU per weight |\n",
        "kernel"
    );
    text += &format!(
        "|{}|-----:|-----:|-----:|----:|-----:|----:|--------:|----------------:|\n",
        "-".repeat(width + 2)
    );
    for (job, counts) in rows {
        let weights = job.weights.unwrap_or(counts.fma);
        let per_weight = f64::from(counts.valu) / f64::from(weights);
        text += &format!(
            "| {:width$} | {:4} | {:4} | {:4} | {:3} | {:4} | {:3} | {weights:7} | {per_weight:15.2} |\n",
            job.name, job.subgroup, counts.valu, counts.salu, counts.lds, counts.vmem, counts.fma
        );
    }
    text
}
