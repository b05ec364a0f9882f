//! Flags whose value may hold a password: what is wrong with one is said without showing it.

use std::ffi::OsStr;
use std::fmt::Display;
use std::marker::PhantomData;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

/// Reads a `T`, as clap does by itself; but clap begins its messages with the value.
#[derive(Debug)]
pub(crate) struct Unshown<T>(PhantomData<fn() -> T>);

impl<T> Unshown<T> {
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Unshown<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Unshown<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T> TypedValueParser for Unshown<T>
where
    T: FromStr<Err: Display> + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, Error> {
        let text = value.to_str().ok_or_else(|| "it is no text".to_owned());
        text.and_then(|text| text.parse().map_err(|error: T::Err| error.to_string())).map_err(|why| {
            let flag = arg.map(ToString::to_string).unwrap_or_default();
            Error::raw(ErrorKind::ValueValidation, format!("invalid value for '{flag}': {why}"))
                .with_cmd(command)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use clap::Parser;

    use crate::broker::external::BrokerArgs;
    use crate::store::etcd::StoreArgs;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        broker: BrokerArgs,
        #[command(flatten)]
        store: StoreArgs,
    }

    fn refusal(words: &[OsString]) -> String {
        let words = [OsString::from("cluster")].into_iter().chain(words.iter().cloned());
        Cli::try_parse_from(words).err().expect("it is wrong").to_string()
    }

    #[test]
    fn whatever_is_wrong_with_a_url_its_password_is_not_in_the_message() {
        for (flag, url) in [
            ("--broker", "mqtts://lab:s3cret@broker.example"),
            ("--broker", "mqtt://lab:s3cret@"),
            ("--broker", "lab:s3cret@broker.example:8883"),
            ("--store", "etcds://root:s3cret@a"),
            ("--store", "etcd://root:s3cret@a:port"),
            ("--store", "root:s3cret@a:2379"),
            ("--store", "etcd://s3cret@a:1"),
            ("--store", "etcd://root:s3cret/x@a:1"),
        ] {
            for words in [vec![flag.into(), url.into()], vec![format!("{flag}={url}").into()]] {
                let refusal = refusal(&words);
                assert!(!refusal.contains("s3cret"), "{refusal}");
                let begins =
                    refusal.starts_with(&format!("error: invalid value for '{flag} <URL>': expected "));
                assert!(begins, "{refusal}");
            }
        }
        let no_text = OsString::from_vec(b"etcd://root:s3cret\xff@a:1".to_vec());
        let refusal = refusal(&["--store".into(), no_text]);
        assert!(
            refusal.contains("--store <URL>': it is no text") && !refusal.contains("s3cret"),
            "{refusal}"
        );
    }

    #[test]
    fn what_is_right_is_taken_and_the_help_shows_nothing_of_the_environment() {
        let words = ["cluster", "--broker", "mqtts://lab@a", "--store", "etcd://root:s3cret@a:1"];
        let cli = Cli::parse_from(words);
        assert_eq!(cli.broker.broker.map(|broker| broker.to_string()).as_deref(), Some("mqtts://lab@a:8883"));
        assert_eq!(cli.store.store.map(|store| store.to_string()).as_deref(), Some("etcd://a:1"));
        let command = <Cli as clap::CommandFactory>::command();
        let shows =
            command.get_arguments().filter(|arg| ["broker", "store"].contains(&arg.get_id().as_str()));
        assert_eq!(shows.map(|arg| arg.is_hide_env_values_set()).collect::<Vec<_>>(), [true, true]);
    }
}
