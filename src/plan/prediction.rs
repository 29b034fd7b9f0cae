//! How long a step will take, fitted to what earlier ones took: a fixed part, and bytes over throughput.

use crate::model::history::Sample;
use crate::model::units::{ByteSize, Span};

/// What every step costs before its first byte (opening, starting a tool), assumed where one measurement can't tell.
const FIXED_FLOOR_MILLIS: f64 = 500.0;

/// One second for a mebibyte. What seemed slower per byte was measured on next to no bytes, and was no matter of them: a
/// dump of 14 KiB in 2 s does not say that 15 MiB take half an hour.
const SLOWEST_MILLIS_PER_BYTE: f64 = 1_000.0 / 1_048_576.0;

/// Older measurements speak of other hardware and other data.
const NEWEST: usize = 20;

/// Time as a straight line over bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Model {
    fixed_millis: f64,
    millis_per_byte: f64,
}

impl Model {
    pub fn predict(&self, bytes: ByteSize) -> Span {
        let millis = self.fixed_millis + self.millis_per_byte * bytes.0 as f64;
        // A float cast saturates, and a model has no negative parts.
        Span::from_millis(millis.round() as u64)
    }
}

/// Least squares with neither part below zero; none without a measurement.
pub fn fit(samples: &[Sample]) -> Option<Model> {
    let newest = &samples[samples.len().saturating_sub(NEWEST)..];
    let n = newest.len() as f64;
    let points = || newest.iter().map(|sample| (sample.bytes.0 as f64, sample.took.as_millis() as f64));
    let (mean_x, mean_y) = (points().map(|p| p.0).sum::<f64>() / n, points().map(|p| p.1).sum::<f64>() / n);
    let spread: f64 = points().map(|(x, _)| (x - mean_x).powi(2)).sum();
    match newest {
        [] => None,
        // One size tells nothing of the slope: proportional above a fixed floor.
        _ if spread <= f64::EPSILON * mean_x * mean_x || newest.len() == 1 => {
            let above_the_floor = mean_y - FIXED_FLOOR_MILLIS.min(mean_y);
            let slope = if mean_x > 0.0 { (above_the_floor / mean_x).min(SLOWEST_MILLIS_PER_BYTE) } else { 0.0 };
            Some(Model { fixed_millis: mean_y - slope * mean_x, millis_per_byte: slope })
        }
        _ => {
            let slope = points().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
            let slope = slope.min(SLOWEST_MILLIS_PER_BYTE);
            let fixed = mean_y - slope * mean_x;
            Some(if slope < 0.0 {
                Model { fixed_millis: mean_y, millis_per_byte: 0.0 }
            } else if fixed < 0.0 {
                let through_zero =
                    points().map(|(x, y)| x * y).sum::<f64>() / points().map(|(x, _)| x * x).sum::<f64>();
                Model { fixed_millis: 0.0, millis_per_byte: through_zero }
            } else {
                Model { fixed_millis: fixed, millis_per_byte: slope }
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(mib: u64, secs: u64) -> Sample {
        Sample { bytes: ByteSize::mib(mib), took: Span::from_secs(secs) }
    }

    #[test]
    fn nothing_measured_predicts_nothing() {
        assert_eq!(fit(&[]), None);
    }

    #[test]
    fn one_measurement_is_taken_as_proportional_above_a_floor() {
        let model = fit(&[sample(100, 10)]).unwrap();
        assert_eq!(model.predict(ByteSize::mib(100)), Span::from_secs(10));
        assert_eq!(model.predict(ByteSize::mib(200)), Span::from_millis(19_500));
        assert_eq!(model.predict(ByteSize(0)), Span::from_millis(500));
    }

    #[test]
    fn several_measurements_give_a_fixed_part_and_a_throughput() {
        let model = fit(&[sample(100, 12), sample(200, 22), sample(400, 42)]).unwrap();
        assert_eq!(model.predict(ByteSize::mib(0)), Span::from_secs(2));
        assert_eq!(model.predict(ByteSize::mib(300)), Span::from_secs(32));
    }

    #[test]
    fn no_measurement_can_make_a_prediction_negative() {
        let falling = fit(&[sample(100, 20), sample(200, 10)]).unwrap();
        assert_eq!(falling.predict(ByteSize::mib(10_000)), Span::from_secs(15));
        let steep = fit(&[sample(100, 1), sample(200, 100)]).unwrap();
        assert_eq!(steep.predict(ByteSize(0)), Span::ZERO);
    }

    #[test]
    fn next_to_no_bytes_say_nothing_of_many() {
        let small = |kib: u64, millis| Sample { bytes: ByteSize(kib << 10), took: Span::from_millis(millis) };
        assert_eq!(fit(&[small(14, 2_200)]).unwrap().predict(ByteSize::mib(15)), Span::from_millis(17_186));
        let two = fit(&[small(14, 2_000), small(15, 4_000)]).unwrap();
        assert!(two.predict(ByteSize::mib(15)) < Span::from_secs(20));
    }

    #[test]
    fn only_the_newest_measurements_count() {
        let mut samples = vec![sample(100, 1_000); 50];
        samples.extend(vec![sample(100, 10); NEWEST]);
        assert_eq!(fit(&samples).unwrap().predict(ByteSize::mib(100)), Span::from_secs(10));
    }
}
