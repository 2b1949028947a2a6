//! From messages to a prompt, by the template that travels with a model.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, context};

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// A message of a chat.
#[derive(Clone, Debug)]
pub struct Message {
    /// "system", "user" or "assistant".
    pub role: String,
    /// What is said.
    pub content: String,
}

/// Most bytes of a template; those of large models have 20,000.
const MOST_TEMPLATE: usize = 1 << 17;
/// Most bytes of a prompt.
const MOST_PROMPT: usize = 1 << 24;
/// Most instructions that a template may take: some ten thousand are usual.
const FUEL: u64 = 1 << 20;
/// Room for a template whose parts are deep in each other. Memory is touched as it is needed.
const STACK: usize = 1 << 28;
/// They fill what they return up to any size.
const UNBOUNDED: [&str; 4] = ["batch", "format", "indent", "slice"];

/// The prompt that asks for the assistant's next message.
///
/// Templates come from files: one that never ends, or whose prompt does not, is an error. Error: [`Error::Argument`] for these, if
/// the model has no template, or if it does not take these messages.
pub fn prompt(tokenizer: &Tokenizer, messages: &[Message]) -> Result<String> {
    let Some(template) = tokenizer.template() else {
        return Err(fail("a model without a template: it was not trained for chats".into()));
    };
    if template.len() > MOST_TEMPLATE {
        return Err(fail(format!("a template of {} bytes, more than {MOST_TEMPLATE}", template.len())));
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let made = thread.spawn_scoped(scope, || render(template, tokenizer.names(), messages));
        let made = made.map_err(|e| fail(e.to_string()))?.join();
        made.unwrap_or_else(|_| Err(fail("a template that cannot be read".into())))
    })
}

fn fail(got: String) -> Error {
    Error::Argument { what: "the chat", expected: "messages that the model's template takes".into(), got }
}

fn render(
    template: &str,
    [bos_token, eos_token]: [Option<String>; 2],
    messages: &[Message],
) -> Result<String> {
    let wrong = |e: minijinja::Error| fail(format!("{e:#}"));
    let mut env = Environment::new();
    env.set_fuel(Some(FUEL));
    UNBOUNDED.iter().for_each(|name| env.remove_filter(name));
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    // as Hugging Face renders templates
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    env.set_syntax(syntax.map_err(wrong)?);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_function("raise_exception", |why: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, why))
    });
    let pair = |m: &Message| Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())]);
    let messages: Vec<Value> = messages.iter().map(pair).collect();
    // what a model does not have is empty
    let [bos_token, eos_token] =
        [bos_token, eos_token].map(|name| name.map_or(Value::UNDEFINED, Value::from));
    let values = context! { messages, bos_token, eos_token, add_generation_prompt => true };
    let mut out = Bounded::default();
    let template = env.template_from_str(template).map_err(wrong)?;
    let rendered = template.render_captured_to(values, &mut out).map(drop);
    if out.full {
        return Err(fail(format!("a prompt of more than {MOST_PROMPT} bytes")));
    }
    rendered.map_err(wrong)?;
    String::from_utf8(out.bytes).map_err(|e| fail(e.to_string()))
}

/// Takes at most [`MOST_PROMPT`] bytes.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.full |= self.bytes.len() + bytes.len() > MOST_PROMPT;
        if self.full {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::description::Description;

    fn rendered(template: &str) -> Result<String> {
        let json = br#"{ "model": { "type": "BPE", "vocab": { "a": 0 }, "merges": [] } }"#;
        let description = Description::Folder {
            config: b"{}".to_vec(),
            tokenizer: Some(json.to_vec()),
            tokenizer_config: None,
            template: Some(template.into()),
        };
        let tokenizer = Tokenizer::new("model".as_ref(), description, 1)?;
        prompt(&tokenizer, &[Message { role: "user".into(), content: "Who?".into() }])
    }

    #[test]
    fn messages_are_put_into_templates() {
        let template =
            "{% for m in messages %}<{{ m['role'] }}>{{ m.content.strip() }}\n{% endfor %}{{ bos_token }}!";
        assert_eq!(rendered(template).unwrap(), "<user>Who?\n!");
    }

    #[test]
    fn templates_without_end_end() {
        let each = |depth, inner: &str| {
            let (begin, end) = ("{% for i in range(100000) %}".repeat(depth), "{% endfor %}".repeat(depth));
            format!("{begin}{inner}{end}")
        };
        for (template, says) in [
            (each(3, ""), "fuel"),
            (each(2, &"x".repeat(1000)), "a prompt of more than"),
            ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into(), "recursion"),
            ("x".repeat(MOST_TEMPLATE + 1), "a template of"),
            ("{{ 'a'|format(1) }}".into(), "unknown filter"),
            ("{{ raise_exception('no such role') }}".into(), "no such role"),
            ("{{ ".into(), "syntax error"),
        ] {
            let error = rendered(&template).unwrap_err().to_string();
            assert!(error.starts_with("the chat: ") && error.contains(says), "{says}: {error}");
        }
        // deep, and nothing else
        let chain = format!("{{{{ 1{} }}}}", "+1".repeat(60_000));
        assert_eq!(rendered(&chain).unwrap(), "60001");
        rendered(&format!("{{{{ {}1 }}}}", "-".repeat(100_000))).unwrap();
    }
}
