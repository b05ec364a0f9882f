//! Mail: one kind, by the SMTP server of the settings.

use std::fmt;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

/// How mail is sent. The URL may carry a password, so it is never shown.
#[derive(Clone)]
pub struct MailConfig {
    /// `smtp://` or `smtps://`, with user and password if the server wants them.
    pub server: String,
    /// Whom the mail is from.
    pub from: Mailbox,
    /// Where people open the dashboard; links lead there, and nowhere that a request names.
    pub dashboard: String,
}

#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("the URL of the SMTP server")]
    Url(#[source] smtp::Error),
    #[error("the address of the user")]
    Recipient(#[source] lettre::address::AddressError),
    #[error("write the mail")]
    Message(#[source] lettre::error::Error),
    #[error("hand the mail to the SMTP server")]
    Send(#[source] smtp::Error),
}

/// Sends mail.
pub(super) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    dashboard: String,
}

impl Mailer {
    pub(super) fn new(config: MailConfig) -> Result<Self, MailError> {
        let transport =
            AsyncSmtpTransport::<Tokio1Executor>::from_url(&config.server).map_err(MailError::Url)?.build();
        let dashboard = config.dashboard.trim_end_matches('/').to_owned();
        Ok(Self { transport, from: config.from, dashboard })
    }

    /// The link by which a user sets a new password.
    pub(super) async fn send_reset(&self, user: &str, email: &str, token: &str) -> Result<(), MailError> {
        let to: Address = email.parse().map_err(MailError::Recipient)?;
        let text = format!(
            "Hello {user},\n\nset a new password within three hours here:\n\n{}/resetPassword/{token}\n\n\
             If you did not ask for this, there is nothing to do: your password stays as it is.\n",
            self.dashboard
        );
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject("Set a new password")
            .header(ContentType::TEXT_PLAIN)
            .body(text)
            .map_err(MailError::Message)?;
        self.transport.send(message).await.map(drop).map_err(MailError::Send)
    }
}

impl fmt::Debug for MailConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailConfig")
            .field("from", &self.from)
            .field("dashboard", &self.dashboard)
            .finish_non_exhaustive()
    }
}
