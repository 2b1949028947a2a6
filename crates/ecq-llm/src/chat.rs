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

/// The prompt that asks for the assistant's next message. Error: [`Error::Argument`] if the model has no template, or it
/// does not take these messages.
pub fn prompt(tokenizer: &Tokenizer, messages: &[Message]) -> Result<String> {
    let fail = |got: String| Error::Argument {
        what: "the chat",
        expected: "messages that the model's template takes".into(),
        got,
    };
    let Some(template) = tokenizer.template() else {
        return Err(fail("a model without a template: it was not trained for chats".into()));
    };
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    // as Hugging Face renders templates
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    env.set_syntax(syntax.map_err(|e| fail(e.to_string()))?);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_function("raise_exception", |why: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, why))
    });
    let pair = |m: &Message| Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())]);
    let messages: Vec<Value> = messages.iter().map(pair).collect();
    let [bos_token, eos_token] = tokenizer.names();
    let values = context! { messages, bos_token, eos_token, add_generation_prompt => true };
    env.render_str(template, values).map_err(|e| fail(format!("{e:#}")))
}
