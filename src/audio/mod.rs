//! Sound as numbers: samples with their rate in the type, resampling, containers, end-pointing, echoes.
//!
//! Layer 0: pure functions and small state machines. Nothing here knows a model, a task or a socket, and nothing
//! here reads a clock. A sample rate is a run-time value only in [`container`], at the door; everywhere else it is
//! part of the type, so that mixing rates does not compile.

pub mod container;
pub mod echo;
pub mod encode;
pub mod packets;
pub mod pcm;
pub mod reference;
pub mod resample;
pub mod stretch;
pub mod vad;
pub mod wav;

pub use container::{AudioError, Decoder, Limits, decode_bytes, decode_file};
pub use echo::EchoDetector;
pub use encode::{EncodeError, Encoder, Format};
pub use packets::{PacketDecoder, PacketEncoder, PacketError};
pub use pcm::{MIC_HZ, Mic, Pcm, SPEECH_HZ, Samples, Speech};
pub use resample::{ResampleError, Resampler, downmix, resample};
pub use stretch::Stretch;
pub use vad::{EndPointer, VadEvent, VadSettings};
pub use wav::{MICROPHONE_RATES, WireChunk, WireError, WireFormat, decode_wire};
