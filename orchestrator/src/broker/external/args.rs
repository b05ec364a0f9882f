//! The flags about an external broker.

use std::path::PathBuf;

use super::Settings;
use super::credentials::Files;
use super::location::{InvalidLocation, Location};
use crate::unshown::Unshown;

/// The flags of a cluster whose workers may meet it at another broker.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct BrokerArgs {
    /// Speak to the workers through this MQTT broker, Mosquitto for example, instead of being one: mqtts://USER@HOST:8883, or
    /// mqtt://USER@HOST:1883, which is not encrypted; user and port may be left out. Workers know only the address of their cluster,
    /// and are told --mqtt-port: they must reach the broker there, by a listener of its own on this machine, or by what forwards to
    /// it. The broker needs the rules of `orchestrator broker-acl`; each cluster needs a broker of its own.
    #[arg(long, env = "HYPHA_BROKER", value_name = "URL", hide_env_values = true, value_parser = Unshown::<Location>::new())]
    pub broker: Option<Location>,
    /// File with the password of USER at the broker, in one line. Read anew for each connection, as the next ones are.
    #[arg(long, env = "HYPHA_BROKER_PASSWORD_FILE", value_name = "FILE", requires = "broker")]
    pub broker_password_file: Option<PathBuf>,
    /// PEM file of those who may have signed the certificate of the broker, instead of those whom this system trusts.
    #[arg(long, env = "HYPHA_BROKER_CA", value_name = "FILE", requires = "broker")]
    pub broker_ca: Option<PathBuf>,
    /// PEM file of the certificate that is shown to the broker.
    #[arg(long, env = "HYPHA_BROKER_CERT", value_name = "FILE", requires_all = ["broker", "broker_key"])]
    pub broker_cert: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, env = "HYPHA_BROKER_KEY", value_name = "FILE", requires_all = ["broker", "broker_cert"])]
    pub broker_key: Option<PathBuf>,
}

/// Why these flags do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBroker {
    #[error("--broker: {0}")]
    Location(#[from] InvalidLocation),
    #[error("--broker-ca, --broker-cert, --broker-key: they are for mqtts://")]
    NotEncrypted,
    #[error("--broker-password-file: of which user? name it in --broker as mqtts://USER@HOST")]
    Nobody,
    #[error(
        "--mqtt-port: with --broker this is the port at which workers find the broker, so it cannot be 0"
    )]
    NoPort,
}

impl BrokerArgs {
    /// The external broker, if there is to be one. Workers are told `port`.
    ///
    /// # Errors
    /// Files are given for what is not encrypted, or a password for nobody.
    pub fn settings(self, port: u16) -> Result<Option<Settings>, InvalidBroker> {
        let Some(location) = self.broker else { return Ok(None) };
        let files = Files {
            password: self.broker_password_file,
            ca: self.broker_ca,
            identity: self.broker_cert.zip(self.broker_key),
        };
        if !location.is_encrypted && (files.ca.is_some() || files.identity.is_some()) {
            return Err(InvalidBroker::NotEncrypted);
        }
        if files.password.is_some() && location.user.is_none() {
            return Err(InvalidBroker::Nobody);
        }
        if port == 0 {
            return Err(InvalidBroker::NoPort);
        }
        Ok(Some(Settings { location, files, port, session: None }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{BrokerArgs, InvalidBroker};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: BrokerArgs,
    }

    fn settings(flags: &[&str], port: u16) -> Result<Option<String>, InvalidBroker> {
        let args = Cli::parse_from([&["cluster"], flags].concat()).args;
        args.settings(port).map(|settings| settings.map(|settings| settings.location.to_string()))
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused() {
        assert_eq!(settings(&[], 0), Ok(None));
        let mqtts = ["--broker", "mqtts://lab@a", "--broker-password-file", "p", "--broker-ca", "c"];
        assert_eq!(settings(&mqtts, 10003), Ok(Some("mqtts://lab@a:8883".to_owned())));
        let ca = settings(&["--broker", "mqtt://a", "--broker-ca", "c"], 10003);
        assert_eq!(ca, Err(InvalidBroker::NotEncrypted));
        let password = settings(&["--broker", "mqtts://a", "--broker-password-file", "p"], 10003);
        assert_eq!(password, Err(InvalidBroker::Nobody));
        assert_eq!(settings(&["--broker", "mqtt://a"], 0), Err(InvalidBroker::NoPort));
        assert!(Cli::try_parse_from(["cluster", "--broker-ca", "c"]).is_err(), "files for no broker");
    }
}
