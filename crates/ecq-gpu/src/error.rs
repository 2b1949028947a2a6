//! What can go wrong between a file and a GPU.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No adapter of a GPU was found, or none that was asked for.
    #[error("no adapter: {0}; install a driver for Vulkan (or run on a Mac), or name another adapter")]
    NoAdapter(String),
    /// The adapter gave no device.
    #[error("the adapter {adapter} gives no device: {why}")]
    NoDevice {
        /// Name of the adapter.
        adapter: String,
        /// What it said.
        why: String,
    },
    /// A tensor, or a kernel for it, needs more than the device allows.
    #[error(
        "{what} needs {needs} {unit}, the device allows {limit} ({name}): ask for the adapter's limits when the device is made"
    )]
    Limit {
        /// Name of the tensor or kernel.
        what: String,
        /// What is too much.
        unit: &'static str,
        /// How much of it.
        needs: u64,
        /// How much there is.
        limit: u64,
        /// wgpu's name of the limit.
        name: &'static str,
    },
    /// The device has no memory left.
    #[error("out of GPU memory for {what}{}; free some, or give the weights less of it", amount(*bytes))]
    OutOfMemory {
        /// What was to be stored or done.
        what: String,
        /// How much it needs, where that is known.
        bytes: Option<u64>,
    },
    /// The device is gone.
    #[error("the device was lost: {0}; make a new device and upload the tensors again")]
    Lost(String),
    /// The driver or wgpu did not take a shader.
    #[error(
        "the shader {kernel} was rejected: {why}; please report this with the name of the GPU and its driver"
    )]
    Shader {
        /// Name of the kernel.
        kernel: String,
        /// What was said.
        why: String,
    },
    /// wgpu refused an operation.
    #[error("{what} failed: {why}")]
    Wgpu {
        /// What was tried.
        what: String,
        /// What was said.
        why: String,
    },
    /// Vectors or buffers that do not fit.
    #[error("{what}: expected {expected}, got {got}")]
    Argument {
        /// What does not fit.
        what: String,
        /// What fits.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A tensor that cannot be used.
    #[error(transparent)]
    Tensor(#[from] ecq_format::Error),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

fn amount(bytes: Option<u64>) -> String {
    bytes.map_or_else(String::new, |bytes| format!(", which needs {bytes} bytes"))
}
