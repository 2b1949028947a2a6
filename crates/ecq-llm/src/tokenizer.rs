//! From text to tokens and back: `tokenizer.json`, or the vocabulary in a GGUF file's metadata.

use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::components;
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
    /// Whether it is put before texts; templates name it themselves.
    begins: bool,
    ends: Vec<u32>,
    template: Option<String>,
    /// Tokens that the model knows.
    vocabulary: usize,
}

impl Tokenizer {
    /// From the description in a file, for a model that knows `vocabulary` tokens; `path` is for errors.
    ///
    /// Error: [`Error::Tokenizer`] for one that is missing, that is no byte-pair encoding, or that has more tokens.
    pub fn new(path: &Path, description: Description, vocabulary: usize) -> Result<Self> {
        let fail = |why: String| Error::Tokenizer { path: path.into(), why };
        let made = match description {
            Description::Gguf(values) => gguf(values),
            Description::Folder { tokenizer: None, .. } => {
                Err("the folder that the file was converted from had no tokenizer.json".into())
            }
            Description::Folder { tokenizer: Some(json), config, tokenizer_config, template } => {
                folder(&json, &config, tokenizer_config.as_deref(), template.as_deref())
            }
        };
        let made = Self { vocabulary, ..made.map_err(fail)? };
        // tokens that were added later may never be used
        let own = made.inner.get_vocab_size(false);
        if own > vocabulary {
            let why = format!("it has {own} tokens, the model knows {vocabulary}: it is another model's");
            return Err(fail(why));
        }
        Ok(made)
    }

    /// Tokens of a text, in which names of control tokens are these tokens; the one for the beginning comes first if the model
    /// wants one. Error: [`Error::Argument`] for a text with a token that the model does not know.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let fail = |expected: String, got| Error::Argument { what: "the text", expected, got };
        let encoded = self.inner.encode_fast(text, false);
        let encoded = encoded.map_err(|e| fail("text that the tokenizer takes".into(), e.to_string()))?;
        let ids = encoded.get_ids();
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            let name = self.inner.id_to_token(id).unwrap_or_default();
            let expected = format!("tokens below {}, which the model knows", self.vocabulary);
            return Err(fail(expected, format!("token {id}, {name:?}")));
        }
        // a template may have put it there already
        let begin = self.begin.filter(|begin| self.begins && ids.first() != Some(begin));
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

    /// The token that begins texts, if the model has one.
    pub fn begin(&self) -> Option<u32> {
        self.begin
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
    let pre = values.get("tokenizer.ggml.pre").and_then(|v| v.text()).unwrap_or("none");
    // as llama.cpp has it: Llama 3 takes words that are tokens whole, and begins texts with a token unless told otherwise
    let llama3 = matches!(pre, "llama-bpe" | "llama3");
    let bpe = BPE::builder().vocab_and_merges(vocabulary, merges).ignore_merges(llama3).build();
    let mut inner = tokenizers::Tokenizer::new(bpe.map_err(|e| e.to_string())?);
    inner.with_pre_tokenizer(Some(pre_tokenizer(pre)?));
    inner.with_decoder(Some(ByteLevel::default()));
    inner.add_tokens(&control);
    let id = |key: &str| values.get(key).and_then(|v| v.unsigned()).and_then(|n| u32::try_from(n).ok());
    let begins = match values.get("tokenizer.ggml.add_bos_token") {
        Some(begins) => *begins == Value::Bool(true),
        None => llama3,
    };
    let mut ends: Vec<u32> =
        ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"].into_iter().filter_map(id).collect();
    // a base model's own end, beside that of a chat
    ends.extend(
        ["<|endoftext|>", "<|eot_id|>", "<|im_end|>"].iter().filter_map(|name| inner.token_to_id(name)),
    );
    Ok(Tokenizer {
        begin: id("tokenizer.ggml.bos_token_id"),
        begins,
        ends,
        template: values.get("tokenizer.chat_template").and_then(|v| v.text()).map(str::to_owned),
        vocabulary: 0,
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
    let wrong = |why: String| format!("tokenizer.json: {why}");
    let first = components::check(json).map_err(wrong)?;
    let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|e| wrong(e.to_string()))?;
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
    // one says so in its settings, another in the post-processor that puts it there
    let begins = own["add_bos_token"].as_bool().unwrap_or(first.is_some());
    let begin = first.and_then(|name| inner.token_to_id(&name)).or_else(|| named(&own["bos_token"]));
    let template = match template {
        Some(bytes) => {
            Some(String::from_utf8(bytes.to_vec()).map_err(|e| format!("chat_template.jinja: {e}"))?)
        }
        None => own["chat_template"].as_str().map(str::to_owned),
    };
    Ok(Tokenizer { begin, begins, ends, template, vocabulary: 0, inner })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn of_gguf(pre: &str, more: &[(&str, Value)]) -> Tokenizer {
        let list = |all: &[&str]| Value::Array(all.iter().map(|one| text(one)).collect());
        let mut values: Values = [
            ("model", text("gpt2")),
            ("pre", text(pre)),
            ("tokens", list(&["h", "e", "he", "hehe", "<s>"])),
            ("merges", list(&["h e"])),
            ("bos_token_id", Value::Unsigned(4)),
        ]
        .into_iter()
        .map(|(key, value)| (format!("tokenizer.ggml.{key}"), value))
        .collect();
        values.extend(more.iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value.clone())));
        Tokenizer::new("model".as_ref(), Description::Gguf(values), 5).unwrap()
    }

    #[test]
    fn llama_3_takes_whole_words_and_begins_with_a_token() {
        assert_eq!(of_gguf("gpt-2", &[]).encode("hehe").unwrap(), [2, 2]);
        assert_eq!(of_gguf("llama-bpe", &[]).encode("hehe").unwrap(), [4, 3]);
        let no = [("add_bos_token", Value::Bool(false))];
        assert_eq!(of_gguf("llama-bpe", &no).encode("hehe").unwrap(), [3]);
        let yes = [("add_bos_token", Value::Bool(true))];
        assert_eq!(of_gguf("gpt-2", &yes).encode("hehe").unwrap(), [4, 2, 2]);
    }

    fn of_folder(
        changes: &serde_json::Value,
        own: Option<&serde_json::Value>,
        known: usize,
    ) -> Result<Tokenizer> {
        let added = json!({ "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                            "normalized": false, "special": true, "id": 3 });
        let mut all = json!({ "version": "1.0", "added_tokens": [added],
                              "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "c": 7 }, "merges": [] } });
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let (config, tokenizer) = (b"{}".to_vec(), Some(all.to_string().into_bytes()));
        let tokenizer_config = own.map(|own| own.to_string().into_bytes());
        let description = Description::Folder { config, tokenizer, tokenizer_config, template: None };
        Tokenizer::new("model".as_ref(), description, known)
    }

    #[test]
    fn texts_begin_with_the_token_of_the_post_processor() {
        let sequence = json!({ "Sequence": { "id": "A", "type_id": 0 } });
        let begin = json!({ "SpecialToken": { "id": "<s>", "type_id": 0 } });
        let post = json!({ "post_processor": { "type": "TemplateProcessing", "single": [begin, sequence],
            "pair": [], "special_tokens": { "<s>": { "id": "<s>", "ids": [3], "tokens": ["<s>"] } } } });
        let tokens = |own| of_folder(&post, own, 8).unwrap().encode("ab").unwrap();
        assert_eq!(tokens(None), [3, 0, 1]);
        let no = json!({ "add_bos_token": false });
        assert_eq!(tokens(Some(&no)), [0, 1]);
        // which templates name themselves
        assert_eq!(of_folder(&post, Some(&no), 8).unwrap().names()[0].as_deref(), Some("<s>"));
        assert_eq!(of_folder(&json!({}), None, 8).unwrap().encode("ab").unwrap(), [0, 1]);
        // a template has put it there
        assert_eq!(of_folder(&post, None, 8).unwrap().encode("<s>ab").unwrap(), [3, 0, 1]);
    }

    #[test]
    fn tokens_that_the_model_does_not_know_are_refused() {
        let tokenizer = of_folder(&json!({}), None, 5).unwrap();
        assert_eq!(tokenizer.encode("ab").unwrap(), [0, 1]);
        let error = tokenizer.encode("abc").unwrap_err().to_string();
        assert!(error.contains("tokens below 5") && error.contains("token 7, \"c\""), "{error}");
        let error = of_folder(&json!({}), None, 2).err().unwrap().to_string();
        assert!(error.contains("it has 3 tokens, the model knows 2"), "{error}");
    }
}
