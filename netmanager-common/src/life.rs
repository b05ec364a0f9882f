//! The life of a flow: what its packets make of it, how long it lasts, and when it may move.
//!
//! ```text
//!   New ──answer──▶ Answered ──▶ Assured ──FIN of one end──▶ Closing ──FIN of the other──▶ Closed
//!    └────────────────────────────── RST of either end ─────────────────────────────────────▲
//! ```
//!
//! A flow has two entries, one for each direction, and each sees the packets of its direction only: the FIN of an end is
//! noted in that end's entry, everything else in both. A TCP connection is assured as soon as its handshake is answered,
//! a datagram flow when answers have come in two different seconds. What is assured is remembered when the table of all
//! flows has no room for it.

use crate::wire;

/// How far a flow has come. Value of [`crate::map::Flow::state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum State {
    /// Nothing has come back.
    #[default]
    New = 0,
    /// Something has come back.
    Answered = 1,
    /// Both ends take part.
    Assured = 2,
    /// The end that this entry is of sends no more.
    Closing = 3,
    /// It is over.
    Closed = 4,
}

impl State {
    /// The state with this number. There are no others; one that is taken for a state all the same is an end.
    #[must_use]
    #[inline(always)]
    pub const fn of(number: u8) -> Self {
        match number {
            0 => Self::New,
            1 => Self::Answered,
            2 => Self::Assured,
            3 => Self::Closing,
            _ => Self::Closed,
        }
    }

    /// Whether an end was seen, of one side or both.
    #[must_use]
    #[inline(always)]
    pub const fn is_ending(self) -> bool {
        matches!(self, Self::Closing | Self::Closed)
    }
}

/// Idle time after which a datagram flow is over, in seconds. Oakestra's 60 s broke quiet flows.
pub const DATAGRAM_LIFETIME: u32 = 180;
/// The same of ICMP echo.
pub const ECHO_LIFETIME: u32 = 30;
/// The same of a TCP connection that nobody has answered. Linux gives up after two minutes, but its attempts are further
/// apart than this only towards the end.
pub const SYN_LIFETIME: u32 = 60;
/// The same of a TCP connection that has ended: what its ends may still repeat goes where it went.
pub const CLOSED_LIFETIME: u32 = 10;
/// Idle time after which a flow no longer keeps its ports from another one.
pub const CLASH_LIFETIME: u32 = 60;

/// Whether nothing of a flow is to be expected any more. Established TCP never expires here, it may idle for hours.
#[must_use]
#[inline(always)]
pub const fn is_over(protocol: u8, state: State, idle: u32) -> bool {
    let lifetime = match (protocol, state) {
        (wire::TCP, State::New) => SYN_LIFETIME,
        (wire::TCP, State::Closed) => CLOSED_LIFETIME,
        (wire::TCP, _) => return false,
        (wire::UDP, _) => DATAGRAM_LIFETIME,
        _ => ECHO_LIFETIME,
    };
    idle > lifetime
}

/// Whether the next packet of a flow begins a new one, for which a backend is chosen afresh. A SYN begins anew only
/// after the old connection was seen to end, or was never answered, since it may as well be a retransmission.
#[must_use]
#[inline(always)]
pub const fn begins_anew(protocol: u8, tcp_flags: u8, state: State, idle: u32) -> bool {
    match protocol {
        wire::TCP if is_first(protocol, tcp_flags) => state.is_ending() || is_over(protocol, state, idle),
        wire::TCP => matches!(state, State::Closed) && is_over(protocol, state, idle),
        _ => is_over(protocol, state, idle),
    }
}

/// Whether a packet may be the first of its connection, so that another backend can still take it.
#[must_use]
#[inline(always)]
pub const fn is_first(protocol: u8, tcp_flags: u8) -> bool {
    protocol != wire::TCP || tcp_flags & (wire::TCP_SYN | wire::TCP_ACK) == wire::TCP_SYN
}

/// Whether a flow goes on at another backend when its own is set aside: an established TCP connection cannot, and may
/// outlive what was wrong.
#[must_use]
#[inline(always)]
pub const fn may_move(protocol: u8, tcp_flags: u8, state: State) -> bool {
    protocol != wire::TCP || is_first(protocol, tcp_flags) && matches!(state, State::New)
}

/// Whether a packet ends its connection, or its sender's half.
#[must_use]
#[inline(always)]
pub const fn is_last(tcp_flags: u8) -> bool {
    tcp_flags & (wire::TCP_FIN | wire::TCP_RST) != 0
}

/// What a packet makes of its entry. `other_closing`: the other direction has seen its end; looked for only when this
/// packet [`is_last`].
#[must_use]
#[inline(always)]
pub const fn after(state: State, tcp_flags: u8, other_closing: bool) -> State {
    if tcp_flags & wire::TCP_RST != 0 {
        State::Closed
    } else if tcp_flags & wire::TCP_FIN != 0 {
        if other_closing || matches!(state, State::Closed) { State::Closed } else { State::Closing }
    } else {
        state
    }
}

/// What an answer makes of both entries: `state` is the one of its own. A refusal is no answer.
#[must_use]
#[inline(always)]
pub const fn answered(protocol: u8, state: State, in_another_second: bool) -> State {
    match (protocol, state) {
        (wire::TCP, State::New | State::Answered) => State::Assured,
        (_, State::New) => State::Answered,
        (wire::UDP, State::Answered) if in_another_second => State::Assured,
        _ => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ICMP, TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, UDP};
    use proptest::prelude::*;

    const HOURS: u32 = 12 * 3600;

    #[test]
    fn an_established_connection_survives_idle_hours() {
        assert!(!is_over(TCP, State::Assured, HOURS));
        for flags in [TCP_ACK, TCP_FIN | TCP_ACK, TCP_RST] {
            assert!(!begins_anew(TCP, flags, State::Assured, HOURS));
        }
        assert!(!is_over(TCP, State::Closing, HOURS), "half of it may still be sent");
    }

    #[test]
    fn a_closed_connection_goes_in_seconds() {
        assert!(is_over(TCP, State::Closed, CLOSED_LIFETIME + 1));
        assert!(!begins_anew(TCP, TCP_ACK, State::Closed, 1), "the last ACK goes where the FIN went");
        assert!(begins_anew(TCP, TCP_ACK, State::Closed, CLOSED_LIFETIME + 1));
    }

    #[test]
    fn only_a_syn_after_the_end_begins_a_tcp_flow_anew() {
        assert!(!begins_anew(TCP, TCP_SYN, State::New, 1), "a retransmitted SYN keeps its backend");
        assert!(begins_anew(TCP, TCP_SYN, State::New, SYN_LIFETIME + 1));
        assert!(!begins_anew(TCP, TCP_SYN, State::Assured, HOURS));
        for ended in [State::Closing, State::Closed] {
            assert!(begins_anew(TCP, TCP_SYN, ended, 0));
            assert!(!begins_anew(TCP, TCP_SYN | TCP_ACK, ended, 0));
        }
    }

    #[test]
    fn datagram_flows_end_by_idleness() {
        for state in [State::New, State::Answered, State::Assured] {
            assert!(!begins_anew(UDP, 0, state, DATAGRAM_LIFETIME));
            assert!(begins_anew(UDP, 0, state, DATAGRAM_LIFETIME + 1));
            assert!(begins_anew(ICMP, 0, state, ECHO_LIFETIME + 1));
        }
    }

    #[test]
    fn both_fins_or_one_reset_close_a_connection() {
        assert_eq!(after(State::Assured, TCP_FIN | TCP_ACK, false), State::Closing);
        assert_eq!(after(State::Closing, TCP_FIN | TCP_ACK, false), State::Closing, "a repetition");
        assert_eq!(after(State::Assured, TCP_FIN | TCP_ACK, true), State::Closed);
        assert_eq!(after(State::Closed, TCP_FIN | TCP_ACK, false), State::Closed);
        assert_eq!(after(State::New, TCP_RST | TCP_ACK, false), State::Closed);
    }

    #[test]
    fn tcp_is_assured_by_its_handshake_and_datagrams_by_answers_over_time() {
        assert_eq!(answered(TCP, State::New, false), State::Assured);
        assert_eq!(answered(UDP, State::New, true), State::Answered);
        assert_eq!(answered(UDP, State::Answered, false), State::Answered);
        assert_eq!(answered(UDP, State::Answered, true), State::Assured);
        assert_eq!(answered(ICMP, State::Answered, true), State::Answered);
    }

    #[test]
    fn what_is_not_established_moves_away_from_a_backend_that_is_set_aside() {
        assert!(may_move(UDP, 0, State::Assured));
        assert!(may_move(TCP, TCP_SYN, State::New));
        assert!(!may_move(TCP, TCP_ACK, State::New));
        assert!(!may_move(TCP, TCP_SYN, State::Assured));
        assert!(!may_move(TCP, TCP_ACK, State::Assured));
    }

    proptest! {
        #[test]
        fn a_closed_connection_is_never_opened_by_a_later_packet(
            flags in proptest::collection::vec(any::<u8>(), 0..20), other: bool
        ) {
            let mut state = State::Closed;
            for flags in flags {
                state = answered(TCP, after(state, flags, other), true);
                prop_assert_eq!(state, State::Closed);
            }
        }

        #[test]
        fn a_state_is_read_as_it_was_written(number in 0u8..5) {
            prop_assert_eq!(State::of(number) as u8, number);
        }
    }
}
