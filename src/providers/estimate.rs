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

/// Text goes into the tokenizer in pieces of at most this: its time per byte grows with the length of a run of equal
/// characters, and its regular expressions recurse.
#[cfg(feature = "gateway")]
const PIECE_BYTES_MAX: usize = 4 * 1024;

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
}

/// Tokens by the number of bytes: cheap, never 0 where there was text.
pub fn by_bytes(input: &EstimateInput) -> Tokens {
    tokens(prompt_bytes(&input.prompt).div_ceil(BYTES_PER_TOKEN), input.output_bytes.div_ceil(BYTES_PER_TOKEN))
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

/// Tokens by the vocabulary of the model, or the nearest there is. Blocks: the first use loads the vocabulary (about
/// 100 ms), then 300 KiB, the most that is kept, take about 20 ms.
#[cfg(feature = "gateway")]
pub fn by_tokenizer(input: &EstimateInput) -> Tokens {
    let vocabulary = vocabulary(&input.model);
    let prompt = match &input.prompt {
        Prompt::Body { body, .. } => {
            let mut counted = 0u64;
            let beside =
                prompt::asked(body, |text| counted = counted.saturating_add(count(vocabulary, &unescaped(text))));
            counted.saturating_add(beside.tokens())
        }
        Prompt::TextBytes(bytes) => bytes.div_ceil(BYTES_PER_TOKEN),
    };
    let kept_bytes = u64::try_from(input.output.len()).unwrap_or(u64::MAX);
    let kept = count(vocabulary, &input.output);
    let completion = match kept_bytes {
        0 => input.output_bytes.div_ceil(BYTES_PER_TOKEN),
        // What was not kept has as many tokens a byte as what was.
        _ => kept.saturating_mul(input.output_bytes.max(kept_bytes)).div_ceil(kept_bytes),
    };
    tokens(prompt, completion)
}

fn tokens(prompt: u64, completion: u64) -> Tokens {
    // Whatever was asked, it was not nothing.
    let prompt = prompt.clamp(1, TOKENS_PER_CALL_MAX);
    Tokens { prompt, completion: completion.min(TOKENS_PER_CALL_MAX - prompt), ..Tokens::default() }
}

/// o200k is the vocabulary of OpenAI's models since gpt-4o, and for Gemini, which publishes none, the nearest.
#[cfg(feature = "gateway")]
fn vocabulary(model: &str) -> &'static CoreBPE {
    let is_older = ["gpt-4-", "gpt-3.5", "text-embedding-", "text-davinci-", "davinci-", "babbage-"]
        .iter()
        .any(|older| model.starts_with(older))
        || model == "gpt-4";
    if is_older { cl100k_base_singleton() } else { o200k_base_singleton() }
}

#[cfg(feature = "gateway")]
fn count(vocabulary: &CoreBPE, text: &str) -> u64 {
    let mut rest = text;
    let mut tokens = 0u64;
    while !rest.is_empty() {
        let end = piece_end(rest);
        let (piece, after) = rest.split_at(end);
        tokens = tokens.saturating_add(u64::try_from(vocabulary.count_ordinary(piece)).unwrap_or(u64::MAX));
        rest = after;
    }
    tokens
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

    use super::*;

    fn kept(body: Bytes) -> Prompt {
        let text_bytes = prompt::asked(&body, |_| {}).text_bytes();
        Prompt::Body { body, text_bytes }
    }

    fn input(prompt: &str, output: &str) -> EstimateInput {
        let body = serde_json::json!({"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}]});
        EstimateInput {
            provider: ProviderId::new("openai"),
            model: "gpt-4o".into(),
            prompt: kept(Bytes::from(body.to_string())),
            output: output.into(),
            output_bytes: output.len() as u64,
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
        let prose = "It was the best of times, it was the worst of times. ".repeat(400);
        let whole = u64::try_from(vocabulary("gpt-4o").count_ordinary(&prose)).unwrap();
        let pieces = count(vocabulary("gpt-4o"), &prose);
        assert!(pieces.abs_diff(whole) <= 6, "{pieces} of {whole}");
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
