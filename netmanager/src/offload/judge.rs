//! Which of the questions are asked, and what their answers mean.

use std::io;

use super::question::Form;
use super::{Crossing, Verdict};
use crate::net::LeftToNic;

/// How often a question must be lost to be lost for a reason. Where one in ten packets is lost, a question's end or its answer is
/// one time in five: all of these are by chance once in 3,000 times, and then there is a second look.
const TRIES: usize = 5;
/// How often in a row a question that leaves nothing to the NIC must come through, before it is the NIC.
const CONFIRMATIONS: usize = 3;
/// How often segments must come apart until they are taken to be cut on the way. A node that does not know who asks has them wait
/// until it does, which cuts them too.
const LOOKS: usize = 3;

/// One who asks.
pub(super) trait Ask {
    /// How a question in this form has crossed, if it is answered. One that could not be asked is an error.
    async fn ask(&mut self, form: Form) -> io::Result<Option<Crossing>>;
}

/// Asks whether the way takes what `left` leaves to the NIC, until it is clear. In the usual case that is one question.
pub(super) async fn judge(questions: &mut impl Ask, left: LeftToNic) -> io::Result<Verdict> {
    let form = match left {
        LeftToNic::All => Form::Segments,
        LeftToNic::Checksums => Form::Checksums,
        LeftToNic::Nothing => return Ok(Verdict::Unknown),
    };
    if let Some(crossing) = any(questions, form).await? {
        return Ok(Verdict::Takes(crossing));
    }
    if !all(questions, Form::Finished).await? {
        return Ok(Verdict::Unknown);
    }
    let takes_checksums = form == Form::Segments && any(questions, Form::Checksums).await?.is_some();
    // The instance may have started only meanwhile, or the network have come up.
    if let Some(crossing) = any(questions, form).await? {
        return Ok(Verdict::Takes(crossing));
    }
    if !all(questions, Form::Finished).await? {
        return Ok(Verdict::Unknown);
    }
    Ok(Verdict::Lost(if takes_checksums { LeftToNic::Checksums } else { LeftToNic::Nothing }))
}

/// Whether one is answered, and of a super-packet also what becomes of those that follow.
async fn any(questions: &mut impl Ask, form: Form) -> io::Result<Option<Crossing>> {
    let mut answered = None;
    let mut left = TRIES;
    while left > 0 {
        match questions.ask(form).await? {
            Some(Crossing::Cut) if form == Form::Segments => {
                left = if answered.is_none() { LOOKS - 1 } else { left - 1 };
                answered = Some(Crossing::Cut);
            }
            Some(crossing) => return Ok(Some(crossing)),
            None => left -= 1,
        }
    }
    Ok(answered)
}

async fn all(questions: &mut impl Ask, form: Form) -> io::Result<bool> {
    for _ in 0..CONFIRMATIONS {
        if questions.ask(form).await?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Verdict = Verdict::Takes(Crossing::Whole);

    /// A way to a node, by what it does with each question that it gets, of which it is told the number.
    struct Way<F> {
        answers: F,
        asked: usize,
    }

    impl<F: FnMut(usize, Form) -> Option<Crossing>> Ask for Way<F> {
        async fn ask(&mut self, form: Form) -> io::Result<Option<Crossing>> {
            self.asked += 1;
            Ok((self.answers)(self.asked, form))
        }
    }

    /// Of a way on which what comes at all comes whole.
    async fn verdict(left: LeftToNic, mut answers: impl FnMut(usize, Form) -> bool) -> (Verdict, usize) {
        let answers = |number, form| answers(number, form).then_some(Crossing::Whole);
        let mut way = Way { answers, asked: 0 };
        let verdict = judge(&mut way, left).await.unwrap();
        (verdict, way.asked)
    }

    #[tokio::test]
    async fn one_answer_is_enough_for_a_good_way() {
        assert_eq!(verdict(LeftToNic::All, |_, _| true).await, (GOOD, 1));
        assert_eq!(verdict(LeftToNic::All, |number, _| number == TRIES).await, (GOOD, TRIES));
        assert_eq!(verdict(LeftToNic::Checksums, |_, _| true).await, (GOOD, 1));
    }

    #[tokio::test]
    async fn segments_are_cut_on_the_way_if_they_always_are() {
        let mut judged = Vec::new();
        for crossings in [[1, 1, 1], [1, 1, 2], [1, 2, 2], [0, 1, 2]] {
            let mut number = 0;
            let crossing = |_: usize, _: Form| {
                number += 1;
                match crossings.get(number - 1) {
                    Some(0) => None,
                    Some(1) => Some(Crossing::Cut),
                    _ => Some(Crossing::Whole),
                }
            };
            let mut way = Way { answers: crossing, asked: 0 };
            judged.push((judge(&mut way, LeftToNic::All).await.unwrap(), way.asked));
        }
        let whole = Verdict::Takes(Crossing::Whole);
        assert_eq!(judged, [(Verdict::Takes(Crossing::Cut), 3), (whole, 3), (whole, 2), (whole, 3)]);
    }

    #[tokio::test]
    async fn the_nic_is_left_what_it_can_do() {
        let (no_segments, _) = verdict(LeftToNic::All, |_, form| form != Form::Segments).await;
        assert_eq!(no_segments, Verdict::Lost(LeftToNic::Checksums));
        for left in [LeftToNic::All, LeftToNic::Checksums] {
            let (no_checksums, _) = verdict(left, |_, form| form == Form::Finished).await;
            assert_eq!(no_checksums, Verdict::Lost(LeftToNic::Nothing));
        }
        assert_eq!(verdict(LeftToNic::Nothing, |_, _| false).await, (Verdict::Unknown, 0));
    }

    #[tokio::test]
    async fn who_answers_nothing_or_not_reliably_says_nothing_of_the_nic() {
        let (silent, asked) = verdict(LeftToNic::All, |_, _| false).await;
        assert_eq!((silent, asked), (Verdict::Unknown, TRIES + 1));
        let lossy = |number, form| form == Form::Finished && number != TRIES + CONFIRMATIONS;
        assert_eq!(verdict(LeftToNic::All, lossy).await.0, Verdict::Unknown);
        let last = 2 * TRIES + CONFIRMATIONS + 1;
        let ended = |number, form| form != Form::Segments && number <= last;
        assert_eq!(verdict(LeftToNic::All, ended).await.0, Verdict::Unknown);
    }

    #[tokio::test]
    async fn an_instance_that_starts_meanwhile_is_not_taken_for_a_nic_that_fails() {
        let (verdict, _) = verdict(LeftToNic::All, |number, _| number > TRIES).await;
        assert_eq!(verdict, GOOD);
    }

    #[tokio::test]
    async fn what_could_not_be_asked_is_not_unanswered() {
        struct Broken;
        impl Ask for Broken {
            async fn ask(&mut self, _: Form) -> io::Result<Option<Crossing>> {
                Err(io::Error::other("the link is down"))
            }
        }
        assert!(judge(&mut Broken, LeftToNic::All).await.is_err());
    }
}
