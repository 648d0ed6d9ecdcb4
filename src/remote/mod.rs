//! Inference elsewhere: one OpenAI-compatible HTTP client behind `provider`'s traits.
//!
//! OpenAI, OpenRouter, vLLM, llama.cpp or another aichat: a base URL, a key, some headers.
