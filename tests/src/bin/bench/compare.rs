//! What has changed since an older run. Only ratios to plain routing are compared: absolute numbers are the machine's.

use crate::subject::Variant;
use crate::summary::Summary;
use crate::table::{Table, title};

/// Every ratio that both runs have.
pub(crate) fn compare(before: &Summary, now: &Summary) -> Table {
    let header = ["of", "variant", "before", "now", "", ""];
    let mut rows = vec![header.map(ToOwned::to_owned).to_vec()];
    for key in &now.keys {
        for variant in now.variants(key.underlay).into_iter().filter(|variant| *variant != Variant::Plain) {
            let ratio = |summary: &Summary| summary.ratio(key, &variant, &Variant::Plain);
            let (Some(old), Some(new)) = (ratio(before), ratio(now)) else { continue };
            let spread =
                |summary: &Summary| summary.spread(key, &variant).map_or(0.0, |spread| spread.width());
            let change = new / old - 1.0;
            rows.push(vec![
                format!("{}, {}", key.underlay.id(), title(key)),
                variant.to_string(),
                format!("{old:.2}"),
                format!("{new:.2}"),
                format!("{:+.0}%", change * 100.0),
                verdict(change, spread(before).max(spread(now)), key.quantity.more_is_better()).to_owned(),
            ]);
        }
    }
    Table(rows)
}

/// A change within the spread of the rounds is none.
fn verdict(change: f64, spread: f64, more_is_better: bool) -> &'static str {
    if change.abs() <= spread.max(0.02) {
        ""
    } else if (change > 0.0) == more_is_better {
        "better"
    } else {
        "WORSE"
    }
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn what_is_better_depends_on_the_quantity() {
        assert_eq!(verdict(0.1, 0.05, true), "better");
        assert_eq!(verdict(0.1, 0.05, false), "WORSE");
        assert_eq!(verdict(-0.1, 0.05, false), "better");
        assert_eq!(verdict(0.04, 0.05, true), "");
    }
}
