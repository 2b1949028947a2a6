//! `ecq doctor`: what this machine has to run models with, what that means for ecq, and what is missing.

mod cpu;
mod gpu;

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::Result;
use ecq_llm::{SystemMemory, source};
use serde::Serialize;
use sysinfo::System;

use crate::output;
use cpu::Cpu;
use gpu::Adapter;

#[derive(Serialize)]
struct Report {
    version: &'static str,
    cpu: Cpu,
    memory: Memory,
    adapters: Vec<Adapter>,
    converted_models: Converted,
    /// What to do, if anything.
    advice: Vec<String>,
}

/// In bytes; of a container where it allows less than the machine has.
#[derive(Serialize)]
struct Memory {
    total: u64,
    available: u64,
}

/// Models that were converted on first use.
#[derive(Serialize)]
struct Converted {
    folder: Option<PathBuf>,
    files: u64,
    bytes: u64,
}

/// Prints all of it.
pub fn doctor(json: bool) -> Result<()> {
    let mut system = System::new();
    let SystemMemory { total, available } = SystemMemory::now();
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    let cpu = Cpu::find(&system);
    let adapters = gpu::adapters();
    let advice = cpu.advice().into_iter().chain(gpu::advice(&adapters)).collect();
    let version = env!("CARGO_PKG_VERSION");
    let report = Report {
        version,
        cpu,
        memory: Memory { total, available },
        adapters,
        converted_models: converted(),
        advice,
    };
    if json { output::json(&report) } else { print(&report) }
}

fn converted() -> Converted {
    let folder = source::folder().ok();
    let entries = folder.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let files =
        entries.filter_map(|entry| entry.ok()).filter(|e| e.path().extension().is_some_and(|e| e == "ecq"));
    let sizes: Vec<u64> = files.filter_map(|file| Some(file.metadata().ok()?.len())).collect();
    Converted { folder, files: sizes.len() as u64, bytes: sizes.iter().sum() }
}

fn print(report: &Report) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "ecq {}\n", report.version)?;
    report.cpu.print(&mut out)?;
    let Memory { total, available } = report.memory;
    writeln!(out, "\nmemory: {} of {} are free", output::mb(available), output::mb(total))?;
    writeln!(
        out,
        "  weights stay coded with --decode fused, which takes hardly more than the file; see ecq bench MODEL"
    )?;
    gpu::print(&report.adapters, &mut out)?;
    let Converted { folder, files, bytes } = &report.converted_models;
    match folder {
        Some(folder) => writeln!(
            out,
            "\nconverted models: {files} of {} in {}; any may be deleted",
            output::mb(*bytes),
            folder.display()
        )?,
        None => writeln!(out, "\nconverted models: no folder for them; name one in {}", source::FOLDER)?,
    }
    writeln!(out)?;
    match report.advice.as_slice() {
        [] => writeln!(out, "nothing is missing")?,
        advice => advice.iter().try_for_each(|advice| writeln!(out, "missing: {advice}"))?,
    }
    Ok(())
}
