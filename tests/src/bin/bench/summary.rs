//! Samples as people compare them: medians with their spread, and ratios to plain routing.

use std::collections::BTreeMap;

use crate::measure::Quantity;
use crate::results::Results;
use crate::subject::{Underlay, Variant};

/// Of the rounds' values of one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

/// A number, wherever it was taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) underlay: Underlay,
    pub(crate) measure: String,
    pub(crate) quantity: Quantity,
}

#[derive(Debug)]
pub(crate) struct Summary {
    /// In the order in which they were measured.
    pub(crate) keys: Vec<Key>,
    spreads: BTreeMap<(Key, Variant), Spread>,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median =
            if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], upper) } else { upper };
        Some(Self { median, lowest: *sorted.first()?, highest: *sorted.last()? })
    }

    /// How far the rounds are from the median at most, as a part of it.
    pub(crate) fn width(&self) -> f64 {
        if self.median == 0.0 {
            return 0.0;
        }
        (self.highest - self.median).max(self.median - self.lowest) / self.median
    }
}

impl Summary {
    pub(crate) fn of(results: &Results) -> Self {
        let mut keys: Vec<Key> = Vec::new();
        let mut values: BTreeMap<(Key, Variant), Vec<f64>> = BTreeMap::new();
        for sample in &results.samples {
            let key =
                Key { underlay: sample.underlay, measure: sample.measure.clone(), quantity: sample.quantity };
            if !keys.contains(&key) {
                keys.push(key.clone());
            }
            values.entry((key, sample.variant.clone())).or_default().push(sample.value);
        }
        let spreads =
            values.into_iter().filter_map(|(key, values)| Some((key, Spread::of(&values)?))).collect();
        Self { keys, spreads }
    }

    pub(crate) fn spread(&self, key: &Key, variant: &Variant) -> Option<Spread> {
        self.spreads.get(&(key.clone(), variant.clone())).copied()
    }

    /// The median of one variant as a multiple of another's.
    pub(crate) fn ratio(&self, key: &Key, variant: &Variant, to: &Variant) -> Option<f64> {
        let (own, other) = (self.spread(key, variant)?.median, self.spread(key, to)?.median);
        (other != 0.0).then(|| own / other)
    }

    /// The variants that were measured on this underlay, in the order of [`Variant::BUILT_IN`], others last.
    pub(crate) fn variants(&self, underlay: Underlay) -> Vec<Variant> {
        let mut found: Vec<Variant> = Vec::new();
        for (key, variant) in self.spreads.keys() {
            if key.underlay == underlay && !found.contains(variant) {
                found.push(variant.clone());
            }
        }
        found.sort();
        found
    }

    /// The numbers of this underlay.
    pub(crate) fn keys_of(&self, underlay: Underlay) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| key.underlay == underlay)
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_is_in_the_middle() {
        let of = |values: &[f64]| Spread::of(values).map(|spread| spread.median);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0]), Some(3.0));
        assert_eq!(of(&[9.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(of(&[9.0, 1.0, 3.0, 4.0]), Some(3.5));
    }
}
