//! What every command has at hand: the wishes of the command line, the login, and a way to answer.

use crate::address::Address;
use crate::api::Client;
use crate::args::Global;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Frame, Listing, render};
use crate::session::{Session, SessionError, Store, claims};
use crate::terminal::{Terminal, write_to_stderr};

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) terminal: Terminal,
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        let hint = match &error {
            SessionError::Unreadable { .. } => Some("hypha logout, then hypha login URL".to_owned()),
            SessionError::NoHome | SessionError::File { .. } => None,
        };
        Self { hint, ..Self::new(Exit::Failed, error.to_string()) }
    }
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        let terminal = Terminal::new(global.color, global.quiet);
        Self { global, terminal }
    }

    pub(crate) fn frame(&self) -> Frame {
        Frame {
            width: Terminal::width(),
            colours: self.terminal.stdout_paint().is_on(),
            headers: !self.global.no_headers,
        }
    }

    /// Answers with a list. `nothing` is said where an empty table would be.
    pub(crate) fn list(&self, listing: &Listing, nothing: &str) -> Result<(), Failure> {
        if listing.rows.is_empty() && matches!(self.global.output, Format::Table | Format::Wide) {
            self.terminal.say(nothing);
        }
        Terminal::answer(&render(listing, self.global.output, self.frame()))
    }

    /// Whether there is a root to ask, by login or by `--url`.
    pub(crate) fn knows_a_root(&self) -> Result<bool, Failure> {
        let given = self.global.url.as_deref().is_some_and(|url| !url.is_empty());
        Ok(given || self.stored()?.is_some())
    }

    /// The root of `--url`, `HYPHA_URL` or the login, with the token of `HYPHA_TOKEN` or of the login there.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let given = self.global.url.as_deref().filter(|url| !url.is_empty());
        let given = given.map(address).transpose()?;
        let token = std::env::var("HYPHA_TOKEN").ok().filter(|token| !token.is_empty());
        // With both given, no file is needed, and a damaged one is in nobody's way.
        let stored = if given.is_some() && token.is_some() { None } else { self.stored()? };
        let root = match (given, &stored) {
            (Some(root), _) => root,
            (None, Some(session)) => address(&session.url)?,
            (None, None) => {
                return Err(Failure::new(Exit::LogIn, "not logged in").hint("hypha login URL"));
            }
        };
        let session = match token {
            Some(token) => {
                Some(Session { url: root.to_string(), user: claims(&token).sub, token, refresh_token: None })
            }
            // A token is for the root that gave it: no other one gets to see it.
            None => stored.filter(|session| session.url == root.to_string()),
        };
        Ok(Client::new(root, session, self.global.request_timeout, remember)?)
    }

    fn stored(&self) -> Result<Option<Session>, Failure> {
        let store = Store::from_environment()?;
        if store.is_exposed() {
            let path = store.path().display();
            self.terminal.warn(&format!("others can read the login in {path}: chmod 600 {path}"));
        }
        Ok(store.load()?)
    }
}

pub(crate) fn address(text: &str) -> Result<Address, Failure> {
    text.parse().map_err(|error: crate::address::InvalidAddress| Failure::new(Exit::Usage, error.to_string()))
}

/// Keeps a renewed token. Without it the next run renews again, so a failure is only worth a warning.
fn remember(session: &Session) {
    let kept = Store::from_environment().and_then(|store| store.save(session));
    if let Err(error) = kept {
        write_to_stderr(&format!("warning: {error}"));
    }
}
