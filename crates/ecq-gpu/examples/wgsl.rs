//! Prints the WGSL of a kernel: `cargo run -p ecq-gpu --example wgsl -- fused prefix 32 1 0`, which are what it does, the
//! code, the size of subgroups (0 for none), the number of vectors, raw bits of a level.
use ecq_gpu::variant::{Code, Form, Input, Kernel, Lanes, Table, Tuning, Value, Variant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |i: usize| arguments.get(i).map_or("", |a| a.as_str());
    let number = |i: usize, default| argument(i).parse().unwrap_or(default);
    let (size, vectors, raw_bits) = (number(2, 32), number(3, 1), number(4, 0));
    let kernel = match argument(0) {
        "decode" => Kernel::Decode,
        "plain" => Kernel::Plain { vectors, input: Input::F32 },
        "prompt" => Kernel::Prompt { input: Input::F32 },
        "plain_prompt" => Kernel::PlainPrompt { input: Input::F32 },
        "finish" => Kernel::Finish,
        _ => Kernel::Fused { vectors, input: Input::F32 },
    };
    let code = match argument(1) {
        "rans" => Code::Rans,
        "nibble" => Code::Nibble { lanes: 512 },
        _ => Code::Prefix,
    };
    let form = Form { code, value: Value::Integer { raw_bits }, ..Form::PLAIN };
    let lanes = if size == 0 { Lanes::Barriers } else { Lanes::Subgroups(size) };
    let table = if argument(5) == "buffer" { Table::Storage } else { Table::Workgroup };
    let tuning = Tuning { table, ..Tuning::default() };
    println!("{}", Variant::new(kernel, form, lanes).tuned(tuning).source());
}
