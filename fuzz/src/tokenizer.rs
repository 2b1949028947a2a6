//! What a model says of itself and its texts: metadata of GGUF, or the JSON files of a folder.

use std::path::Path;

use ecq_convert::source::SourceLimits;
use ecq_convert::source::gguf::values::metadata;
use ecq_llm::chat::{self, Message};
use ecq_llm::{Config, Description, Tokenizer};

/// Tokens that the model knows, whatever it says.
const KNOWN: usize = 1 << 20;

/// A GGUF file; or `config.json`, `tokenizer.json`, `tokenizer_config.json` and a template, with a zero byte between them.
pub fn tokenizer(bytes: &[u8]) {
    let path = Path::new("model");
    let description = if bytes.starts_with(b"GGUF") {
        match metadata(path, bytes, &SourceLimits::default()) {
            Ok(values) => Description::Gguf(values),
            Err(_) => return,
        }
    } else {
        let mut files = bytes.split(|&b| b == 0).map(<[u8]>::to_vec);
        Description::Folder {
            config: files.next().unwrap_or_default(),
            tokenizer: files.next(),
            tokenizer_config: files.next(),
            template: files.next(),
        }
    };
    let _ = Config::new(path, &description);
    let Ok(tokenizer) = Tokenizer::new(path, description, KNOWN) else { return };
    if let Ok(tokens) = tokenizer.encode("The capital of France is\n\n 1234567 ☃ <s>") {
        assert!(tokens.iter().all(|&token| (token as usize) < KNOWN));
        tokenizer.decode(&tokens);
        let mut stream = tokenizer.stream();
        tokens.iter().for_each(|&token| drop(stream(token)));
    }
    tokenizer.decode(&[0, 1, 2, 3, u32::MAX]);
    let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let _ = chat::prompt(&tokenizer, &[message("system", "Be brief."), message("user", "Who?")]);
}
