//! Secrets that somebody guesses: repetitions, rows of a keyboard, words of examples.
//!
//! May use: nothing. A secret from `openssl rand` or `pwgen` is never taken for one; a sentence of one's own is not known
//! here, either.

/// Why a secret can be guessed, as the end of a sentence; `None` for one that is as good as it looks.
pub fn why(secret: &str) -> Option<&'static str> {
    let lower = || secret.bytes().map(|byte| byte.to_ascii_lowercase());
    let plain: Vec<u8> = lower().filter(u8::is_ascii_alphanumeric).collect();
    if different(secret.as_bytes()) < DIFFERENT_MIN || is_periodic(secret.as_bytes()) || is_periodic(&plain) {
        return Some("repeats a few characters");
    }
    let has = |word: &&str| plain.windows(word.len()).any(|window| window == word.as_bytes());
    if PLACEHOLDERS.iter().any(has) {
        return Some("has a word in it that stands in examples, and somebody may guess it");
    }
    let joined: Vec<u8> = lower().filter(|byte| !b" -_.:/".contains(byte)).collect();
    if left(&joined) < LEFT_MIN {
        return Some("is made of common words and of characters in order, and somebody may guess it");
    }
    None
}

/// 32 random hex digits have 14 of the 16 on average, and fewer different ones than this three times in 10^13.
const DIFFERENT_MIN: usize = 6;

/// A repetition of so many characters has no more to guess than those.
const PERIOD_MAX: usize = 16;

/// What stands in examples where a key should be. None is so short that a random key has it by chance.
const PLACEHOLDERS: [&str; 11] = [
    "changeme",
    "changethis",
    "replaceme",
    "replacethis",
    "placeholder",
    "password",
    "yourkey",
    "youradminkey",
    "yoursecret",
    "insertyour",
    "abcdefghijklmnop",
];

/// So many characters have to be left without words and rows: 32 random hex digits have them but for once in 10^8.
const LEFT_MIN: usize = 16;

/// What people make keys of that have to be long.
const WORDS: &[&str] = &[
    "admin",
    "and",
    "api",
    "battery",
    "between",
    "certificate",
    "change",
    "characters",
    "correct",
    "default",
    "demo",
    "develop",
    "example",
    "for",
    "gateway",
    "gemini",
    "guess",
    "here",
    "horse",
    "insert",
    "its",
    "key",
    "least",
    "letmein",
    "long",
    "master",
    "nobody",
    "openai",
    "operator",
    "pass",
    "phrase",
    "please",
    "private",
    "production",
    "prod",
    "random",
    "replace",
    "root",
    "secret",
    "secure",
    "staging",
    "staple",
    "string",
    "super",
    "test",
    "that",
    "the",
    "thirty",
    "this",
    "those",
    "token",
    "tollgate",
    "two",
    "value",
    "very",
    "welcome",
    "with",
    "word",
    "your",
];

/// What lies beside each other on keyboards, and in alphabets.
const ROWS: [&str; 11] = [
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890",
    "qwertyuiop",
    "qwertzuiop",
    "azertyuiop",
    "asdfghjkl",
    "qsdfghjklm",
    "zxcvbnm",
    "yxcvbnm",
    "wxcvbn",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik",
];

/// A part of a row is no chance from this length on.
const RUN_MIN: usize = 4;

fn different(text: &[u8]) -> usize {
    text.iter().collect::<std::collections::BTreeSet<_>>().len()
}

fn is_periodic(text: &[u8]) -> bool {
    let repeats = |period: usize| text.iter().zip(text.iter().skip(period)).all(|(one, next)| one == next);
    (1..=PERIOD_MAX.min(text.len() / 2)).any(repeats)
}

/// How many characters are neither of a word nor of a row.
fn left(text: &[u8]) -> usize {
    let (mut rest, mut left) = (text, 0);
    while !rest.is_empty() {
        let known = word(rest).max(run(rest));
        left += usize::from(known == 0);
        rest = rest.get(known.max(1)..).unwrap_or_default();
    }
    left
}

/// How long the longest word is that the text begins with.
fn word(text: &[u8]) -> usize {
    WORDS.iter().filter(|word| text.starts_with(word.as_bytes())).map(|word| word.len()).max().unwrap_or(0)
}

/// How long the part of a row is that the text begins with, forwards or backwards; or of one character.
fn run(text: &[u8]) -> usize {
    let same = text.iter().take_while(|byte| text.first() == Some(byte)).count();
    let rows = ROWS.iter().flat_map(|row| {
        let forwards = (0..row.len()).map(|at| common(text, row.bytes().skip(at)));
        forwards.chain((0..row.len()).map(|at| common(text, row.bytes().rev().skip(at))))
    });
    rows.chain([same]).max().filter(|length| *length >= RUN_MIN).unwrap_or(0)
}

fn common(text: &[u8], row: impl Iterator<Item = u8>) -> usize {
    text.iter().zip(row).take_while(|(one, other)| *one == other).count()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_write_where_a_key_should_be_is_guessable() {
        for weak in [
            "1234567890123456789012345678901234567890",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210",
            "deadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeef",
            "qwertyuiopasdfghjklzxcvbnm123456",
            "poiuytrewqlkjhgfdsamnbvcxz098765",
            "tollgate-admin-key-for-production",
            "Tollgate_Production_Admin_Key_2026",
            "correct-horse-battery-staple-correct",
            "this-is-a-very-long-secret-passphrase",
            "YOUR-OPENAI-KEYYOUR-OPENAI-KEYYOUR-OPENAI-KEY",
            "my-super-secret-admin-token-1234567890",
            "zK3-x9Qw7Lm2vB5n-zK3-x9Qw7Lm2vB5n",
        ] {
            assert!(why(weak).is_some(), "{weak}");
        }
    }

    #[test]
    fn every_placeholder_that_is_shipped_is_guessable() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut placeholders = Vec::new();
        for directory in ["deploy", "deploy/compose", "deploy/compose/config", "deploy/kubernetes", "config"] {
            for entry in fs::read_dir(root.join(directory)).unwrap() {
                // Vocabularies are no text.
                let Ok(text) = fs::read_to_string(entry.unwrap().path()) else { continue };
                let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '-'));
                let words = words.map(|word| word.trim_matches('-')).filter(|word| word.contains('-'));
                placeholders.extend(words.map(str::to_owned));
            }
        }
        for shipped in ["AT-LEAST-THIRTY-TWO-CHARACTERS-THAT-NOBODY-GUESSES", "YOUR-OPENAI-KEY"] {
            assert!(placeholders.iter().any(|found| found == shipped), "{shipped} in {placeholders:?}");
        }
        for placeholder in placeholders {
            // A short one is made long by whoever is told that it is short.
            let times = 1 + 31 / placeholder.len();
            for text in [placeholder.repeat(times), vec![&*placeholder; times].join("-")] {
                assert!(why(&text).is_some(), "{text}");
                assert!(why(&text.to_lowercase()).is_some(), "{text}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn no_random_key_is_taken_for_one_that_is_guessed(
            hex in "[0-9a-f]{32}|[0-9A-F]{32}|[0-9a-f]{64}",
            base64 in "[A-Za-z0-9+/]{43}=|[A-Za-z0-9_-]{43}|[A-Za-z0-9+/]{32}",
            pwgen in "[A-Za-z0-9]{32}|[a-z]{32}|[A-Z2-7]{32}|[!-~]{32}",
            uuid in "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
            words in "([a-z]{3,8}-){23}[a-z]{3,8}",
        ) {
            for key in [hex, base64, pwgen, uuid, words] {
                prop_assert_eq!(why(&key), None, "{}", key);
            }
        }

        #[test]
        fn any_text_is_judged(text in any::<String>()) {
            why(&text);
        }
    }
}
