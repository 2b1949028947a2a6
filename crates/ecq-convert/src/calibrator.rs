//! Who quantizes by more than a tensor's weights: what a conversion asks of it.

use ecq_format::encode::Profile;
use ecq_quant::quantize::Quantized;
use ecq_quant::weights::Weights;

use crate::rates::Allocation;

/// Who quantizes tensors by what is known of their inputs and outputs.
pub trait Calibrator: Allocation + std::fmt::Debug + Send + Sync {
    /// A tensor, at the rate that the number in its [`Choice::Calibrated`](crate::rates::Choice::Calibrated) stands for.
    fn quantize<'a>(
        &self,
        name: &str,
        rate: f64,
        weights: &'a dyn Weights,
        profile: Profile,
    ) -> Result<Quantized<'a>, ecq_quant::Error>;

    /// What the file shall tell of it: a companion of the name [`RECORD`].
    fn record(&self) -> Vec<u8>;
}

/// The companion in which a file tells what it was calibrated with.
pub const RECORD: &str = "ecq_calibration.json";
