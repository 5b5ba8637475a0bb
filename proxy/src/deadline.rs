//! Deadlines that move with every request and are hardly ever reached. Moving one costs nothing: the timer behind it
//! stays where it is, and is set anew only when it goes off too early. (A timer that is set and taken back for each
//! request wakes the runtime's driver each time.)

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::{
    task::unconstrained,
    time::{Instant, Sleep},
};

/// The timer of a deadline that the caller knows.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
    /// The task that the timer wakes: a registered one need not be registered again for every packet.
    sleeper: Option<Waker>,
}

impl Alarm {
    /// Ready once `due` is reached; else `cx` is woken then, or earlier.
    pub(crate) fn poll(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
            self.sleeper = None;
        }
        if !timer.is_elapsed() && self.sleeper.as_ref().is_some_and(|sleeper| sleeper.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        self.sleeper = Some(cx.waker().clone());
        // Unconstrained, so that a task that must wait is registered with the timer.
        while Pin::new(&mut unconstrained(timer.as_mut())).poll(cx).is_ready() {
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_is_reached_when_it_stands_still() {
        let begun = Instant::now();
        let (mut alarm, mut due) = (Alarm::default(), begun + Duration::from_secs(5));
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            // Something happens, and the deadline moves on, three times.
            if polls <= 3 {
                due += Duration::from_secs(5);
            }
            alarm.poll(due, cx)
        })
        .await;
        assert_eq!(begun.elapsed().as_secs(), 20);
        let nearer = Instant::now() + Duration::from_secs(1);
        let mut alarm = Alarm::default();
        let far = poll_fn(|cx| Poll::Ready(alarm.poll(nearer + Duration::from_secs(60), cx))).await;
        assert!(far.is_pending());
        poll_fn(|cx| alarm.poll(nearer, cx)).await;
        assert_eq!(begun.elapsed().as_secs(), 21);
    }
}
