//! `ecq analyze`: its figures against each other and against what the other commands measure, and its files.

use serde_json::Value;

use crate::{Folder, fails, fixture, listing, ok, refused, weights, write_safetensors};

/// What `--json` prints.
fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&ok(&[&["analyze"][..], arguments, &["--json"]].concat())).unwrap()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// A scheme of a tensor or of all.
fn scheme<'a>(of: &'a Value, name: &str) -> &'a Value {
    list(&of["schemes"]).iter().find(|s| s["scheme"] == name).unwrap()
}

/// A model of one tensor of 256 x 512 weights.
fn one_tensor(folder: &Folder) -> String {
    let source = folder.at("model.safetensors");
    write_safetensors(&source, &[("w.weight", "F32", &[256, 512], weights(7, 256 * 512))]);
    source
}

#[test]
fn every_rate_has_its_error_beside_it() {
    for model in ["tiny.safetensors", "tiny.gguf", "sharded"] {
        let report = json(&[&fixture(model)]);
        for of in list(&report["tensors"]).iter().chain([&report["pooled"]]) {
            for s in list(&of["schemes"]) {
                let exact = s["sqnr_db"].is_null();
                assert_eq!(exact, number(&s["error_share"]) == 0.0, "{s}");
                assert!(number(&s["bits"]) > 0.0 && number(&s["stored_bits"]) > 0.0, "{s}");
                assert!(s["scheme"] != "lossless" || exact, "{s}");
            }
            for name in ["affine4 tensor", "affine4 64", "absmax4 32", "int8 row", "ecq 1.5", "ecq 5"] {
                scheme(of, name);
            }
            let lossless = !of["floats"].is_null() || !of["blocks"].is_null();
            assert_eq!(list(&of["schemes"])[0]["scheme"] == "lossless", lossless, "{model}");
            for kind in ["none", "left", "up", "planar"] {
                assert!((0.0..=8.0).contains(&number(&of["prediction"][kind])));
            }
        }
        for t in list(&report["tensors"]) {
            let statistics = &t["statistics"];
            assert!(number(&statistics["max_over_rms"]) >= 1.0, "{statistics}");
            assert_eq!(list(&statistics["histogram"]).len(), 32);
        }
        assert!(report["projection"].is_null());
    }
}

#[test]
fn coded_scales_can_be_held_against_their_entropy() {
    let report = json(&[&fixture("tiny.gguf")]);
    let of: Vec<_> = list(&report["tensors"]).iter().filter(|t| !t["blocks"].is_null()).collect();
    assert!(!of.is_empty());
    for t in of {
        let b = &t["blocks"];
        let excess = number(&b["number_bits"]) - number(&b["number_entropy"]);
        assert!((number(&b["number_excess"]) - excess).abs() < 1e-9);
        let counts: f64 = list(&b["numbers"]).iter().map(|n| number(&n["count"])).sum();
        assert_eq!(counts, number(&b["number_count"]));
        // levels, and the scales spread over the weights, are all that the lossless row counts
        let scales = number(&b["number_bits"]) * counts / number(&t["weights"]);
        let sum = number(&b["level_bits"]) + scales;
        assert!((number(&scheme(t, "lossless")["bits"]) - sum).abs() < 1e-9, "{b}");
    }
}

#[test]
fn floats_are_coded_near_the_entropy_of_their_exponents() {
    let folder = Folder::new();
    let source = folder.at("model.safetensors");
    let halves: Vec<u8> =
        weights(5, 512 * 512).as_chunks::<4>().0.iter().flat_map(|&[_, _, low, high]| [low, high]).collect();
    let mut counts = [0f64; 256];
    halves
        .as_chunks::<2>()
        .0
        .iter()
        .for_each(|&b| counts[usize::from(u16::from_le_bytes(b) >> 7 & 255)] += 1.0);
    let total = 512.0 * 512.0;
    let entropy: f64 = counts.iter().filter(|c| **c > 0.0).map(|c| c / total * (total / c).log2()).sum();
    write_safetensors(&source, &[("w", "BF16", &[512, 512], halves)]);
    let floats = &json(&[&source])["pooled"]["floats"];
    assert!((number(&floats["exponent_entropy"]) - entropy).abs() < 1e-9, "{floats}");
    assert!((7.5..=8.0).contains(&number(&floats["rest_entropy"])), "{floats}");
    // sign and mantissa are stored raw
    let (bits, least) = (number(&floats["bits"]), 8.0 + entropy);
    assert!(bits > least && bits < 1.02 * least, "{least} {floats}");
}

/// Bits a weight and SQNR of a conversion of a model of one tensor.
fn converted(folder: &Folder, source: &str, options: &[&str]) -> (f64, f64) {
    let file = folder.at("model.ecq");
    ok(&[&["convert", source, "-o", &file, "--force"][..], options].concat());
    let verified: Value =
        serde_json::from_str(&ok(&["verify", &file, "--against", source, "--json"])).unwrap();
    let tensor = &list(&verified["tensors"])[0];
    (number(&tensor["bits"]), number(&tensor["sqnr_db"]))
}

#[test]
fn schemes_give_what_their_conversions_give() {
    let folder = Folder::new();
    let source = one_tensor(&folder);
    let tensor = &json(&[&source])["tensors"][0];
    for (name, options) in [
        ("affine4 tensor", &["--scheme", "affine4"][..]),
        ("affine4 64", &["--scheme", "affine4", "--group", "64"]),
        ("absmax4 32", &["--scheme", "absmax4", "--group", "32"]),
        ("nf4 64", &["--scheme", "nf4"]),
        ("int8 row", &["--scheme", "int8"]),
        ("ecq 3.5", &["--bits", "3.5"]),
    ] {
        let (bits, sqnr) = converted(&folder, &source, options);
        let s = scheme(tensor, name);
        assert!((number(&s["bits"]) - bits).abs() < 0.01, "{name}: {bits} {s}");
        assert!((number(&s["sqnr_db"]) - sqnr).abs() < 0.05, "{name}: {sqnr} {s}");
    }
}

#[test]
fn equal_error_and_equal_rate_are_what_a_conversion_there_measures() {
    let folder = Folder::new();
    let source = one_tensor(&folder);
    let tensor = &json(&[&source])["tensors"][0];
    for name in ["affine4 64", "absmax4 32", "absmax4 128"] {
        let s = scheme(tensor, name);
        let (sqnr, at) = (number(&s["sqnr_db"]), number(&s["ecq_bits"]));
        let (bits, found) = converted(&folder, &source, &["--bits", &at.to_string()]);
        assert!((bits - at).abs() < 0.01 && (found - sqnr).abs() < 0.1, "{name}: {found} dB at {bits}; {s}");
        assert!((number(&s["bits_saved"]) - (number(&s["bits"]) - at)).abs() < 1e-9);

        let (rate, expected) = (number(&s["bits"]), number(&s["ecq_sqnr_db"]));
        let (_, found) = converted(&folder, &source, &["--bits", &rate.to_string()]);
        assert!((found - expected).abs() < 0.1, "{name}: {found} dB; {s}");
        assert!((number(&s["db_gained"]) - (expected - sqnr)).abs() < 1e-9);
    }
}

#[test]
fn the_curve_runs_a_quarter_bit_above_the_gaussian_bound() {
    let folder = Folder::new();
    let source = one_tensor(&folder);
    let report = json(&[&source]);
    let points = list(&report["pooled"]["curve"]["points"]);
    assert!(points.len() >= 10);
    for p in points {
        let (bits, sqnr, above) = (number(&p["bits"]), number(&p["sqnr_db"]), number(&p["above_bound"]));
        assert!((above - (bits - sqnr / 6.0206)).abs() < 1e-3, "{p}");
        // a sum of four uniform variables is a little easier than a Gaussian one, side costs come on top
        assert!(bits < 2.9 || (0.15..0.4).contains(&above), "{p}");
    }
    let p = &report["pooled"]["prediction"];
    for kind in ["left", "up", "planar"] {
        assert!(number(&p[kind]) > number(&p["none"]), "{p}");
    }
}

#[test]
fn a_low_rate_is_said_to_come_from_destruction() {
    let folder = Folder::new();
    let source = folder.at("model.safetensors");
    let mut bytes = weights(3, 256 * 256);
    bytes[..4].copy_from_slice(&40f32.to_le_bytes());
    write_safetensors(&source, &[("w", "F32", &[256, 256], bytes)]);
    let coarse = scheme(&json(&[&source])["pooled"], "affine4 tensor").clone();
    let text = ok(&["analyze", &source]).replace('\n', " ");
    let (bits, sqnr) = (number(&coarse["bits"]), number(&coarse["sqnr_db"]));
    assert!(bits < 1.5 && sqnr < 10.0, "{coarse}");
    let share = 100.0 * number(&coarse["error_share"]);
    let rate = format!("code to {bits:.2} bits a weight, at {sqnr:.1} dB: the error has {share:.0} %");
    for needle in [&*rate, "because the model is destroyed"] {
        assert!(text.contains(needle), "{needle:?} is not in: {text}");
    }
}

#[test]
fn tables_fit_a_terminal() {
    for model in ["tiny.safetensors", "tiny.gguf", "sharded"] {
        let text = ok(&["analyze", &fixture(model), "--bandwidth", "100GB/s"]);
        for line in text.lines() {
            assert!(line.chars().count() <= 100 || line.starts_with("- only looked up"), "{line:?}");
        }
    }
}

/// Rows of fields, read as RFC 4180 says.
fn rows(csv: &str) -> Vec<Vec<String>> {
    let (mut rows, mut quoted) = (vec![vec![String::new()]], false);
    let mut characters = csv.chars().peekable();
    while let Some(c) = characters.next() {
        let row = rows.last_mut().unwrap();
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                row.last_mut().unwrap().push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(String::new()),
            '\r' if !quoted => {
                assert_eq!(characters.next(), Some('\n'));
                rows.push(vec![String::new()]);
            }
            c => row.last_mut().unwrap().push(c),
        }
    }
    assert_eq!(rows.pop(), Some(vec![String::new()]));
    rows
}

#[test]
fn csv_has_a_row_for_each_tensor_and_scheme() {
    let folder = Folder::new();
    let (source, file) = (folder.at("model.safetensors"), folder.at("table.csv"));
    let name = "a,\"b\"\nc";
    write_safetensors(
        &source,
        &[(name, "F32", &[32, 64], weights(1, 2048)), ("plain", "BF16", &[64, 64], vec![0x3c; 8192])],
    );
    ok(&["analyze", &source, "--csv", &file]);
    let csv = std::fs::read_to_string(&file).unwrap();
    assert_eq!(csv, ok(&["analyze", &source, "--csv", "-"]));
    let (table, report) = (rows(&csv), json(&[&source]));
    let expected: Vec<_> = list(&report["tensors"])
        .iter()
        .flat_map(|t| list(&t["schemes"]).iter().map(move |s| (t, s)))
        .collect();
    assert_eq!(table.len(), 1 + expected.len());
    let column = |name: &str| table[0].iter().position(|c| c == name).unwrap();
    for (row, (t, s)) in table[1..].iter().zip(expected) {
        assert_eq!(row.len(), table[0].len());
        assert_eq!(
            (&*row[0], &*row[column("scheme")]),
            (t["name"].as_str().unwrap(), s["scheme"].as_str().unwrap())
        );
        for key in [
            "stored_bits",
            "entropy",
            "bits",
            "sqnr_db",
            "ecq_bits",
            "bits_saved",
            "ecq_sqnr_db",
            "db_gained",
        ] {
            let found = &row[column(key)];
            assert_eq!(found.is_empty(), s[key].is_null(), "{key}: {s}");
            assert!(
                found.is_empty() || found.parse::<f64>().unwrap() == number(&s[key]),
                "{key}: {found} {s}"
            );
        }
    }
    refused(folder.path(), &["analyze", &source, "--csv", "-", "--json"], &["--csv a file name"]);
}

#[test]
fn the_page_fetches_nothing_and_names_stay_text() {
    let folder = Folder::new();
    let (source, page) = (folder.at("<img src=x>.safetensors"), folder.at("report.html"));
    let hostile = "</title><script>alert(1)</script>\u{1b}";
    write_safetensors(
        &source,
        &[
            (hostile, "F32", &[64, 64], weights(1, 4096)),
            ("\"onload='alert(1)'.embed_tokens", "F32", &[64, 64], weights(2, 4096)),
            ("<b>wpe", "F32", &[64], weights(3, 64)),
        ],
    );
    let printed = ok(&["analyze", &source, "--html", &page, "--chip", "h100-sxm"]);
    assert!(printed.contains("report.html"), "{printed}");
    let html = std::fs::read_to_string(&page).unwrap();
    let lower = html.to_lowercase();
    for foreign in
        ["<script", "<img", "<b>wpe", "http:", "https:", "src=", "url(", "@import", "<link", "\u{1b}"]
    {
        let escaped_too =
            foreign == "src=" && lower.matches("src=").count() == lower.matches("&lt;img src=").count();
        assert!(escaped_too || !lower.contains(foreign), "{foreign:?} is in the page");
    }
    assert!(html.contains("&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;\u{fffd}"));
    assert!(html.contains("&quot;onload=&#39;alert(1)&#39;"));
    for part in [
        "<!DOCTYPE html>",
        "prefers-color-scheme: dark",
        "name=\"viewport\"",
        "default-src 'none'",
        "projection",
    ] {
        assert!(html.contains(part), "{part:?} is not in the page");
    }
    // every tag of the page that opens closes again
    for tag in ["svg", "table", "tr", "td", "th", "details", "figure", "div", "ul", "li", "main", "p", "h2"] {
        let opened = html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    assert_eq!(html.matches("<details>").count(), 2);
    assert!(!html.contains("NaN") && !html.contains("inf\""));
}

#[test]
fn files_are_not_replaced_and_models_never() {
    let folder = Folder::new();
    let source = one_tensor(&folder);
    let there = folder.at("there.html");
    std::fs::write(&there, b"precious").unwrap();
    for option in ["--html", "--csv"] {
        refused(
            folder.path(),
            &["analyze", &source, option, &there],
            &["there.html", "exists already", "--force"],
        );
        let arguments = ["analyze", &source, option, &source, "--force"];
        refused(folder.path(), &arguments, &["model.safetensors", "input and output at once"]);
        let nowhere = folder.at("no/such/report");
        refused(folder.path(), &["analyze", &source, option, &nowhere], &["no/such/report"]);
    }
    let both = ["analyze", &source, "--html", &there, "--csv", &there, "--force"];
    refused(folder.path(), &both, &["there.html", "same file"]);
    // a model that fails leaves nothing behind
    let bad = folder.at("bad.safetensors");
    write_safetensors(&bad, &[("w", "F32", &[32, 32], f32::NAN.to_le_bytes().repeat(1024))]);
    let page = folder.at("page.html");
    refused(
        folder.path(),
        &["analyze", &bad, "--html", &page],
        &["bad.safetensors", "'w'", "NaN", "--except"],
    );
    ok(&["analyze", &source, "--html", &there, "--force"]);
    assert_ne!(std::fs::read(&there).unwrap(), b"precious");
    assert_eq!(listing(folder.path()).len(), 3);
}

#[test]
fn tensors_are_chosen_by_name() {
    let folder = Folder::new();
    let source = folder.at("model.safetensors");
    let names = ["blk.0.up.weight", "blk.1.up.weight", "blk.1.down.weight", "embed.weight"];
    let entries = names.map(|name| (name, "F32", &[32, 32][..], weights(name.len() as u64, 1024)));
    write_safetensors(&source, &entries);
    let found = |options: &[&str]| -> Vec<String> {
        let report = json(&[&[&*source], options].concat());
        let names = list(&report["tensors"]).iter().map(|t| t["name"].as_str().unwrap().to_owned());
        let names: Vec<_> = names.collect();
        assert_eq!(names.len() + list(&report["left_out"]).len(), 4);
        assert_eq!(number(&report["pooled"]["weights"]), 1024.0 * names.len() as f64);
        names
    };
    assert_eq!(found(&["--only", "*.up.*"]), names[..2]);
    assert_eq!(found(&["--only", "blk.*", "--except", "*.up.*"]), [names[2]]);
    assert_eq!(found(&["--only", "embed.weight", "--only", "blk.0.*"]), [names[0], names[3]]);
    assert_eq!(found(&["--except", "embed*"]), names[..3]);
    let needles = ["model.safetensors", "none of the 4 tensors", "blk.0.up.weight"];
    refused(folder.path(), &["analyze", &source, "--only", "layers.*"], &needles);
    fails(folder.path(), 2, &["analyze", &source, "--only", "a["]);
    // kinds that differ in a layer's number are one row
    assert!(ok(&["analyze", &source]).contains(&format!("{:<34} {:>4}", "blk.*.up.weight", "x2")));
}

#[test]
fn tokens_a_second_follow_from_bytes_and_bandwidth() {
    let folder = Folder::new();
    let source = folder.at("model.safetensors");
    let matrix = |name, seed| (name, "F32", &[64, 64][..], weights(seed, 4096));
    let tensors = [matrix("model.embed_tokens.weight", 1), matrix("model.layers.0.w.weight", 2)];
    let norm = ("model.norm.weight", "F32", &[64][..], weights(3, 64));
    let source_row = |tensors: &[_]| {
        write_safetensors(&source, tensors);
        let p = json(&[&source, "--bandwidth", "1GB/s"])["projection"].clone();
        assert_eq!((&p["kind"], number(&p["bytes_per_second"])), (&Value::from("projection"), 1e9));
        assert!(list(&p["assumptions"]).len() >= 4);
        for row in list(&p["rows"]) {
            let product = number(&row["tokens_per_second"]) * number(&row["bytes_per_token"]);
            assert!((product / 1e9 - 1.0).abs() < 1e-9, "{row}");
        }
        (number(&list(&p["rows"])[0]["bytes_per_token"]), list(&p["looked_up"]).len(), p["tied"].clone())
    };
    // the embedding is the output matrix as long as there is no other
    let [embedding, layer] = tensors;
    let tied = source_row(&[embedding.clone(), layer.clone(), norm.clone()]);
    assert_eq!(tied, (4.0 * (2.0 * 4096.0 + 64.0), 0, Value::from("model.embed_tokens.weight")));
    let head = matrix("lm_head.weight", 4);
    let untied = source_row(&[embedding, layer, norm, head]);
    assert_eq!(untied, (4.0 * (2.0 * 4096.0 + 64.0), 1, Value::Null));

    let text = ok(&["analyze", &source, "--chip", "rtx-4090"]);
    assert!(text.contains("PROJECTION, not measured: tokens a second on RTX 4090, 1008.0 GB/s"), "{text}");
    assert!(ok(&["analyze", "--chip", "list"]).contains("M3 Ultra                   819.0"));
    refused(folder.path(), &["analyze", "--chip", "H200"], &["needs a model"]);
    for (options, needle) in [
        (["--bandwidth", "150"], "unit is missing"),
        (["--bandwidth", "150Gb/s"], "expected MB/s, GB/s"),
        (["--bandwidth", "0GB/s"], "expected 1 MB/s to"),
        (["--bandwidth", "fast"], "expected a number and a unit"),
        (["--chip", "Z80"], "RTX 3090"),
    ] {
        let message = fails(folder.path(), 2, &[&["analyze", &source][..], &options].concat());
        assert!(message.contains(needle), "{options:?}: {message}");
    }
    fails(folder.path(), 2, &["analyze", &source, "--chip", "H200", "--bandwidth", "1GB/s"]);
    fails(folder.path(), 2, &["analyze"]);
}
