//! From text to tokens and back: `tokenizer.json`, or the vocabulary in a GGUF file's metadata.

use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::description::{Description, Value, Values};
use crate::error::{Error, Result};

/// Words, numbers and spaces of GPT-2, as `ByteLevel` splits them, too.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// ggml's number of a control token, and of one that users have added.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// A tokenizer and the tokens that mean something to the program.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    begin: Option<u32>,
    ends: Vec<u32>,
    template: Option<String>,
}

impl Tokenizer {
    /// From the description in a file; `path` is for errors. Error: [`Error::Tokenizer`].
    pub fn new(path: &Path, description: Description) -> Result<Self> {
        let fail = |why: String| Error::Tokenizer { path: path.into(), why };
        match description {
            Description::Gguf(values) => gguf(values).map_err(fail),
            Description::Folder { tokenizer: None, .. } => {
                Err(fail("the folder that the file was converted from had no tokenizer.json".into()))
            }
            Description::Folder { tokenizer: Some(json), config, tokenizer_config, template } => {
                folder(&json, &config, tokenizer_config.as_deref(), template.as_deref()).map_err(fail)
            }
        }
    }

    /// Tokens of a text, in which names of control tokens are these tokens; the one for the beginning comes first if the model
    /// wants one. Error: [`Error::Argument`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let fail = |e: tokenizers::Error| Error::Argument {
            what: "the text",
            expected: "text that the tokenizer takes".into(),
            got: e.to_string(),
        };
        let encoded = self.inner.encode_fast(text, false).map_err(fail)?;
        let ids = encoded.get_ids();
        // a template may have put it there already
        let begin = self.begin.filter(|begin| ids.first() != Some(begin));
        Ok(begin.iter().chain(ids).copied().collect())
    }

    /// Text of tokens. What is no UTF-8, and so may be the beginning of a letter, is U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        self.inner.decode(tokens, true).unwrap_or_default()
    }

    /// Takes tokens one after another, and gives the text that has become certain with each: letters may take several tokens.
    pub fn stream(&self) -> impl FnMut(u32) -> Option<String> + '_ {
        let mut stream = self.inner.decode_stream(true);
        move |token| stream.step(token).ok().flatten()
    }

    /// Whether a token ends a text.
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// The first token that has another name in another tokenizer, or none, with both names.
    pub fn differs(&self, other: &Self) -> Option<(u32, [Option<String>; 2])> {
        let [own, its] = [self, other].map(|tokenizer| tokenizer.inner.get_vocab_size(true) as u32);
        let names = |token| [self, other].map(|tokenizer| tokenizer.inner.id_to_token(token));
        (0..own.max(its)).map(|token| (token, names(token))).find(|(_, [own, its])| own != its)
    }

    /// The template for chats, if there is one.
    pub fn template(&self) -> Option<&str> {
        self.template.as_deref()
    }

    /// The name of the token that texts begin with, if there is one; and of the one that ends them.
    pub fn names(&self) -> [Option<String>; 2] {
        [self.begin, self.ends.first().copied()].map(|id| id.and_then(|id| self.inner.id_to_token(id)))
    }
}

fn gguf(mut values: Values) -> Result<Tokenizer, String> {
    let missing = |key: &str| format!("the metadata have no {key}");
    let model = values.get("tokenizer.ggml.model").ok_or_else(|| missing("tokenizer.ggml.model"))?;
    let model = model.text().unwrap_or("none");
    if model != "gpt2" {
        return Err(format!(
            "expected the model \"gpt2\" (byte pairs), found {model:?}: convert the model's Hugging Face folder instead"
        ));
    }
    // moved, not copied: they are most of what a small model's file says of itself
    let mut texts = |key: &str| -> Result<Vec<String>, String> {
        let Value::Array(array) = values.remove(key).ok_or_else(|| missing(key))? else {
            return Err(format!("{key} is no list"));
        };
        let text = |value| if let Value::Text(text) = value { Some(text) } else { None };
        array.into_iter().map(text).collect::<Option<Vec<_>>>().ok_or(format!("{key} is no list of texts"))
    };
    let merges = texts("tokenizer.ggml.merges")?
        .into_iter()
        .map(|merge| merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())))
        .collect::<Option<Vec<_>>>()
        .ok_or("a merge is not of two tokens")?;
    let tokens = texts("tokenizer.ggml.tokens")?;
    let kinds = values.get("tokenizer.ggml.token_type").and_then(|v| v.array()).unwrap_or_default();
    let control: Vec<AddedToken> = tokens
        .iter()
        .zip(kinds)
        .filter_map(|(token, kind)| match kind.unsigned() {
            Some(CONTROL) => Some(AddedToken::from(token.clone(), true)),
            Some(USER_DEFINED) => Some(AddedToken::from(token.clone(), false)),
            _ => None,
        })
        .collect();
    let vocabulary: ahash::AHashMap<String, u32> = tokens.into_iter().zip(0..).collect();
    let bpe = BPE::builder().vocab_and_merges(vocabulary, merges).build();
    let mut inner = tokenizers::Tokenizer::new(bpe.map_err(|e| e.to_string())?);
    let pre = values.get("tokenizer.ggml.pre").and_then(|v| v.text()).unwrap_or("default");
    inner.with_pre_tokenizer(Some(pre_tokenizer(pre)?));
    inner.with_decoder(Some(ByteLevel::default()));
    inner.add_tokens(&control);
    let id = |key: &str| values.get(key).and_then(|v| v.unsigned()).and_then(|n| u32::try_from(n).ok());
    let begins = values.get("tokenizer.ggml.add_bos_token") == Some(&Value::Bool(true));
    let mut ends: Vec<u32> =
        ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"].into_iter().filter_map(id).collect();
    // a base model's own end, beside that of a chat
    ends.extend(
        ["<|endoftext|>", "<|eot_id|>", "<|im_end|>"].iter().filter_map(|name| inner.token_to_id(name)),
    );
    Ok(Tokenizer {
        begin: id("tokenizer.ggml.bos_token_id").filter(|_| begins),
        ends,
        template: values.get("tokenizer.chat_template").and_then(|v| v.text()).map(str::to_owned),
        inner,
    })
}

/// How a text is split before pairs are merged, by llama.cpp's name for it.
fn pre_tokenizer(name: &str) -> Result<Sequence, String> {
    let split = |pattern: &str| {
        let pattern = SplitPattern::Regex(pattern.into());
        Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(|e| e.to_string())
    };
    let bytes = |regex: bool| PreTokenizerWrapper::from(ByteLevel::new(false, true, regex));
    Ok(Sequence::new(match name {
        "smollm" => vec![Digits::new(true).into(), bytes(true)],
        "gpt-2" => vec![bytes(true)],
        "llama-bpe" | "llama3" => vec![split(LLAMA3)?.into(), bytes(false)],
        "qwen2" => vec![split(QWEN2)?.into(), bytes(false)],
        name => {
            return Err(format!(
                "expected tokenizer.ggml.pre to be smollm, gpt-2, llama-bpe or qwen2, found {name:?}: convert the model's \
                 Hugging Face folder instead"
            ));
        }
    }))
}

fn folder(
    json: &[u8],
    config: &[u8],
    tokenizer_config: Option<&[u8]>,
    template: Option<&[u8]>,
) -> Result<Tokenizer, String> {
    let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|e| format!("tokenizer.json: {e}"))?;
    inner.with_truncation(None).map_err(|e| e.to_string())?.with_padding(None);
    let read = |bytes: Option<&[u8]>| -> serde_json::Value {
        bytes.and_then(|b| serde_json::from_slice(b).ok()).unwrap_or_default()
    };
    let (config, own) = (read(Some(config)), read(tokenizer_config));
    let ids = |value: &serde_json::Value| -> Vec<u32> {
        let one = |v: &serde_json::Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        value
            .as_array()
            .map_or_else(|| one(value).into_iter().collect(), |all| all.iter().filter_map(one).collect())
    };
    let named = |value: &serde_json::Value| {
        let name = value.as_str().or_else(|| value["content"].as_str());
        name.and_then(|name| inner.token_to_id(name))
    };
    let mut ends = ids(&config["eos_token_id"]);
    ends.extend(named(&own["eos_token"]));
    let begins = own["add_bos_token"].as_bool() == Some(true);
    let begin = named(&own["bos_token"]).filter(|_| begins);
    let template = match template {
        Some(bytes) => {
            Some(String::from_utf8(bytes.to_vec()).map_err(|e| format!("chat_template.jinja: {e}"))?)
        }
        None => own["chat_template"].as_str().map(str::to_owned),
    };
    Ok(Tokenizer { begin, ends, template, inner })
}
