//! Model files that lie: each is refused by name, none panics or allocates what its bytes do not back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ecq_convert::source::{FileFormat, Source, SourceError, SourceKind, SourceLimits};
use safetensors::SafeTensors;
use tempfile::TempDir;

/// Remembers the largest single allocation of each thread.
struct Largest;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every request goes to the system allocator unchanged; the cell is const-initialised and has no
// destructor, so that touching it never allocates.
unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Largest = Largest;

/// What a small file may make the reader allocate at once: a folder listing's buffer is the largest.
const SMALL: usize = 128 << 10;

fn open(path: &Path) -> Result<Source, SourceError> {
    LARGEST.set(0);
    let opened = Source::open(path, &SourceLimits::default());
    assert!(LARGEST.get() < SMALL, "{} bytes for {}", LARGEST.get(), path.display());
    opened
}

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: TempDir::new().expect("a temporary folder") }
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.folder.path().join(name), bytes).expect("a temporary file");
    }

    fn open(&self, name: &str) -> Result<Source, SourceError> {
        open(&self.folder.path().join(name))
    }

    fn open_bytes(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<Source, SourceError> {
        self.write(name, bytes);
        self.open(name)
    }
}

/// Refused with this variant, and the message names the file.
macro_rules! refused {
    ($opened:expr, $name:expr, $variant:ident { $($fields:tt)* }) => {
        match $opened {
            Err(error @ SourceError::$variant { $($fields)* }) => assert!(error.to_string().contains($name), "{error}"),
            other => panic!("expected {}, found {other:?}", stringify!($variant)),
        }
    };
}

/// What [`Source`] promises about its tensors.
fn check(source: &Source) {
    let mut free = vec![0; source.files().len()];
    for tensor in source.tensors() {
        assert!(tensor.offset >= free[tensor.file]);
        free[tensor.file] = tensor.offset + tensor.len;
        assert_eq!(source.data(tensor).len() as u64, tensor.len);
    }
    assert!(source.tensors().is_sorted_by_key(|tensor| (tensor.file, tensor.offset)));
}

// ---- a GGUF writer ----

fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

fn entry(key: impl AsRef<[u8]>, id: u32, value: &[u8]) -> Vec<u8> {
    [&string(key)[..], &id.to_le_bytes(), value].concat()
}

fn array(id: u32, count: u64, values: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes()[..], &count.to_le_bytes(), values].concat()
}

fn info(name: impl AsRef<[u8]>, dimensions: &[u64], id: u32, offset: u64) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.extend((dimensions.len() as u32).to_le_bytes());
    bytes.extend(dimensions.iter().flat_map(|dimension| dimension.to_le_bytes()));
    bytes.extend(id.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

fn gguf_with(version: u32, counts: [u64; 2], body: &[Vec<u8>], data: usize) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
    bytes.extend(body.concat());
    bytes.resize(bytes.len().next_multiple_of(32) + data, 0x11);
    bytes
}

fn gguf(entries: &[Vec<u8>], infos: &[Vec<u8>], data: usize) -> Vec<u8> {
    gguf_with(3, [infos.len() as u64, entries.len() as u64], &[entries, infos].concat(), data)
}

/// Every kind of metadata value, and tensors out of order, quantized, empty, scalar and of unknown type.
fn valid_gguf() -> Vec<u8> {
    let nested = array(9, 2, &[array(0, 1, &[7]), array(8, 1, &string("x"))].concat());
    let entries = [
        entry("general.architecture", 8, &string("llama")),
        entry("general.alignment", 4, &32u32.to_le_bytes()),
        entry("flag", 7, &[1]),
        entry("short", 3, &[1, 2]),
        entry("double", 12, &1f64.to_le_bytes()),
        entry("tokens", 9, &array(8, 3, &[string("a"), string(""), string([0xff])].concat())),
        entry("scores", 9, &array(6, 2, &[0; 8])),
        entry("nested", 9, &nested),
    ];
    let infos = [
        info("late", &[64, 2], 3, 32),
        info("early", &[2, 3], 0, 0),
        info("scalar", &[], 1, 128),
        info("empty", &[0, 5], 0, 160),
        info("new", &[3], 1000, 160),
        info("last", &[256], 14, 192),
    ];
    gguf(&entries, &infos, 192 + 210)
}

#[test]
fn a_valid_gguf_is_read_whole() {
    let bytes = valid_gguf();
    for version in [2u8, 3] {
        let mut bytes = bytes.clone();
        bytes[4] = version;
        let source = Bench::new().open_bytes("model", &bytes).expect("valid");
        check(&source);
        assert_eq!((source.kind(), source.architecture()), (SourceKind::Gguf, Some("llama")));
        assert_eq!(source.files()[0].bytes(), bytes);
        assert_eq!((source.files()[0].name.as_str(), source.files()[0].format), ("model", FileFormat::Gguf));
        assert!(source.companions().is_empty() && source.left_out().is_empty());
        let data = (bytes.len() - 402) as u64;
        let found: Vec<_> = source
            .tensors()
            .iter()
            .map(|t| (t.name.as_str(), &t.shape[..], t.dtype.name(), t.offset - data, t.len))
            .collect();
        let expected: [(&str, &[u64], &str, u64, u64); 6] = [
            ("early", &[3, 2], "F32", 0, 24),
            ("late", &[2, 64], "Q4_1", 32, 80),
            ("scalar", &[], "F16", 128, 2),
            ("empty", &[5, 0], "F32", 160, 0),
            ("new", &[3], "type-1000", 160, 32),
            ("last", &[256], "Q6_K", 192, 210),
        ];
        assert_eq!(found, expected);
    }
    assert!(
        Bench::new().open_bytes("vocabulary.gguf", gguf(&[], &[], 0)).expect("valid").tensors().is_empty()
    );
}

#[test]
fn gguf_headers_that_lie_are_refused() {
    let bench = Bench::new();
    let try_open = |bytes: Vec<u8>| bench.open_bytes("m.gguf", bytes);
    let one_entry = |entry: Vec<u8>| try_open(gguf(&[entry], &[], 0));
    refused!(try_open(vec![]), "m.gguf", Empty { .. });
    refused!(try_open(b"GGML....".to_vec()), "m.gguf", BadMagic { .. });
    refused!(try_open(gguf_with(1, [0, 0], &[], 0)), "m.gguf", Version { version: 1, .. });
    refused!(try_open(gguf_with(4, [0, 0], &[], 0)), "m.gguf", Version { version: 4, .. });
    refused!(try_open(gguf_with(3 << 24, [0, 0], &[], 0)), "m.gguf", BigEndian { .. });
    for count in [1 << 21, u64::MAX] {
        refused!(try_open(gguf_with(3, [count, 0], &[], 0)), "m.gguf", CountLimit { .. });
    }
    refused!(try_open(gguf_with(3, [1 << 20, 0], &[], 0)), "m.gguf", CountImpossible { .. });
    refused!(try_open(gguf_with(3, [0, u64::MAX], &[], 0)), "m.gguf", CountImpossible { .. });
    refused!(try_open(gguf_with(3, [0, 4], &[vec![0; 20]], 0)), "m.gguf", CountImpossible { .. });
    refused!(
        one_entry([&u64::MAX.to_le_bytes()[..], &[0; 32]].concat()),
        "m.gguf",
        StringLength { at: 32, .. }
    );
    refused!(one_entry(entry([b'k'; 65537], 0, &[0])), "m.gguf", NameTooLong { len: 65537, .. });
    refused!(one_entry(entry([0xc3, 0x28], 0, &[0])), "m.gguf", Utf8 { at: 32, .. });
    refused!(one_entry(entry("k", 13, &[0])), "m.gguf", ValueType { id: 13, .. });
    refused!(one_entry(entry("k", 9, &array(99, 0, &[]))), "m.gguf", ValueType { id: 99, .. });
    refused!(one_entry(entry("k", 9, &array(0, u64::MAX, &[]))), "m.gguf", CountImpossible { .. });
    refused!(one_entry(entry("k", 9, &array(12, 1 << 61, &[]))), "m.gguf", CountImpossible { .. });
    refused!(one_entry(entry("k", 9, &array(8, 1 << 61, &[]))), "m.gguf", CountImpossible { .. });
    refused!(one_entry(entry("k", 8, &u64::MAX.to_le_bytes())), "m.gguf", StringLength { .. });
    let mut deep = array(0, 0, &[]);
    for _ in 0..1000 {
        deep = array(9, 1, &deep);
    }
    refused!(one_entry(entry("k", 9, &deep)), "m.gguf", ArrayDepth { limit: 4, .. });
    for value in [0u32, 3, 33, 1 << 21, u32::MAX] {
        let alignment = entry("general.alignment", 4, &value.to_le_bytes());
        refused!(one_entry(alignment), "m.gguf", Alignment { .. });
    }
    let alignment = entry("general.alignment", 4, &64u32.to_le_bytes());
    let twice = gguf(&[alignment.clone(), alignment], &[], 0);
    refused!(try_open(twice), "m.gguf", DuplicateKey { .. });
    let wide = entry("general.alignment", 10, &64u64.to_le_bytes());
    refused!(one_entry(wide), "m.gguf", KeyType { id: 10, .. });
    let number = entry("general.architecture", 4, &1u32.to_le_bytes());
    refused!(one_entry(number), "m.gguf", KeyType { key: "general.architecture", .. });
}

#[test]
fn gguf_tensors_that_lie_are_refused() {
    let bench = Bench::new();
    let try_open = |infos: &[Vec<u8>]| bench.open_bytes("m.gguf", gguf(&[], infos, 64));
    let one = |dimensions: &[u64], id, offset| try_open(&[info("w", dimensions, id, offset)]);
    refused!(try_open(&[info([0xff], &[1], 0, 0)]), "m.gguf", Utf8 { what: "a tensor name", .. });
    refused!(try_open(&[info([b'n'; 65537], &[1], 0, 0)]), "m.gguf", NameTooLong { .. });
    refused!(one(&[1; 9], 0, 0), "m.gguf", Dimensions { count: 9, .. });
    refused!(one(&[1 << 32, 1 << 32], 0, 0), "m.gguf", ShapeOverflow { .. });
    refused!(one(&[u64::MAX], 0, 0), "m.gguf", ShapeOverflow { .. });
    // Nothing is known of the type, so nothing of the length either: the file's end bounds it.
    assert_eq!(one(&[u64::MAX], 1000, 0).expect("valid").tensors()[0].len, 64);
    refused!(one(&[31], 2, 0), "m.gguf", RowLength { row: 31, block: 32, dtype: "Q4_0", .. });
    refused!(one(&[], 8, 0), "m.gguf", RowLength { row: 1, .. });
    refused!(one(&[128], 14, 0), "m.gguf", RowLength { block: 256, .. });
    refused!(one(&[1], 0, 4), "m.gguf", Misaligned { offset: 4, alignment: 32, .. });
    refused!(one(&[17], 0, 0), "m.gguf", OutOfFile { .. });
    refused!(one(&[1], 0, 64), "m.gguf", OutOfFile { .. });
    refused!(one(&[0], 0, 96), "m.gguf", OutOfFile { .. });
    refused!(one(&[1], 0, 1 << 62), "m.gguf", OutOfFile { .. });
    refused!(one(&[1], 0, u64::MAX - 31), "m.gguf", ShapeOverflow { .. });
    refused!(one(&[1], 1000, 64), "m.gguf", OutOfFile { .. });
    refused!(one(&[1], 1000, 1 << 63), "m.gguf", OutOfFile { .. });
    let pair = |a: (&[u64], u32, u64), b: (&[u64], u32, u64)| {
        try_open(&[info("a", a.0, a.1, a.2), info("b", b.0, b.1, b.2)])
    };
    refused!(pair((&[9], 0, 0), (&[1], 0, 32)), "m.gguf", Overlap { .. });
    refused!(pair((&[1], 0, 0), (&[1], 0, 0)), "m.gguf", Overlap { .. });
    refused!(pair((&[1], 0, 0), (&[1], 1000, 0)), "m.gguf", Overlap { .. });
    refused!(pair((&[1], 1000, 0), (&[1], 1001, 0)), "m.gguf", Overlap { .. });
    let same = [info("a", &[1], 0, 0), info("a", &[1], 0, 32)];
    refused!(try_open(&same), "m.gguf", DuplicateTensor { .. });
}

// ---- safetensors ----

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    bytes.resize(bytes.len() + data, 0x11);
    bytes
}

fn tensor(name: &str, dtype: &str, shape: &str, offsets: [u64; 2]) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":{offsets:?}}}"#)
}

fn one_tensor(name: &str) -> Vec<u8> {
    safetensors(&format!("{{{}}}", tensor(name, "F32", "1", [0, 4])), 4)
}

fn valid_safetensors() -> Vec<u8> {
    let header = [
        r#""__metadata__":{"format":"pt"}"#.to_owned(),
        tensor("late", "BF16", "2,3", [8, 20]),
        tensor("empty", "I64", "0", [8, 8]),
        tensor("scalar", "F64", "", [0, 8]),
        tensor("nibbles", "F4", "2,2", [20, 22]),
    ];
    safetensors(&format!("{{{}}}  ", header.join(",")), 22)
}

#[test]
fn a_valid_safetensors_file_is_read_whole() {
    let source = Bench::new().open_bytes("m.safetensors", valid_safetensors()).expect("valid");
    check(&source);
    assert_eq!(source.kind(), SourceKind::Safetensors);
    let found: Vec<_> =
        source.tensors().iter().map(|t| (t.name.as_str(), &t.shape[..], t.dtype.name(), t.len)).collect();
    let expected: [(&str, &[u64], &str, u64); 4] = [
        ("scalar", &[], "F64", 8),
        ("empty", &[0], "I64", 0),
        ("late", &[2, 3], "BF16", 12),
        ("nibbles", &[2, 2], "F4", 2),
    ];
    assert_eq!(found, expected);
    assert!(Bench::new().open_bytes("m", safetensors("{}", 0)).expect("valid").tensors().is_empty());
}

#[test]
fn safetensors_headers_that_lie_are_refused() {
    let bench = Bench::new();
    let try_open = |bytes: Vec<u8>| bench.open_bytes("m.safetensors", bytes);
    let header = |header: &str| try_open(safetensors(header, 0));
    refused!(try_open(vec![]), "m.safetensors", Empty { .. });
    refused!(try_open(vec![2, 0, 0]), "m.safetensors", Truncated { left: 3, .. });
    refused!(try_open(b"PK\x03\x04 a zip archive".to_vec()), "m.safetensors", BadMagic { .. });
    refused!(header("[]"), "m.safetensors", BadMagic { .. });
    for len in [u64::MAX, u64::MAX - 7, 1 << 40, 3] {
        let bytes = [&len.to_le_bytes()[..], b"{}"].concat();
        refused!(try_open(bytes), "m.safetensors", HeaderLength { left: 2, .. });
    }
    for bad in ["{", "{} {", r#"{"w":1}"#, r#"{"__metadata__":{"a":1}}"#, r#"{"w":{"dtype":"F32"}}"#] {
        refused!(header(bad), "m.safetensors", HeaderJson { .. });
    }
    refused!(header(r#"{"__metadata__":{},"__metadata__":{}}"#), "m.safetensors", HeaderJson { .. });
    refused!(header(&format!("{{{}}}", tensor("w", "F31", "1", [0, 4]))), "m.safetensors", HeaderJson { .. });
    refused!(
        header(&format!("{{{}}}", tensor("w", "F32", "-1", [0, 4]))),
        "m.safetensors",
        HeaderJson { .. }
    );
    refused!(header(&format!("{{\"w\":{}", "[".repeat(10_000))), "m.safetensors", HeaderJson { .. });
    let bytes = [&3u64.to_le_bytes()[..], &[b'{', 0xff, b'}']].concat();
    refused!(try_open(bytes), "m.safetensors", Utf8 { at: 9, .. });
    let long = format!("{{{}}}", tensor(&"n".repeat(65537), "U8", "0", [0, 0]));
    bench.write("m.safetensors", safetensors(&long, 0));
    let opened = Source::open(&bench.folder.path().join("m.safetensors"), &SourceLimits::default());
    refused!(opened, "m.safetensors", NameTooLong { .. });
}

#[test]
fn safetensors_tensors_that_lie_are_refused() {
    let bench = Bench::new();
    let try_open = |tensors: &[String], data| {
        bench.open_bytes("m.safetensors", safetensors(&format!("{{{}}}", tensors.join(",")), data))
    };
    let one = |dtype, shape: &str, offsets| try_open(&[tensor("w", dtype, shape, offsets)], 8);
    refused!(one("F32", "3", [0, 12]), "m.safetensors", OutOfFile { .. });
    refused!(one("F32", "1", [8, 4]), "m.safetensors", Offsets { begin: 8, end: 4, .. });
    refused!(one("F32", "3", [0, 8]), "m.safetensors", TensorLength { expected: 12, found: 8, .. });
    refused!(one("F4", "3", [0, 2]), "m.safetensors", PartialByte { bits: 12, .. });
    refused!(one("F32", "4294967296,4294967296", [0, 8]), "m.safetensors", ShapeOverflow { .. });
    refused!(one("U8", "2305843009213693952", [0, 8]), "m.safetensors", ShapeOverflow { .. });
    refused!(one("F32", &["1"; 65].join(","), [0, 4]), "m.safetensors", Dimensions { count: 65, .. });
    refused!(one("F32", "1", [4, 8]), "m.safetensors", Hole { .. });
    refused!(one("F32", "1", [0, 4]), "m.safetensors", TrailingBytes { .. });
    let end = u64::MAX;
    refused!(one("U8", "8", [end - 8, end]), "m.safetensors", OutOfFile { .. });
    let pair = |a, b| try_open(&[tensor("a", "F32", "1", a), tensor("b", "F32", "1", b)], 8);
    refused!(pair([0, 4], [2, 6]), "m.safetensors", Overlap { .. });
    refused!(pair([0, 4], [0, 4]), "m.safetensors", Overlap { .. });
    // The crate would merge these two and accept the file.
    let same = [tensor("w", "F32", "1", [0, 4]), tensor("w", "F32", "1", [0, 4])];
    refused!(try_open(&same, 4), "m.safetensors", DuplicateTensor { .. });
}

// ---- folders ----

fn index(weight_map: &[(&str, &str)]) -> String {
    let weight_map: BTreeMap<_, _> = weight_map.iter().copied().collect();
    serde_json::json!({ "metadata": { "total_size": 8 }, "weight_map": weight_map }).to_string()
}

fn sharded(weight_map: &[(&str, &str)]) -> Bench {
    let bench = Bench::new();
    bench.write("m-1.safetensors", one_tensor("a"));
    bench.write("m-2.safetensors", one_tensor("b"));
    bench.write("model.safetensors.index.json", index(weight_map));
    bench
}

#[test]
fn a_folder_is_sorted_into_weights_companions_and_the_rest() {
    let bench = sharded(&[("a", "m-1.safetensors"), ("b", "m-2.safetensors")]);
    for name in ["config.json", "merges.txt", "tokenizer.model", "chat_template.jinja"] {
        bench.write(name, "{}");
    }
    for name in ["README.md", ".hidden.json", "training_args.bin", "other.safetensors"] {
        bench.write(name, "not opened");
    }
    fs::create_dir(bench.folder.path().join("onnx.json")).expect("a folder");
    let source = bench.open("").expect("valid");
    check(&source);
    assert_eq!(source.kind(), SourceKind::Folder);
    let names: Vec<_> = source.files().iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["m-1.safetensors", "m-2.safetensors"]);
    let companions: Vec<_> = source.companions().iter().map(|companion| companion.name.as_str()).collect();
    let expected = [
        "chat_template.jinja",
        "config.json",
        "merges.txt",
        "model.safetensors.index.json",
        "tokenizer.model",
    ];
    assert_eq!(companions, expected);
    let rest = [".hidden.json", "README.md", "onnx.json", "other.safetensors", "training_args.bin"];
    assert_eq!(source.left_out(), rest);
    let tensors: Vec<_> = source.tensors().iter().map(|t| (t.name.as_str(), t.file)).collect();
    assert_eq!(tensors, [("a", 0), ("b", 1)]);

    let direct = bench.open("model.safetensors.index.json").expect("valid");
    assert_eq!((direct.kind(), direct.tensors()), (SourceKind::Folder, source.tensors()));
    assert_eq!((direct.companions().len(), direct.left_out().len()), (1, 0));

    fs::remove_file(bench.folder.path().join("model.safetensors.index.json")).expect("it is there");
    refused!(bench.open(""), "other.safetensors", BadMagic { .. });
    bench.write("other.safetensors", one_tensor("a"));
    refused!(bench.open(""), "other.safetensors", DuplicateTensor { .. });
    fs::remove_file(bench.folder.path().join("other.safetensors")).expect("it is there");
    assert_eq!(bench.open("").expect("valid").tensors().len(), 2);
}

#[test]
fn folders_and_indexes_that_lie_are_refused() {
    let bench = Bench::new();
    refused!(bench.open("nothing"), "nothing", NotFound { .. });
    #[cfg(unix)]
    refused!(open(Path::new("/dev/null")), "/dev/null", NotAFile { .. });
    refused!(bench.open(""), "", NoModel { .. });
    bench.write("m.gguf", "");
    refused!(bench.open(""), "give m.gguf itself", NoModel { .. });
    let index_name = "model.safetensors.index.json";
    refused!(bench.open_bytes(index_name, ""), index_name, Empty { .. });
    for text in ["{", "[]", "{}", r#"{"weight_map":{}}"#, r#"{"weight_map":{"a":1}}"#] {
        let opened = bench.open_bytes(index_name, text);
        refused!(opened, index_name, IndexJson { .. });
    }
    let outside = [
        "../m-1.safetensors",
        "/m-1.safetensors",
        "x/m-1.safetensors",
        "x\\m.safetensors",
        "c:m.safetensors",
    ];
    for file in outside.into_iter().chain(["", "..", "config.json", "a\0.safetensors"]) {
        let bench = sharded(&[("b", "m-2.safetensors"), ("a", file)]);
        refused!(bench.open(""), index_name, IndexPath { .. });
        refused!(bench.open(index_name), index_name, IndexPath { .. });
    }
    for name in ["", index_name] {
        let bench = sharded(&[("a", "m-1.safetensors"), ("b", "m-3.safetensors")]);
        refused!(bench.open(name), "\"m-3.safetensors\"", IndexMissingFile { .. });
        let bench = sharded(&[("a", "m-1.safetensors"), ("c", "m-2.safetensors")]);
        refused!(bench.open(name), "\"c\"", IndexMissingTensor { .. });
        let bench = sharded(&[("a", "m-2.safetensors"), ("b", "m-1.safetensors")]);
        refused!(bench.open(name), "\"a\"", IndexMissingTensor { .. });
        let bench = sharded(&[("a", "m-1.safetensors"), ("b", "m-2.safetensors")]);
        bench.write("m-2.safetensors", one_tensor("a"));
        refused!(bench.open(name), "m-2.safetensors", DuplicateTensor { .. });
        bench.write("m-2.safetensors", "");
        refused!(bench.open(name), "m-2.safetensors", Empty { .. });
    }
    let bench = Bench::new();
    bench.write("x.safetensors.index.json", "{}");
    bench.write("y.safetensors.index.json", "{}");
    refused!(bench.open(""), "y.safetensors.index.json", SeveralIndexes { .. });
    fs::create_dir(bench.folder.path().join("z.safetensors.index.json")).expect("a folder");
    refused!(bench.open("z.safetensors.index.json"), "z.safetensors", NoModel { .. });
}

/// Each limit is met by the file, and one less is not.
#[test]
fn limits_are_kept() {
    let bench = sharded(&[("a", "m-1.safetensors"), ("b", "m-2.safetensors")]);
    bench.write("m.gguf", valid_gguf());
    bench.write("m.safetensors", valid_safetensors());
    let gguf_header = (valid_gguf().len() - 402) as u64 / 32 * 32;
    let safetensors_header = (valid_safetensors().len() - 22 - 8) as u64;
    let index =
        fs::metadata(bench.folder.path().join("model.safetensors.index.json")).expect("it is there").len();
    type Set = fn(&mut SourceLimits, u64);
    let header: Set = |l, n| l.max_header = n;
    let tensors: Set = |l, n| l.max_tensors = n as usize;
    let name: Set = |l, n| l.max_name = n as usize;
    let dimensions: Set = |l, n| l.max_dimensions = n as usize;
    let values: Set = |l, n| l.max_values = n;
    let files: Set = |l, n| l.max_files = n as usize;
    for (file, set, exactly, words) in [
        ("m.safetensors", header, safetensors_header, "bytes or more, above the limit of"),
        ("model.safetensors.index.json", header, index, "bytes or more, above the limit of"),
        ("m.gguf", tensors, 6, "6 tensors are more than the limit of 5"),
        ("m.safetensors", tensors, 4, "4 tensors are more than the limit of 3"),
        ("model.safetensors.index.json", tensors, 2, "2 tensors are more than the limit of 1"),
        ("m.gguf", name, 20, "of 20 bytes is longer than the limit of 19"),
        ("m.safetensors", name, 7, "of 7 bytes is longer than the limit of 6"),
        ("m.gguf", dimensions, 2, "has 2 dimensions, which is more than the limit of 1"),
        ("m.safetensors", dimensions, 2, "has 2 dimensions, which is more than the limit of 1"),
        // eight entries; arrays of three, two, and two of one each
        ("m.gguf", values, 17, "17 metadata values are more than the limit of 16"),
        ("model.safetensors.index.json", files, 3, "3 files of a model are more than the limit of 2"),
    ] {
        let open = |limit| {
            let mut limits = SourceLimits::default();
            set(&mut limits, limit);
            Source::open(&bench.folder.path().join(file), &limits)
        };
        open(exactly).unwrap_or_else(|error| panic!("{file}, {exactly}: {error}"));
        let message = open(exactly - 1).expect_err(words).to_string();
        assert!(message.contains(file) && message.contains(words), "{file}: {message}");
    }
    let short = SourceLimits { max_header: gguf_header - 64, ..SourceLimits::default() };
    refused!(Source::open(&bench.folder.path().join("m.gguf"), &short), "m.gguf", HeaderTooLarge { .. });
    // Each shard keeps to the limit, both together do not.
    fs::remove_file(bench.folder.path().join("m.safetensors")).expect("it is there");
    fs::remove_file(bench.folder.path().join("model.safetensors.index.json")).expect("it is there");
    let few = SourceLimits { max_tensors: 1, ..SourceLimits::default() };
    refused!(Source::open(bench.folder.path(), &few), "m-2.safetensors", CountLimit { count: 2, .. });
    bench.write("config.json", "12345");
    for (max_companion, companions) in [(5, 1), (4, 0)] {
        let source =
            Source::open(bench.folder.path(), &SourceLimits { max_companion, ..SourceLimits::default() });
        let source = source.expect("what is too long is left out");
        assert_eq!((source.companions().len(), source.left_out().len()), (companions, 2 - companions));
    }
}

#[test]
fn values_of_metadata_are_counted_before_they_are_read() {
    use ecq_convert::source::gguf::values::metadata;
    let bytes = gguf(&[entry("k", 9, &array(0, 1 << 16, &[7; 1 << 16]))], &[], 0);
    let read = |max_values| {
        metadata(Path::new("m.gguf"), &bytes, &SourceLimits { max_values, ..SourceLimits::default() })
    };
    assert_eq!(read((1 << 16) + 1).expect("enough").len(), 1);
    LARGEST.set(0);
    refused!(read(1 << 16), "m.gguf", CountLimit { count: 65537, .. });
    assert!(LARGEST.get() < SMALL, "{} bytes", LARGEST.get());
}

// ---- every cut and every flip ----

#[test]
fn a_file_cut_anywhere_is_refused() {
    for (name, bytes) in [("m.gguf", valid_gguf()), ("m.safetensors", valid_safetensors())] {
        let bench = Bench::new();
        for cut in 0..bytes.len() {
            assert!(bench.open_bytes(name, &bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
        assert!(bench.open_bytes(name, &bytes).is_ok());
    }
}

#[test]
fn a_flipped_bit_is_refused_or_read_within_the_file() {
    for (name, mut bytes, data) in [("m.gguf", valid_gguf(), 402), ("m.safetensors", valid_safetensors(), 22)]
    {
        let bench = Bench::new();
        for bit in 0..(bytes.len() - data) * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(source) = bench.open_bytes(name, &bytes) {
                check(&source);
                if source.kind() == SourceKind::Safetensors {
                    let (_, reference) = SafeTensors::read_metadata(&bytes).expect("the crate agrees");
                    assert_eq!(reference.tensors().len(), source.tensors().len());
                }
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
