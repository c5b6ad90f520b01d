//! A simulated provider, so that the gateway can be tried and tested without a key and without a network.
//!
//! May use: `axum`, `tokio`; nothing of the gateway. It speaks both dialects on one listener:
//!
//! | file | what |
//! |---|---|
//! | `provider` | the server: routes, credentials, delivery, statistics |
//! | `script` | what a model's name asks for: errors, delays, cuts |
//! | `openai` | bodies and streams of the OpenAI dialect |
//! | `responses` | the Responses API of that dialect |
//! | `gemini` | bodies and streams of the Gemini dialect |
//! | `embed` | embedding vectors and their base64 form |

mod embed;
mod gemini;
mod openai;
pub mod provider;
mod responses;
mod script;
