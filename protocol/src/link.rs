//! The ways to wrap packets that a worker takes beside the bare one, which all take. An extra key of Hypha's, `links`, in what
//! says where an instance is reached: a list of words. Whoever does not know the key, or a word, leaves it out.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Which ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LinkOffer {
    /// The inner packet behind a VXLAN and an Ethernet header, over IPv4 to the same port. Its word is `vx`.
    pub vx: bool,
}

const VX: &str = "vx";

impl LinkOffer {
    /// None but the bare one; then the key is left out.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        !self.vx
    }
}

impl Serialize for LinkOffer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.vx.then_some(VX))
    }
}

impl<'de> Deserialize<'de> for LinkOffer {
    /// Whatever is no list of words means none.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Word {
            Text(String),
            Other(IgnoredAny),
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value {
            List(Vec<Word>),
            Other(IgnoredAny),
        }
        let words = match Value::deserialize(deserializer)? {
            Value::List(words) => words,
            Value::Other(_) => Vec::new(),
        };
        Ok(Self { vx: words.iter().any(|word| matches!(word, Word::Text(text) if text == VX)) })
    }
}

#[cfg(test)]
mod tests {
    use super::LinkOffer;
    use serde_json::json;

    #[test]
    fn what_is_not_understood_is_left_out() {
        for value in [
            json!([]),
            json!(null),
            json!("vx"),
            json!(["quic", 7, {"vx": 1}]),
            json!({"vx": true}),
            json!(3),
        ] {
            assert_eq!(
                serde_json::from_value::<LinkOffer>(value.clone()).unwrap(),
                LinkOffer::default(),
                "{value}"
            );
        }
        let both = json!(["wg", "vx", null]);
        assert_eq!(serde_json::from_value::<LinkOffer>(both).unwrap(), LinkOffer { vx: true });
    }

    #[test]
    fn what_is_written_is_read() {
        for links in [LinkOffer::default(), LinkOffer { vx: true }] {
            assert_eq!(serde_json::from_value::<LinkOffer>(json!(links)).unwrap(), links);
        }
        assert_eq!(json!(LinkOffer { vx: true }), json!(["vx"]));
    }
}
