//! `ecq-bench` as `cargo xtask bench` calls it. Needs an adapter, of a GPU or of software (Mesa's lavapipe), where GPUs are
//! measured.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ecq-bench")).args(arguments).output().unwrap()
}

#[test]
fn a_gpu_is_measured_with_the_smallest_shape() {
    let quick = ["gpu", "--quick", "--json", "--shape", "576x1536", "--memory", "64", "--cache", "1"];
    // software compiles kernels for many vectors for half a minute
    let output = bench(&[&quick[..], &["--rate", "2.2,bf16", "--vectors", "1,2"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(table["copy_bandwidth"].as_f64().unwrap() > 0.0);
    let parts = table["parts"].as_array().unwrap();
    let kinds: Vec<_> = parts.iter().map(|p| p["weights"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ecq 2.2", "BF16"]);
    // far weights have raw bits, so that packed ones have eight
    for (part, packed) in parts.iter().zip(["cached, 8-bit", "cached, 16-bit"]) {
        assert!(part["error"].as_f64().unwrap() <= 1e-5);
        let rows = part["rows"].as_array().unwrap();
        let of = |way: &str| -> Vec<u64> {
            let own = rows.iter().filter(|row| row["way"] == way);
            own.map(|row| row["vectors"].as_u64().unwrap()).collect()
        };
        for way in ["plain 4-bit", "fused, prefix", "fused, rANS", packed] {
            assert_eq!(of(way), [1, 2], "{way}");
        }
        assert_eq!((of("decode, prefix"), of("decode, rANS")), (vec![0], vec![0]));
        for row in rows {
            let number = |key: &str| row[key].as_f64().unwrap();
            let (seconds, bytes) = (number("seconds"), number("bytes"));
            assert!(seconds > 0.0 && number("best") <= seconds, "{row}");
            assert!((number("gb_s") * seconds * 1e9 / bytes - 1.0).abs() < 1e-6, "{row}");
            assert!((number("g_weights_s") * seconds * 1e9 - 576.0 * 1536.0).abs() < 1.0, "{row}");
            // copies of which no cache of 1 MiB holds a quarter
            assert!(
                row["way"] == "one stream, rANS" || number("copies") * bytes >= f64::from(4 << 20),
                "{row}"
            );
        }
    }
    // every row decodes the rows before it
    let rows = parts[0]["rows"].as_array().unwrap();
    let single: Vec<_> = rows.iter().filter(|row| row["way"] == "one stream, rANS").collect();
    assert_eq!(single.len(), 1);
    assert!(single[0]["to_plain"].as_f64().unwrap() > 2.0, "{}", single[0]);
    // the rate is what was asked for, the whole file counted
    let bits = parts[0]["bits_prefix"].as_f64().unwrap();
    assert!((2.1..2.3).contains(&bits), "{bits}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    for (arguments, part) in [
        (&["--shape", "576"][..], "ROWSxCOLS"),
        (&["--rate", "9.5"], "9.5"),
        (&["--rate", "int4"], "int8 or bf16"),
        (&["--vectors", "4097"], "from 1 to 4096"),
        (&["--adapter", "no such GPU"], "no adapter"),
        (&["--quick", "--shape", "4096x4096", "--rate", "bf16", "--memory", "16"], "--memory"),
    ] {
        let output = bench(&[&["gpu"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(part), "{part}: {said}");
    }
}

#[test]
fn what_quality_cannot_measure_is_said_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let text = file("text.txt", "It is a truth universally acknowledged.");
    let novel = file("novel.txt", "Happy families are all alike.");
    let latin = folder.path().join("latin.txt");
    std::fs::write(&latin, b"caf\xe9").unwrap();
    let (latin, missing) = (latin.display().to_string(), folder.path().join("none").display().to_string());
    let other = r#"{"machine": "", "commit": "", "date": "", "calibration": ["other.txt"], "calibration_tokens": 65536,
        "texts": ["text.txt"], "tokens": 4096, "earlier": null, "rows": []}"#;
    let (other, broken) = (file("other.json", other), file("broken.json", "{"));
    let both = ["--calibrate", &novel, "--text", &text];
    for (arguments, part) in [
        (&["--calibrate", &text][..], "--text"),
        (&["--text", &text], "--calibrate"),
        (&["--calibrate", &missing, "--text", &text], "cannot read the text"),
        (&["--calibrate", &text, "--text", &latin], "latin.txt"),
        (&["--calibrate", &novel, "--calibrate", &text, "--text", &text], "not calibrated with"),
        (&[&both[..], &["--formats", "Q9_K"]].concat(), "Q4_K_M"),
        (&[&both[..], &["--tokens", "3"]].concat(), "--tokens"),
        (&[&both[..], &["--llama", &broken]].concat(), "what --json prints"),
        (&[&both[..], &["--llama", &other]].concat(), "other.txt"),
        (&both, "cargo xtask bench quality"),
    ] {
        let output = bench(&[&["quality", "--python", &missing], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(part), "{part}: {said}");
    }
}
