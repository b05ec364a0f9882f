//! The person's side: stdout for the answer, stderr for the talk, colours where somebody sees them, and questions
//! only where somebody can answer.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};

use comfy_table::Table;
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};

use crate::args::ColorChoice;
use crate::exit::Exit;
use crate::failure::Failure;

/// Colours for text on one stream, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    #[cfg(test)]
    pub(crate) const fn never() -> Self {
        Self { on: false }
    }

    pub(crate) const fn is_on(self) -> bool {
        self.on
    }

    pub(crate) fn error(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    pub(crate) fn warning(self, text: &str) -> String {
        self.wrap("1;33", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(crate) fn changing(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }

    pub(crate) fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// One of six colours, the same for the same number.
    pub(crate) fn nth(self, number: usize, text: &str) -> String {
        const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "31"];
        self.wrap(COLOURS[number % COLOURS.len()], text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// What the program knows about where its output goes.
#[derive(Debug)]
pub(crate) struct Terminal {
    stdout: Paint,
    stderr: Paint,
    quiet: bool,
    /// What to print when Ctrl-C ends the watching: how to look again.
    farewell: RefCell<Option<String>>,
}

/// What decides about colours, apart from the streams.
#[derive(Debug, Clone, Copy)]
struct ColourWishes {
    choice: ColorChoice,
    no_color: bool,
    force: bool,
    dumb: bool,
}

impl ColourWishes {
    fn from_environment(choice: ColorChoice) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            choice,
            no_color: set("NO_COLOR"),
            force: std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0"),
            dumb: std::env::var_os("TERM").is_some_and(|term| term == "dumb"),
        }
    }

    /// The flag beats the environment, `NO_COLOR` beats `CLICOLOR_FORCE`.
    const fn paint(self, is_terminal: bool) -> Paint {
        let on = match self.choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => !self.no_color && (self.force || (is_terminal && !self.dumb)),
        };
        Paint { on }
    }
}

impl Terminal {
    pub(crate) fn new(choice: ColorChoice, quiet: bool) -> Self {
        let wishes = ColourWishes::from_environment(choice);
        Self {
            stdout: wishes.paint(io::stdout().is_terminal()),
            stderr: wishes.paint(io::stderr().is_terminal()),
            quiet,
            farewell: RefCell::new(None),
        }
    }

    pub(crate) const fn stdout_paint(&self) -> Paint {
        self.stdout
    }

    pub(crate) const fn stderr_paint(&self) -> Paint {
        self.stderr
    }

    /// Columns of the terminal behind stdout; `None` for a pipe or a file, where nothing is cut.
    pub(crate) fn width() -> Option<u16> {
        Table::new().width()
    }

    /// Rows of the terminal behind stdout, if it is one on which one can go back to what was written.
    pub(crate) fn height() -> Option<u16> {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let stdout = io::stdout();
        let size = rustix::termios::tcgetwinsize(&stdout).ok().filter(|_| !is_dumb)?;
        Some(size.ws_row).filter(|rows| *rows > 0)
    }

    /// Draws the whole terminal anew. An error tells that nobody sees it.
    pub(crate) fn redraw(text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        // From the top, each line over what was there: a terminal that is emptied first would flicker.
        let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
        write!(stdout, "\x1b[H{lines}\x1b[J")?;
        stdout.flush()
    }

    /// Whether a question would be seen and could be answered.
    pub(crate) fn can_ask() -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Prints the answer. That its reader has gone away (`hypha get … | head -1`) is no failure.
    pub(crate) fn answer(text: &str) -> Result<(), Failure> {
        match Self::stream(text) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::new(Exit::Failed, format!("write the answer: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Prints a part of an answer that goes on; an error tells that nobody reads on.
    pub(crate) fn stream(text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        if !text.is_empty() && !text.ends_with('\n') {
            stdout.write_all(b"\n")?;
        }
        stdout.flush()
    }

    /// Progress and hints. Nobody is helped by an error about not being able to talk, so it is dropped.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            write_to_stderr(text);
        }
    }

    pub(crate) fn warn(&self, text: &str) {
        write_to_stderr(&format!("{} {text}", self.stderr.warning("warning:")));
    }

    /// Asks for a yes or no; anything but yes is no.
    pub(crate) async fn confirm(question: &str) -> io::Result<bool> {
        let line = read_line(format!("{question} [y/N] ")).await?;
        Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Asks for a password, which is not shown while it is typed.
    pub(crate) async fn ask_password(prompt: &str) -> io::Result<String> {
        let hidden = Hidden::begin()?;
        let line = read_line(prompt.to_owned()).await;
        drop(hidden);
        // The line end that was typed was hidden too.
        write_to_stderr("");
        Ok(line?.trim_end_matches(['\r', '\n']).to_owned())
    }

    pub(crate) fn on_interrupt(&self, text: impl Into<String>) {
        *self.farewell.borrow_mut() = Some(text.into());
    }

    pub(crate) fn farewell(&self) -> Option<String> {
        self.farewell.borrow().clone()
    }
}

/// Reads in a thread of its own, so that Ctrl-C is heard meanwhile.
async fn read_line(prompt: String) -> io::Result<String> {
    let read = tokio::task::spawn_blocking(move || {
        let mut stderr = io::stderr().lock();
        write!(stderr, "{prompt}")?;
        stderr.flush()?;
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        Ok(line)
    });
    read.await.map_err(io::Error::other)?
}

/// A terminal that shows nothing of what is typed, as long as this lives. Ctrl-C drops it too, since it is a signal
/// here and not the end of the process.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn begin() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &hidden)?;
        Ok(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before).ok();
    }
}

/// `text` on one line and without escape sequences, so that what others wrote cannot draw on the terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

pub(crate) fn write_to_stderr(text: &str) {
    // When stderr is gone there is nobody left to tell.
    drop(writeln!(io::stderr().lock(), "{text}"));
}

#[cfg(test)]
mod tests {
    use super::ColourWishes;
    use crate::args::ColorChoice;

    const NONE: ColourWishes =
        ColourWishes { choice: ColorChoice::Auto, no_color: false, force: false, dumb: false };

    #[test]
    fn colours_are_for_terminals_unless_somebody_says_otherwise() {
        assert!(NONE.paint(true).is_on());
        assert!(!NONE.paint(false).is_on());
        assert!(!ColourWishes { dumb: true, ..NONE }.paint(true).is_on());
        assert!(ColourWishes { force: true, ..NONE }.paint(false).is_on());
        assert!(!ColourWishes { force: true, no_color: true, ..NONE }.paint(true).is_on());
        assert!(
            ColourWishes { choice: ColorChoice::Always, no_color: true, ..NONE }.paint(false).is_on(),
            "the flag beats the environment"
        );
        assert!(!ColourWishes { choice: ColorChoice::Never, force: true, ..NONE }.paint(true).is_on());
    }
}
