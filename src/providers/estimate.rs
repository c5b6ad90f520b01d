//! Counts tokens where the provider said nothing.
//!
//! May use: `domain`, the siblings `prompt` and `text`. By bytes at once, or by a tokenizer, which takes milliseconds and so belongs
//! on a blocking thread.

#[cfg(feature = "gateway")]
use tiktoken_rs::{CoreBPE, cl100k_base_singleton, o200k_base_singleton};

use crate::domain::ids::ProviderId;
use crate::domain::tokens::{TOKENS_PER_CALL_MAX, Tokens};

use super::Prompt;
#[cfg(feature = "gateway")]
use super::prompt;
use super::prompt::BYTES_PER_TOKEN;
#[cfg(feature = "gateway")]
use super::text::unescaped;
#[cfg(feature = "gateway")]
use super::tools;
#[cfg(feature = "gateway")]
use super::vocabulary::Vocabulary;

/// Text goes into the tokenizer in pieces of at most this: its time per byte grows with the length of a run of equal
/// characters, and its regular expressions recurse. So the worst text of the kept length takes 40 ms; in pieces four times as
/// long it took 60.
#[cfg(feature = "gateway")]
const PIECE_BYTES_MAX: usize = 1024;

/// A call whose provider did not say what it charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EstimateInput {
    /// The provider.
    pub provider: ProviderId,
    /// The requested model, which decides the vocabulary.
    pub model: String,
    /// What was asked.
    pub prompt: Prompt,
    /// What was delivered, up to `OUTPUT_TEXT_BYTES_MAX`.
    pub output: String,
    /// How many bytes of text were delivered in all.
    pub output_bytes: u64,
    /// The most tokens that the answer can have had, where that is known.
    pub output_max: Option<u64>,
}

/// Tokens by the number of bytes: cheap, never 0 where there was text.
pub fn by_bytes(input: &EstimateInput) -> Tokens {
    let completion = input.bounded(input.output_bytes.div_ceil(BYTES_PER_TOKEN));
    tokens(prompt_bytes(&input.prompt).div_ceil(BYTES_PER_TOKEN), completion)
}

/// The same for a call of which only the prompt is known.
pub fn of_prompt(prompt: &Prompt) -> Tokens {
    tokens(prompt_bytes(prompt).div_ceil(BYTES_PER_TOKEN), 0)
}

fn prompt_bytes(prompt: &Prompt) -> u64 {
    match prompt {
        Prompt::Body { text_bytes: bytes, .. } | Prompt::TextBytes(bytes) => *bytes,
    }
}

/// Tokens by the vocabulary of the model, or the nearest there is. Blocks: the first use loads the vocabulary (OpenAI's about
/// 100 ms and 50 MB, Gemini's 10 ms and 6 MB), then 320 KiB, the most that is kept, take from 2 to 40 ms.
#[cfg(feature = "gateway")]
pub fn by_tokenizer(input: &EstimateInput) -> Tokens {
    if matches!(input.prompt, Prompt::TextBytes(_)) && input.output.is_empty() {
        // There is no text to load a vocabulary for.
        return by_bytes(input);
    }
    let tokenizer = Tokenizer::of(&input.model);
    let prompt = match &input.prompt {
        Prompt::Body { body, .. } => {
            let (mut text, mut tools) = (0u64, 0u64);
            let count = |text: &str| tokenizer.count(text);
            let asked = prompt::asked(
                body,
                |seen| text = text.saturating_add(count(&unescaped(seen))),
                |seen| tools = tools.saturating_add(tools::tokens(seen, &input.model, &count)),
            );
            text.saturating_add(tools).saturating_add(asked.tokens(&input.model))
        }
        Prompt::TextBytes(bytes) => bytes.div_ceil(BYTES_PER_TOKEN),
    };
    let kept_bytes = u64::try_from(input.output.len()).unwrap_or(u64::MAX);
    let kept = tokenizer.count(&input.output);
    let completion = match kept_bytes {
        0 => input.output_bytes.div_ceil(BYTES_PER_TOKEN),
        // What was not kept has as many tokens a byte as what was.
        _ => kept.saturating_mul(input.output_bytes.max(kept_bytes)).div_ceil(kept_bytes),
    };
    tokens(prompt, input.bounded(completion))
}

impl EstimateInput {
    fn bounded(&self, completion: u64) -> u64 {
        self.output_max.map_or(completion, |max| completion.min(max))
    }
}

fn tokens(prompt: u64, completion: u64) -> Tokens {
    // Whatever was asked, it was not nothing.
    let prompt = prompt.clamp(1, TOKENS_PER_CALL_MAX);
    Tokens { prompt, completion: completion.min(TOKENS_PER_CALL_MAX - prompt), ..Tokens::default() }
}

/// What text is cut into tokens by.
#[cfg(feature = "gateway")]
#[derive(Clone, Copy)]
enum Tokenizer {
    OpenAi(&'static CoreBPE),
    Gemini(&'static Vocabulary),
}

#[cfg(feature = "gateway")]
impl Tokenizer {
    /// The one of the model. o200k is the vocabulary of OpenAI's models since gpt-4o. The model decides, not the provider:
    /// each is asked for models of others.
    fn of(model: &str) -> Self {
        let name = family(model);
        if let (true, Some(gemini)) = (is_of_google(name), Vocabulary::gemini()) {
            return Self::Gemini(gemini);
        }
        let is_older = ["gpt-4-", "gpt-3.5", "text-embedding-", "text-davinci-", "davinci-", "babbage-"]
            .iter()
            .any(|older| name.starts_with(older))
            || name == "gpt-4";
        Self::OpenAi(if is_older { cl100k_base_singleton() } else { o200k_base_singleton() })
    }

    fn count(self, text: &str) -> u64 {
        let mut rest = text;
        let mut tokens = 0u64;
        while !rest.is_empty() {
            let end = piece_end(rest);
            let (piece, after) = rest.split_at(end);
            tokens = tokens.saturating_add(match self {
                Self::OpenAi(encoding) => u64::try_from(encoding.count_ordinary(piece)).unwrap_or(u64::MAX),
                Self::Gemini(vocabulary) => vocabulary.count(piece),
            });
            rest = after;
        }
        tokens
    }
}

/// The name of a model without what stands before it: where it is, or that it was fine-tuned.
pub(super) fn family(model: &str) -> &str {
    let name = model.rsplit('/').next().unwrap_or(model);
    name.strip_prefix("ft:").unwrap_or(name)
}

/// Whether the name of a model is one of Google's.
pub(super) fn is_of_google(name: &str) -> bool {
    name.starts_with("gemini") || name.starts_with("gemma")
}

/// Where the next piece ends: at the last space that fits, as a word cut in two counts twice.
#[cfg(feature = "gateway")]
fn piece_end(text: &str) -> usize {
    if text.len() <= PIECE_BYTES_MAX {
        return text.len();
    }
    let most = text.floor_char_boundary(PIECE_BYTES_MAX);
    let space = text.get(..most).and_then(|piece| piece.rfind(' ')).filter(|space| *space > 0);
    space.unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::cap::Maximum;
    use super::super::request::{ModelIn, StreamBy, read};
    use super::*;

    fn kept(body: Bytes) -> Prompt {
        read(&body, ModelIn::Body, StreamBy::Body, Maximum::NOWHERE).unwrap().prompt
    }

    fn input(prompt: &str, output: &str) -> EstimateInput {
        let body = serde_json::json!({"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}]});
        EstimateInput {
            provider: ProviderId::new("openai"),
            model: "gpt-4o".into(),
            prompt: kept(Bytes::from(body.to_string())),
            output: output.into(),
            output_bytes: output.len() as u64,
            output_max: None,
        }
    }

    #[test]
    fn bytes_give_a_quarter_as_many_tokens_and_never_none_for_some() {
        assert_eq!(by_bytes(&input("12345678", "1234")), Tokens { prompt: 8, completion: 1, ..Tokens::default() });
        assert_eq!(by_bytes(&input("1", "1")), Tokens { prompt: 7, completion: 1, ..Tokens::default() });
        let nothing = EstimateInput { prompt: Prompt::TextBytes(0), ..input("", "") };
        assert_eq!(by_bytes(&nothing).prompt, 1);
        let large = EstimateInput { prompt: Prompt::TextBytes(u64::MAX), ..input("", "") };
        assert_eq!(by_bytes(&large), Tokens { prompt: TOKENS_PER_CALL_MAX, ..Tokens::default() });
        let long = EstimateInput { output_bytes: u64::MAX, ..input("1", "") };
        assert_eq!(by_bytes(&long).checked().map(|tokens| tokens.total()), Ok(TOKENS_PER_CALL_MAX));
    }

    #[cfg(feature = "gateway")]
    #[test]
    fn the_tokenizer_counts_as_the_provider_does() {
        // Six frame tokens beside the text, as the provider reports for one message.
        let counted = by_tokenizer(&input("Hello, world!", "The quick brown fox jumps over the lazy dog."));
        assert_eq!(counted, Tokens { prompt: 4 + 6, completion: 10, ..Tokens::default() });
        let beyond = EstimateInput { output_bytes: 4400, ..input("", "The quick brown fox jumps over the lazy dog.") };
        assert_eq!(by_tokenizer(&beyond).completion, 1000);
        // No more than was asked for, or than the model can say.
        assert_eq!(by_tokenizer(&EstimateInput { output_max: Some(16), ..beyond.clone() }).completion, 16);
        assert_eq!(by_bytes(&EstimateInput { output_max: Some(16), ..beyond }).completion, 16);
        let prose = "It was the best of times, it was the worst of times. ".repeat(400);
        let whole = u64::try_from(o200k_base_singleton().count_ordinary(&prose)).unwrap();
        let pieces = Tokenizer::of("gpt-4o").count(&prose);
        assert!(pieces.abs_diff(whole) <= 22, "{pieces} of {whole}");
        let whole = Vocabulary::gemini().unwrap().count(&prose);
        let pieces = Tokenizer::of("publishers/google/models/gemini-2.5-pro").count(&prose);
        assert!(pieces.abs_diff(whole) <= 22, "{pieces} of {whole}");
    }

    #[cfg(feature = "gateway")]
    #[test]
    fn hostile_text_ends_and_counts() {
        let run =
            |unit: &str| by_tokenizer(&input(&unit.repeat(240 * 1024 / unit.len()), &unit.repeat(65_536 / unit.len())));
        for unit in ["a", "^", " ", "\n", "\u{3000}", "é", "A1", "\r\n", " \t", "'s", "0", "👩‍👩‍👧", "<|endoftext|>"]
        {
            let counted = run(unit);
            assert!(counted.prompt > 6 && counted.completion > 0, "{unit:?}: {counted:?}");
        }
    }
}
