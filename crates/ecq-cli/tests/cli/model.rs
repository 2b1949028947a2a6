//! Models that run: texts, measurements, strategies, conversions on first use, and what is refused before any long work.

mod calibrate;
mod fixture;
#[cfg(unix)]
mod stopped;

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::{Folder, command, fixture as source, listing, ok, text, unfinished};
use fixture::{CONTEXT, Model};

/// Runs the command, with converted models in the folder's `cache`.
fn run(folder: &Folder, arguments: &[&str]) -> Output {
    command(arguments).env("ECQ_CACHE", folder.at("cache")).output().unwrap()
}

/// What it prints on standard output and error; it must succeed.
fn prints(folder: &Folder, arguments: &[&str]) -> [String; 2] {
    let output = run(folder, arguments);
    let both = [text(&output.stdout), text(&output.stderr)];
    assert!(output.status.success(), "ecq {arguments:?}: {both:?}");
    both
}

fn json(folder: &Folder, arguments: &[&str]) -> Value {
    let [out, err] = prints(folder, arguments);
    assert_eq!(err, "", "ecq {arguments:?}");
    serde_json::from_str(&out).unwrap()
}

/// The command must fail at once, before anything is written, with all of `needles` in its message.
fn refused(folder: &Folder, arguments: &[&str], needles: &[&str]) {
    let before = listing(folder.path());
    let output = run(folder, arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "ecq {arguments:?}: {message}");
    assert_eq!(text(&output.stdout), "", "ecq {arguments:?}");
    assert!(before == listing(folder.path()), "ecq {arguments:?} wrote something");
    for needle in needles {
        assert!(message.contains(needle), "ecq {arguments:?}: {needle:?} is not in: {message}");
    }
}

#[test]
fn a_text_is_the_same_with_every_strategy_and_number_of_threads() {
    let folder = Folder::new();
    let file = Model::default().quantize(&folder);
    let base = ["generate", &file, "--prompt", "Who?", "--max-tokens", "12", "--precision", "f32"];
    let expected = ok(&[&base[..], &["--quiet"]].concat());
    assert!(expected.starts_with("Who?") && expected.ends_with('\n') && expected.len() > 5, "{expected:?}");
    for (more, says) in [
        (&["--decode", "fused", "--threads", "1"][..], "on the CPU, 1 thread; weights fused: "),
        (&["--decode", "cached", "--threads", "3"], "on the CPU, 3 threads; weights cached: "),
        (&["--device", "cpu"], "weights cached: "), // there is memory for a model as small as this
        (&["--device", "cpu", "--memory", "2GiB"], "weights cached: "),
    ] {
        let [out, err] = prints(&folder, &[&base[..], more].concat());
        assert_eq!(out, expected, "{more:?}");
        assert!(err.contains(says) && err.contains("text: 12 tokens"), "{more:?}: {err}");
    }
}

#[test]
fn memory_decides_the_strategy_or_is_too_little() {
    let folder = Folder::new();
    let file = Model::default().quantize(&folder);
    let bench =
        json(&folder, &["bench", &file, "--prompt-tokens", "9", "--tokens", "3", "--runs", "1", "--json"]);
    let strategies = bench["strategies"].as_array().unwrap();
    let names: Vec<_> = strategies.iter().map(|s| s["decode"].as_str().unwrap()).collect();
    assert_eq!(names, ["fused", "cached"]);
    let [fused, cached] = [0, 1].map(|i| strategies[i]["planned_memory"].as_u64().unwrap());
    assert!(fused < cached);
    let run = ["perplexity", &file, "--text", &source("sharded/config.json"), "--context", "12", "--memory"];
    let taken = |bytes: u64| {
        let bytes = bytes.to_string();
        json(&folder, &[&run[..], &[&bytes, "--json"]].concat())["decode"].as_str().unwrap().to_owned()
    };
    assert_eq!(taken(cached), "cached");
    assert_eq!((taken(cached - 1).as_str(), taken(fused).as_str()), ("fused", "fused"));
    let too_little = (fused - 1).to_string();
    let needs = format!("({fused} bytes) for weights with fused");
    for command in [&run[..6], &["generate", &file, "--prompt", "12345", "--max-tokens", "7"]] {
        let arguments = [command, &["--memory", &too_little, "--decode", "fused"]].concat();
        refused(
            &folder,
            &arguments,
            &["the memory: expected at least", &needs, &format!("({too_little} bytes)")],
        );
    }
    refused(&folder, &["bench", &file, "--memory", "1kB"], &["the memory: expected at least"]);
    // two models share it
    let [both, less] = [2 * fused, 2 * fused - 1].map(|bytes| bytes.to_string());
    let beside = [&run[..], &[&both, "--decode", "fused", "--against", &file]].concat();
    prints(&folder, &beside);
    let beside = [&run[..], &[&less, "--decode", "fused", "--against", &file]].concat();
    refused(&folder, &beside, &["the memory: expected at least", &format!("({} bytes)", fused - 1)]);
}

#[test]
fn what_the_device_does_not_have_is_said() {
    let folder = Folder::new();
    let file = Model::default().convert(&folder);
    for decode in ["prefetch", "lru"] {
        let arguments = ["generate", &file, "--prompt", "x", "--device", "cpu", "--decode", decode];
        refused(&folder, &arguments, &["expected fused, cached or auto", decode]);
    }
}

#[test]
fn perplexity_beside_another_model() {
    let folder = Folder::new();
    let model = Model::default();
    let (file, lossy) = (model.convert(&folder), folder.at("lossy.ecq"));
    ok(&["convert", &folder.at("model"), "-o", &lossy, "--bits", "3"]);
    let book = folder.at("book.txt");
    std::fs::write(&book, "It is a truth universally acknowledged, ".repeat(5)).unwrap();
    let run = ["perplexity", &file, "--text", &book, "--context", "32", "--precision", "f32", "--json"];
    let measured = |more: &[&str]| json(&folder, &[&run[..], more].concat());
    let alone = measured(&[]);
    // 200 tokens in seven windows
    assert_eq!(alone["tokens"], 200 - 7);
    assert!(alone["perplexity"].as_f64().unwrap() > 1.0 && alone["against"].is_null(), "{alone}");
    if cfg!(unix) {
        assert!(alone["peak_memory"].as_u64().unwrap() > 1 << 20, "{alone}");
    }
    let same = measured(&["--against", &file]);
    assert_eq!(
        (&same["perplexity"], &same["standard_error"]),
        (&alone["perplexity"], &alone["standard_error"])
    );
    let against = &same["against"];
    assert_eq!(
        (&against["perplexity"], &against["top1_agreement"]),
        (&alone["perplexity"], &Value::from(1.0))
    );
    assert!(against["kl_divergence"].as_f64().unwrap().abs() < 1e-9, "{against}");
    let other = measured(&["--against", &lossy]);
    let number = |key: &str| other["against"][key].as_f64().unwrap();
    assert!(number("kl_divergence") > 1e-3 && number("kl_standard_error") > 0.0, "{other}");
    assert!(number("top1_agreement") < 1.0 && number("perplexity") != alone["perplexity"], "{other}");
    let [out, _] = prints(&folder, &[&run[..6], &["--against", &lossy]].concat());
    assert!(
        out.contains("peak memory") && out.contains("KL divergence from it") && out.contains('%'),
        "{out}"
    );
}

#[test]
fn models_of_other_tokens_are_not_compared() {
    let (folder, second) = (Folder::new(), Folder::new());
    let file = Model::default().convert(&folder);
    let other = Model { swapped: true, ..Model::default() }.convert(&second);
    let book = folder.at("book.txt");
    std::fs::write(&book, "Anne Elliot").unwrap();
    let run = ["perplexity", &file, "--text", &book, "--against"];
    refused(&folder, &[&run[..], &[&other]].concat(), &["token 1 is", "compared with one tokenizer"]);
    let second = Folder::new();
    let larger = Model { vocabulary: 300, ..Model::default() }.convert(&second);
    refused(&folder, &[&run[..], &[&larger]].concat(), &["257 tokens and", "300", "one vocabulary"]);
}

#[test]
fn strategies_are_measured_in_a_table() {
    let folder = Folder::new();
    let file = Model::default().convert(&folder);
    let arguments =
        ["bench", &file, "--prompt-tokens", "20", "--tokens", "5", "--runs", "2", "--threads", "1"];
    let [out, _] = prints(&folder, &arguments);
    let lines: Vec<_> = out.lines().collect();
    assert!(
        lines[0].contains("the CPU, 1 thread") && lines[0].contains("20 tokens of prompt, 5 made"),
        "{out}"
    );
    assert!(
        lines[2].starts_with("weights") && lines[3].starts_with("fused") && lines[4].starts_with("cached"),
        "{out}"
    );
    assert!(lines[2..5].iter().all(|line| line.len() == lines[2].len()), "{out}");
    assert_eq!(lines[6], "same tokens: yes, all 6 of every run", "{out}");
    let one = json(&folder, &[&arguments[..6], &["--decode", "cached", "--json"]].concat());
    assert_eq!(one["strategies"].as_array().unwrap().len(), 1);
    let line = &one["strategies"][0];
    assert_eq!((one["same_tokens"].as_u64(), line["text"].as_array().unwrap().len()), (Some(6), 6));
    for key in ["load_seconds", "first_token_seconds", "prompt_tokens_per_second", "tokens_per_second"] {
        assert!(line[key].as_f64().unwrap() > 0.0, "{key}: {line}");
    }
    // a name that begins with a dash
    std::fs::rename(&file, folder.at("-m.ecq")).unwrap();
    let output = command(["bench", "--runs", "1", "--prompt-tokens", "5", "--tokens", "2", "--", "-m.ecq"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let help = ok(&["bench", "--help"]);
    for column in ["load  ", "first  ", "prompt  ", "text  ", "planned  ", "peak  "] {
        assert!(help.contains(column), "{column}: {help}");
    }
}

#[test]
fn a_model_is_converted_on_first_use() {
    let folder = Folder::new();
    let (model, cache) = (Model::default(), folder.at("cache"));
    model.write(&folder);
    let run = ["generate", &folder.at("model"), "--prompt", "Hm", "--max-tokens", "5", "--decode", "fused"];
    let [first, said] = prints(&folder, &run);
    assert!(said.contains("converted without loss into") && said.contains(&cache), "{said}");
    let [again, said] = prints(&folder, &run);
    assert!(again == first && !said.contains("converted"), "{said}");
    assert_eq!(listing(Path::new(&cache)).len(), 1);
    // of a source that was changed there is another one
    let tokenizer = folder.at("model/tokenizer.json");
    std::fs::write(&tokenizer, format!("{} ", std::fs::read_to_string(&tokenizer).unwrap())).unwrap();
    let [_, said] = prints(&folder, &run);
    assert!(said.contains("converted without loss into"), "{said}");
    assert_eq!(listing(Path::new(&cache)).len(), 2);
    for command in [
        &["perplexity", run[1], "--text", &tokenizer, "--tokens", "50", "--context", "20"][..],
        &["bench", run[1], "--prompt-tokens", "5", "--tokens", "2", "--runs", "1"],
    ] {
        let [_, said] = prints(&folder, command);
        assert!(!said.contains("converted"), "{said}");
    }
    assert_eq!(listing(Path::new(&cache)).len(), 2);
}

#[test]
fn a_model_with_other_tensors_is_refused_before_it_is_converted() {
    let folder = Folder::new();
    for (blocks, says) in [
        (3, "tensor model.layers.2.input_layernorm.weight: expected a tensor of this name"),
        (
            1,
            "tensor model.layers.1.input_layernorm.weight: expected only tensors of a llama model of 1 blocks",
        ),
    ] {
        let model = Model { blocks, ..Model::default() };
        let file = model.convert(&folder);
        for model in [&folder.at("model"), &file] {
            refused(&folder, &["generate", model, "--prompt", "x"], &[model, says]);
        }
        std::fs::remove_file(&file).unwrap();
    }
}

#[test]
fn what_was_converted_may_be_damaged_or_have_a_long_name() {
    let folder = Folder::new();
    Model::default().write(&folder);
    let source = folder.at(&"n".repeat(250));
    std::fs::rename(folder.at("model"), &source).unwrap();
    let run = ["generate", &source, "--prompt", "Hm", "--max-tokens", "5"];
    prints(&folder, &run);
    let cache = folder.at("cache");
    let file = listing(Path::new(&cache)).into_keys().next().unwrap();
    std::fs::write(&file, &std::fs::read(&file).unwrap()[..1000]).unwrap();
    refused(&folder, &run, &[file.to_str().unwrap(), "delete it, and it is made again", "cut short"]);
    std::fs::remove_file(&file).unwrap();
    prints(&folder, &run);
    // a folder that cannot be one
    std::fs::remove_dir_all(&cache).unwrap();
    std::fs::write(&cache, "").unwrap();
    refused(&folder, &run, &[&cache, "the folder that ECQ_CACHE names"]);
}

#[test]
fn first_uses_at_once_do_not_disturb_each_other() {
    let folder = Folder::new();
    Model::default().write(&folder);
    let run = ["--quiet", "generate", &folder.at("model"), "--prompt", "Hm", "--max-tokens", "5"];
    let start = || {
        let mut command = command(run);
        command.env("ECQ_CACHE", folder.at("cache")).stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| start()).collect();
    let outputs: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    for output in &outputs {
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), text(&outputs[0].stdout));
    }
    let cache = folder.at("cache");
    assert_eq!(listing(Path::new(&cache)).len(), 1);
    assert!(unfinished(Path::new(&cache)).is_empty());
}

#[test]
fn what_is_no_language_model_is_refused() {
    let folder = Folder::new();
    let book = folder.at("book.txt");
    std::fs::write(&book, "Anne Elliot").unwrap();
    let each = |model: &str, needles: &[&str]| {
        refused(&folder, &["generate", model, "--prompt", "x"], needles);
        refused(&folder, &["perplexity", model, "--text", &book], needles);
        refused(&folder, &["bench", model], needles);
    };
    each(&folder.at("missing.ecq"), &["missing.ecq"]);
    each(&book, &["book.txt", "not an .ecq file"]);
    // numbers, but no description of what they are
    let plain = folder.at("plain.ecq");
    ok(&["convert", &source("tiny.safetensors"), "-o", &plain]);
    each(&plain, &["plain.ecq", "its description: expected a language model"]);
    let file = folder.at("other.ecq");
    let model = Model { architecture: "BertModel", ..Model::default() };
    model.write(&folder);
    ok(&["convert", &folder.at("model"), "-o", &file]);
    // converted or not
    for model in [&file, &folder.at("model")] {
        each(model, &["architectures in config.json: expected LlamaForCausalLM", "found BertModel"]);
    }
}

#[test]
fn tokenizers_that_are_missing_or_wrong_are_refused() {
    let folder = Folder::new();
    let (model, file) = (Model::default(), folder.at("other.ecq"));
    model.write(&folder);
    let tokenizer = folder.at("model/tokenizer.json");
    for (content, says) in
        [(None, "had no tokenizer.json"), (Some("{\"model\": 3}"), "tokenizer: tokenizer.json: ")]
    {
        match content {
            Some(content) => std::fs::write(&tokenizer, content).unwrap(),
            None => std::fs::remove_file(&tokenizer).unwrap(),
        }
        ok(&["convert", &folder.at("model"), "-o", &file, "--force"]);
        for model in [&file, &folder.at("model")] {
            refused(&folder, &["generate", model, "--prompt", "x"], &[model, says]);
        }
    }
}

#[test]
fn texts_that_are_too_long_too_short_or_no_texts_are_refused() {
    let folder = Folder::new();
    let file = Model::default().convert(&folder);
    let (long, context) = ("x".repeat(CONTEXT), CONTEXT.to_string());
    refused(&folder, &["generate", &file, "--prompt", ""], &["--prompt has no token"]);
    refused(
        &folder,
        &["generate", &file, "--prompt", "x", "--chat"],
        &["the chat", "a model without a template"],
    );
    let arguments = ["generate", &file, "--prompt", &long];
    refused(&folder, &arguments, &[&file, &format!("--prompt has {context} tokens"), &context]);
    let arguments = ["generate", &file, "--prompt", "xyz", "--max-tokens", &context];
    refused(&folder, &arguments, &["--prompt has 3 tokens", "ask for at most", &(CONTEXT - 3).to_string()]);
    let most = ["the context: expected 1 to", &context];
    refused(&folder, &["bench", &file, "--prompt-tokens", &context], &most);
    let book = folder.at("book.txt");
    for (content, says) in [
        (&b"one \xff two"[..], "book.txt: expected UTF-8, byte 4 is none"),
        (b"", "at least two tokens, found 0"),
        (b"x", "at least two tokens, found 1"),
    ] {
        std::fs::write(&book, content).unwrap();
        refused(&folder, &["perplexity", &file, "--text", &book], &[says]);
    }
    std::fs::write(&book, "Anne Elliot").unwrap();
    let over = (CONTEXT + 1).to_string();
    refused(&folder, &["perplexity", &file, "--text", &book, "--context", &over], &most);
    if cfg!(unix) {
        refused(
            &folder,
            &["perplexity", &file, "--text", "/dev/zero"],
            &["/dev/zero: expected at most 268435456 bytes"],
        );
    }
    let missing = folder.at("missing.txt");
    refused(&folder, &["perplexity", &file, "--text", &missing], &["missing.txt"]);
}

#[test]
fn wrong_usage_of_models_is_explained() {
    let folder = Folder::new();
    let file = Model::default().convert(&folder);
    for options in [
        &["--threads", "0"][..],
        &["--threads", "1025"],
        &["--memory", "much"],
        &["--memory", "0"],
        &["--device", "tpu"],
        &["--decode", "fast"],
        &["--temperature", "-1"],
        &["--max-tokens", "0"],
    ] {
        let output = run(&folder, &[&["generate", &file, "--prompt", "x"][..], options].concat());
        assert_eq!(output.status.code(), Some(2), "{options:?}");
        assert!(text(&output.stderr).contains("invalid value"), "{options:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_doctor_tells_what_there_is() {
    let folder = Folder::new();
    let report = json(&folder, &["doctor", "--json"]);
    assert!(
        ["scalar", "neon", "avx2", "avx512"].map(Value::from).contains(&report["cpu"]["kernels"]),
        "{report}"
    );
    assert!(report["cpu"]["threads"].as_u64().unwrap() > 0);
    assert!(report["memory"]["total"].as_u64().unwrap() > 1 << 28, "{report}");
    assert_eq!(report["converted_models"]["folder"], folder.at("cache"));
    let [out, _] = prints(&folder, &["doctor"]);
    for says in ["kernels that run: ", "memory: ", "GPU: ", "converted models: 0 of"] {
        assert!(out.contains(says), "{says}: {out}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_doctor_needs_no_driver() {
    let doctor = |arguments: &[&str]| {
        let mut command = command(arguments);
        let drivers = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];
        let output = command.envs(drivers.map(|name| (name, "/no/such/driver.json"))).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let report: Value = serde_json::from_str(&doctor(&["doctor", "--json"])).unwrap();
    assert_eq!(report["adapters"], Value::Array(Vec::new()));
    let advice = report["advice"].to_string();
    assert!(advice.contains("mesa-vulkan-drivers"), "{advice}");
    assert!(doctor(&["doctor"]).contains("GPU: none that Vulkan or Metal reaches"));
}
