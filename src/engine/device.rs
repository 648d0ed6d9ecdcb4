//! Where a model runs: the user's choice of device, and candle's device made from it.
//!
//! candle's default CUDA stream is one per OS *thread*. So every model's thread calls [`open`] itself and keeps the
//! device to itself; a `Device` never goes from one thread to another. All threads of a process share the card's
//! context and its memory pool.

use std::fmt;
use std::fs;
use std::str::FromStr;

use candle_core::Device;

use super::EngineError;

/// What the setting `DEVICE` may say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA card where this build and machine have one, else the CPU.
    #[default]
    Auto,
    /// The CUDA card with this number.
    Cuda(usize),
    Cpu,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is not a device; use auto, cpu, cuda or cuda:N")]
pub struct UnknownDevice(String);

impl FromStr for DeviceChoice {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownDevice(text.to_owned());
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" | "" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" | "gpu" => Ok(Self::Cuda(0)),
            other => {
                let ordinal = other.strip_prefix("cuda:").ok_or_else(unknown)?;
                ordinal.parse().map(Self::Cuda).map_err(|_| unknown())
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Self::Cpu => f.write_str("cpu"),
        }
    }
}

impl DeviceChoice {
    /// What `Auto` comes to on this machine; the others are themselves.
    #[must_use]
    pub fn resolve(self) -> Self {
        match self {
            Self::Auto if cuda::card_answers() => Self::Cuda(0),
            Self::Auto => Self::Cpu,
            fixed => fixed,
        }
    }
}

/// Makes the calling thread's device. On CUDA it also switches off event tracking and keeps freed memory in the pool.
///
/// # Errors
/// [`EngineError::Device`]: this build has no CUDA, or the card does not answer.
pub fn open(choice: DeviceChoice) -> Result<Device, EngineError> {
    match choice.resolve() {
        DeviceChoice::Cuda(ordinal) => cuda::open(ordinal).map_err(|reason| device_error(choice, reason)),
        DeviceChoice::Cpu | DeviceChoice::Auto => Ok(Device::Cpu),
    }
}

/// Memory of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    pub free: u64,
    pub total: u64,
}

/// Asks the card's driver, or on the CPU the kernel's MemAvailable and MemTotal.
///
/// # Errors
/// [`EngineError::Device`] where neither answers.
pub fn memory(choice: DeviceChoice) -> Result<DeviceMemory, EngineError> {
    match choice.resolve() {
        DeviceChoice::Cuda(ordinal) => cuda::memory(ordinal).map_err(|reason| device_error(choice, reason)),
        DeviceChoice::Cpu | DeviceChoice::Auto => {
            let report = fs::read_to_string("/proc/meminfo")
                .map_err(|error| device_error(choice, format!("/proc/meminfo cannot be read: {error}")))?;
            parse_meminfo(&report)
                .ok_or_else(|| device_error(choice, "/proc/meminfo has no MemAvailable or MemTotal".to_owned()))
        }
    }
}

/// Sees to it that a model in bf16 can run: candle has no kernels for it on cards before Ampere.
///
/// # Errors
/// [`EngineError::Device`] says so, or that the card does not answer.
pub fn check_bf16(choice: DeviceChoice) -> Result<(), EngineError> {
    let fault = match choice.resolve() {
        DeviceChoice::Cuda(ordinal) => cuda::compute_capability(ordinal).map(bf16_fault),
        DeviceChoice::Cpu | DeviceChoice::Auto => Ok(None),
    };
    fault.unwrap_or_else(Some).map_or(Ok(()), |reason| Err(device_error(choice, reason)))
}

/// Of a card of this compute capability.
fn bf16_fault((major, minor): (i32, i32)) -> Option<String> {
    (major < 8).then(|| {
        format!(
            "the model computes in bf16, which a card of compute capability {major}.{minor} cannot; it takes 8.0 or more \
             (GeForce RTX 30, A100 and later), or DEVICE=cpu"
        )
    })
}

/// Gives back to the system what the models of `choice` took and no longer use: without it a card's memory pool, and
/// the host's allocator, keep it for the next model.
///
/// # Errors
/// [`EngineError::Device`] where the card does not answer.
pub fn give_back(choice: DeviceChoice) -> Result<(), EngineError> {
    trim_host();
    match choice.resolve() {
        DeviceChoice::Cuda(ordinal) => cuda::give_back(ordinal).map_err(|reason| device_error(choice, reason)),
        DeviceChoice::Cpu | DeviceChoice::Auto => Ok(()),
    }
}

/// glibc keeps what was freed below memory that is still in use, of weights most of it.
fn trim_host() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "the C library's functions have no safe wrapper")]
    // SAFETY: it may be called at any time from any thread, and touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn device_error(choice: DeviceChoice, reason: String) -> EngineError {
    EngineError::Device { device: choice.to_string(), reason }
}

fn parse_meminfo(report: &str) -> Option<DeviceMemory> {
    let bytes = |key: &str| -> Option<u64> {
        let line = report.lines().find_map(|line| line.strip_prefix(key))?;
        let kibibytes: u64 = line.trim_start_matches(':').split_whitespace().next()?.parse().ok()?;
        kibibytes.checked_mul(1024)
    };
    Some(DeviceMemory { free: bytes("MemAvailable")?, total: bytes("MemTotal")? })
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use candle_core::Device;

    use super::DeviceMemory;

    pub(super) fn card_answers() -> bool {
        false
    }

    pub(super) fn open(_ordinal: usize) -> Result<Device, String> {
        Err(without_cuda())
    }

    pub(super) fn memory(_ordinal: usize) -> Result<DeviceMemory, String> {
        Err(without_cuda())
    }

    pub(super) fn compute_capability(_ordinal: usize) -> Result<(i32, i32), String> {
        Err(without_cuda())
    }

    pub(super) fn give_back(_ordinal: usize) -> Result<(), String> {
        Err(without_cuda())
    }

    fn without_cuda() -> String {
        "this program was built without CUDA: build it with --features cuda, or set DEVICE=cpu".to_owned()
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use candle_core::cuda_backend::cudarc::driver::{CudaContext, DriverError, result, sys};
    use candle_core::{CudaDevice, Device};

    use super::DeviceMemory;

    pub(super) fn card_answers() -> bool {
        CudaContext::device_count().is_ok_and(|count| count > 0) && CudaContext::new(0).is_ok()
    }

    pub(super) fn open(ordinal: usize) -> Result<Device, String> {
        let device = Device::new_cuda(ordinal)
            .map_err(|error| format!("the card does not answer ({error}); see nvidia-smi, or set DEVICE=cpu"))?;
        let card = device.as_cuda_device().map_err(|error| error.to_string())?;
        prepare(card, ordinal).map_err(|error| format!("its memory pool cannot be set up: {error:?}"))?;
        Ok(device)
    }

    pub(super) fn memory(ordinal: usize) -> Result<DeviceMemory, String> {
        let (free, total) = CudaContext::new(ordinal)
            .and_then(|context| context.mem_get_info())
            .map_err(|error| format!("the card does not answer: {error:?}"))?;
        Ok(DeviceMemory { free: free as u64, total: total as u64 })
    }

    pub(super) fn compute_capability(ordinal: usize) -> Result<(i32, i32), String> {
        CudaContext::new(ordinal)
            .and_then(|context| context.compute_capability())
            .map_err(|error| format!("the card does not answer: {error:?}"))
    }

    #[expect(unsafe_code, reason = "the driver's pools have no safe wrapper in cudarc")]
    pub(super) fn give_back(ordinal: usize) -> Result<(), String> {
        let trim = || {
            let context = CudaContext::new(ordinal)?;
            context.synchronize()?;
            let ordinal = i32::try_from(ordinal).unwrap_or(i32::MAX);
            // SAFETY: as in `prepare`, the device's default pool is valid.
            unsafe {
                result::mem_pool::trim_to(result::device::get_default_mem_pool(result::device::get(ordinal)?)?, 0)
            }
        };
        trim().map_err(|error: DriverError| format!("its memory pool cannot be trimmed: {error:?}"))
    }

    #[expect(unsafe_code, reason = "the driver's settings have no safe wrapper in cudarc")]
    fn prepare(card: &CudaDevice, ordinal: usize) -> Result<(), DriverError> {
        // SAFETY: tracking orders work between several streams that share tensors. Here each model's thread has its
        // own device with one stream, and no tensor leaves its thread, so there is nothing to order.
        unsafe { card.disable_event_tracking() };
        let ordinal = i32::try_from(ordinal).unwrap_or(i32::MAX);
        // The default threshold of 0 gives freed memory back to the system at every synchronisation, so at every
        // sampled token.
        let mut threshold = u64::MAX;
        // SAFETY: the device comes from `device::get`, so its default pool is valid; the release threshold is a u64,
        // and the driver has read it when the call returns.
        unsafe {
            let pool = result::device::get_default_mem_pool(result::device::get(ordinal)?)?;
            result::mem_pool::set_attribute(
                pool,
                sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                (&raw mut threshold).cast(),
            )
        }
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
