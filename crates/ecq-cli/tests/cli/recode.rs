//! Files moved between the codecs of CPUs and GPUs.

use serde_json::Value;

use crate::{Folder, fails, fixture, ok, refused};

fn codecs(file: &str) -> Vec<String> {
    let json: Value = serde_json::from_str(&ok(&["inspect", file, "--json"])).unwrap();
    let all = json["tensors"].as_array().unwrap().iter();
    all.map(|t| t["codec"].as_str().unwrap().to_owned()).filter(|codec| codec != "-").collect()
}

#[test]
fn a_file_goes_there_and_back() {
    let (folder, source) = (Folder::new(), fixture("blocks.gguf"));
    let [cpu, gpu, back, restored] =
        ["cpu.ecq", "gpu.ecq", "back.ecq", "back.gguf"].map(|name| folder.at(name));
    ok(&["convert", &source, "-o", &cpu]);
    let said = ok(&["recode", &cpu, &gpu, "--profile", "gpu"]);
    assert!(said.contains("it was") && said.contains("bits a weight"), "{said}");
    assert!(codecs(&cpu).iter().all(|c| c.starts_with("nibble")), "{:?}", codecs(&cpu));
    assert!(codecs(&gpu).contains(&"prefix".to_owned()), "{:?}", codecs(&gpu));
    assert!(ok(&["inspect", &gpu]).contains("format 4"));
    assert!(ok(&["verify", &gpu, "--against", &source]).contains("identical to the source, byte for byte"));
    ok(&["restore", &gpu, "-o", &restored]);
    assert!(std::fs::read(&source).unwrap() == std::fs::read(&restored).unwrap());
    assert_eq!(ok(&["recode", &gpu, &back, "--profile", "cpu", "--quiet"]), "");
    assert!(std::fs::read(&cpu).unwrap() == std::fs::read(&back).unwrap());
    let json = ok(&["recode", &gpu, &back, "--profile", "cpu", "--force", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["version"], 1);
}

#[test]
fn what_recode_refuses() {
    let folder = Folder::new();
    let (cpu, gpu) = (folder.at("cpu.ecq"), folder.at("gpu.ecq"));
    ok(&["convert", &fixture("tiny.gguf"), "-o", &cpu]);
    ok(&["recode", &cpu, &gpu, "--profile", "gpu"]);
    refused(folder.path(), &["recode", &cpu, &gpu, "--profile", "gpu"], &["gpu.ecq", "--force"]);
    refused(
        folder.path(),
        &["recode", &cpu, &cpu, "--profile", "gpu", "--force"],
        &["cpu.ecq", "input and output at once"],
    );
    let source = fixture("tiny.gguf");
    refused(folder.path(), &["recode", &source, &folder.at("a.ecq"), "--profile", "gpu"], &["tiny.gguf"]);
    refused(
        folder.path(),
        &["recode", &folder.at("none.ecq"), &folder.at("a.ecq"), "--profile", "cpu"],
        &["none"],
    );
    fails(folder.path(), 2, &["recode", &cpu, &folder.at("a.ecq")]);
    // what is no file stays what it is: here a socket, as a device would be
    #[cfg(unix)]
    {
        let socket = folder.at("socket.ecq");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        refused(
            folder.path(),
            &["recode", &cpu, &socket, "--profile", "gpu", "--force"],
            &["socket.ecq", "no name for a file"],
        );
        assert!(!std::fs::metadata(&socket).unwrap().is_file());
    }
}
