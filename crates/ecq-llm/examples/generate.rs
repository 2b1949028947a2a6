//! Greedy text from a model: `cargo run --release -p ecq-llm --example generate -- MODEL.ecq TEXT [f32]`.
use std::io::Write;
use std::time::Instant;

use ecq_llm::{Decode, Model, Options, Precision, Sampling};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, prompt, more @ ..] = arguments.as_slice() else {
        return Err("expected MODEL.ecq TEXT".into());
    };
    let has = |word: &str| more.iter().any(|a| a == word);
    let options = Options {
        decode: if has("cached") { Decode::Cached } else { Decode::Fused },
        precision: if has("f32") { Precision::F32 } else { Precision::Int8 },
        ..Options::default()
    };
    let start = Instant::now();
    let model = Model::open(file.as_ref(), options)?;
    eprintln!("loaded in {:?}", start.elapsed());
    let tokens = model.tokenizer().encode(prompt)?;
    eprintln!("{tokens:?}");
    let mut cache = model.cache(512)?;
    let begun = Instant::now();
    let mut text = model.generate(&tokens, &mut cache, Sampling::default(), &|| false)?;
    eprintln!("prompt in {:?}", begun.elapsed());
    let (begun, mut count) = (Instant::now(), 0);
    for token in text.by_ref().take(100) {
        print!("{}", model.tokenizer().decode(&[token?]));
        std::io::stdout().flush()?;
        count += 1;
    }
    println!();
    eprintln!("{count} tokens, {:.1} a second", f64::from(count) / begun.elapsed().as_secs_f64());
    Ok(())
}
